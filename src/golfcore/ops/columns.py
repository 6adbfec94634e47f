"""Quantizing a matrix column by column with error feedback, by rounding or along a trellis; on the CPU, no gradient.

The inner loops of GPTQ (arXiv:2210.17323): ``golfcore.quant.gptq`` cuts a matrix into blocks of columns and calls this
for each. Every instruction set and any number of threads gives the same symbols.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from golfcore import _core
from golfcore.container.trellis import MASKS
from golfcore.errors import InputError
from golfcore.ops import kernels
from golfcore.ops.arguments import check_shape
from golfcore.ops.registry import address

LIMIT = 127  # the largest symbol of int8


def quantize_columns(
    wanted_CO: Tensor, weight_CO: Tensor, feedback_CC: Tensor, step_O: Tensor, *, shrink_C: Tensor | None = None,
    limit: int = LIMIT, trellis: int = 0, ranges: Sequence[int] = (),
) -> Tensor:  # fmt: skip
    """Quantize a block of columns, ``weight ~ symbol * step``, each making good what those before it lost.

    Column j is rounded at ``wanted_j + sum of error_i feedback_ij`` over the columns i before it.

    Args:
        wanted_CO: fp32 [C, O], one column of the layer per row: where the weights are best rounded for the errors of
            earlier blocks; without any, a copy of the weights. Overwritten.
        weight_CO: fp32 [C, O], overwritten with the errors, ``w - w_q``, which later blocks are to make good.
        feedback_CC: fp32 [C, C], of which the strict upper triangle is read.
        step_O: fp32 [O], what a symbol is worth; 0 for a row of zeros.
        shrink_C: fp32 [C], factors on what is wanted before symbols are chosen, 1 if absent: a rate term.
        limit: symbols lie in -limit .. limit.
        trellis: 0 to round, or 2 to 8 bits of trellis state.
        ranges: where stacked matrices begin along O, and O at the end; a trellis starts anew in each. Default: one.

    Returns:
        int8 symbols [C, O].

    Raises:
        InputError: shapes or values that do not fit.
    """
    columns, rows = wanted_CO.shape
    shrink_C = torch.ones(columns) if shrink_C is None else shrink_C
    check_shape("columns", "weight", weight_CO, (columns, rows))
    check_shape("columns", "feedback", feedback_CC, (columns, columns))
    check_shape("columns", "step", step_O, (rows,))
    check_shape("columns", "shrink", shrink_C, (columns,))
    tensors = (wanted_CO, weight_CO, feedback_CC, step_O, shrink_C)
    if any(t.dtype != torch.float32 or t.device.type != "cpu" or not t.is_contiguous() for t in tensors):
        raise InputError(
            "columns: expected contiguous fp32 tensors on the CPU; convert with .float().cpu().contiguous()"
        )
    bounds = list(ranges) or [0, rows]
    if bounds[0] != 0 or bounds[-1] != rows or bounds != sorted(bounds):
        raise InputError(f"columns: ranges = {bounds}; expected ascending offsets from 0 to {rows}")
    if trellis not in (0, *MASKS) or not 1 <= limit <= LIMIT:
        raise InputError(f"columns: trellis = {trellis}, limit = {limit}; expected 0 or 2 to 8, and 1 to {LIMIT}")
    symbols_CO = torch.empty(columns, rows, dtype=torch.int8)
    if trellis:
        workspace = torch.empty(_core.quant_workspace(rows), dtype=torch.uint8)
        square = float(step_O.square().mean())
        weight = 1 / square if square > 0 else 1.0
    else:
        workspace, weight = symbols_CO.new_empty(0), 1.0
        bounds = [*range(0, rows, 256), rows]  # rows do not depend on each other: enough of them for every thread
    kernels.quant_columns(
        wanted=address(wanted_CO), feedback=address(feedback_CC), step=address(step_O), shrink=address(shrink_C),
        symbols=address(symbols_CO), error=address(weight_CO), workspace=address(workspace), columns=columns, rows=rows,
        ranges=bounds, limit=limit, weight=weight, bits=trellis, mask=MASKS.get(trellis, (0, 0, 0, 0)),
    )  # fmt: skip
    return symbols_CO
