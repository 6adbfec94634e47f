"""Column-by-column quantization, one row, one state at a time: what the native search must agree with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from golfcore.container.trellis import MASKS


def quantize_columns(
    wanted_CO: Tensor, weight_CO: Tensor, feedback_CC: Tensor, step_O: Tensor, *, shrink_C: Tensor, limit: int,
    trellis: int, ranges: Sequence[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Compute ``golfcore.ops.columns.quantize_columns`` in the dtype of ``wanted_CO``; return symbols and errors."""
    symbols_CO, error_CO = torch.empty(wanted_CO.shape, dtype=torch.int8), torch.empty_like(weight_CO)
    inverse_O = torch.where(step_O > 0, 1 / step_O, torch.zeros_like(step_O))
    for j in range(len(wanted_CO)):
        wanted_O = (wanted_CO[j] + feedback_CC[:j, j] @ error_CO[:j]) * inverse_O * shrink_C[j]
        if trellis:
            points = [
                best_path(wanted_O[a:b], step_O[a:b], limit, trellis)
                for a, b in pairwise(ranges)
            ]  # fmt: skip
            point_O = torch.cat(points)
            symbols_CO[j], quantized_O = (point_O >> 1).to(torch.int8), point_O * step_O / 2
        else:
            symbol_O = wanted_O.round().clamp(-limit, limit)
            symbols_CO[j], quantized_O = symbol_O.to(torch.int8), symbol_O * step_O
        error_CO[j] = weight_CO[j] - quantized_O
    return symbols_CO, error_CO


def best_path(wanted_O: Tensor, step_O: Tensor, limit: int, trellis: int) -> Tensor:
    """Return the points, in half steps, of the path of least squared error weighted by the squared steps (Viterbi)."""
    states, masks = 1 << trellis, MASKS[trellis]
    paths: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
    for wanted, step in zip(wanted_O.tolist(), step_O.tolist(), strict=True):
        x = min(max(2 * wanted, 2.0 - 2 * limit), 2.0 * limit - 2)
        reached: dict[int, tuple[float, list[int]]] = {}
        for state in range(states):
            if state not in paths:
                continue
            before, points = paths[state]
            for coset in (state & 1, (state & 1) + 2):
                point = 4 * round((x - coset) / 4) + coset
                total = before + (2 * wanted - point) ** 2 * step**2
                after = (state >> 1) ^ masks[coset]
                if after not in reached or total < reached[after][0]:
                    reached[after] = (total, [*points, point])
        paths = reached
    return torch.tensor(min(paths.values(), key=lambda path: path[0])[1])
