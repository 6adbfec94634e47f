"""The native column loop against brute force and against plain torch; the compiled decoder against numpy's."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from golfcore import _core
from golfcore.container.trellis import MASKS, points
from golfcore.errors import InputError
from golfcore.ops.columns import quantize_columns
from golfcore.ops.reference.columns import quantize_columns as plain
from golfcore.ops.registry import ISAS

BITS = sorted(MASKS)


def points_in_numpy(symbols: np.ndarray, bits: int) -> np.ndarray:
    """The points of trellis-coded symbols, a row at a time: the definition that the compiled decoder is held to."""
    rows = symbols.reshape(-1, symbols.shape[-1] if symbols.ndim > 1 else 1)
    points_RL, state_L = 2 * rows.astype(np.int16), np.zeros(rows.shape[1], np.uint8)
    masks = np.array(MASKS[bits], np.uint8)
    for point_L in points_RL:
        point_L += state_L & 1
        state_L = (state_L >> 1) ^ masks[point_L & 3]
    return points_RL.reshape(symbols.shape)


def problem(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What is wanted of a block whose predecessors left errors, the weights, the feedback and the steps."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=g)
    hessian = mix @ mix.t() + torch.eye(columns)
    feedback_CC = torch.linalg.cholesky(hessian).flip(0, 1).contiguous()
    feedback_CC /= feedback_CC.diagonal().clone()
    step_O = torch.rand(rows, generator=g) * 0.3 + 0.1
    w_CO = torch.randn(columns, rows, generator=g)
    wanted_CO = w_CO + 0.2 * torch.randn(columns, rows, generator=g)
    step_O[rows // 3], w_CO[:, rows // 3] = 0, 0
    return wanted_CO, w_CO, feedback_CC, step_O


def quantized(
    wanted_CO: Tensor, w_CO: Tensor, feedback_CC: Tensor, step_O: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    """Symbols and errors, of copies."""
    error_CO = w_CO.clone()
    return quantize_columns(wanted_CO.clone(), error_CO, feedback_CC, step_O, **options), error_CO


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("seed", range(4))
def test_no_sequence_of_symbols_is_nearer_than_the_trellis_path(bits: int, seed: int) -> None:
    """Every sequence of six symbols of three values or their neighbors, decoded by the format's own rule."""
    g = torch.Generator().manual_seed(seed)
    w_O = torch.rand(6, generator=g) * 2 - 1
    step_O = torch.rand(6, generator=g) * 0.2 + 0.5
    symbols, _ = quantized(w_O[None], w_O[None], torch.zeros(1, 1), step_O, trellis=bits)
    candidates = np.array(list(itertools.product(range(-3, 4), repeat=6)), np.int8)  # all paths with symbols within 3
    values = points_in_numpy(np.ascontiguousarray(candidates.T), bits).T * step_O.numpy() / 2
    errors = ((values - w_O.numpy()) ** 2).sum(1)
    found = points(symbols.numpy().reshape(6, 1), bits)[:, 0] * step_O.numpy() / 2
    assert ((found - w_O.numpy()) ** 2).sum() == pytest.approx(errors.min(), rel=1e-5)


@pytest.mark.parametrize("bits", [0, *BITS])
def test_native_is_the_reference(bits: int) -> None:
    tensors = problem(90, 7)
    shrink_C = torch.linspace(0.8, 1.0, 7)
    options: dict[str, Any] = {"limit": 20, "trellis": bits, "ranges": [0, 40, 90]}
    symbols, errors = quantized(*tensors, shrink_C=shrink_C, **options)
    expected = plain(*[t.double() for t in tensors], shrink_C=shrink_C.double(), **options)
    assert (symbols == expected[0]).float().mean() > 0.99  # ties of f32 and f64 may fall differently
    assert float(errors.square().sum()) == pytest.approx(float(expected[1].square().sum()), rel=1e-4)
    assert int(symbols.abs().max()) <= 20
    if bits == 0:
        assert not symbols[:, 30].any()  # a row of step 0


@pytest.mark.parametrize("bits", [0, 2, 3, 5, 8])
def test_every_instruction_set_and_number_of_threads_gives_the_same_symbols(bits: int) -> None:
    tensors = problem(701, 40, seed=3)  # rows that fill no vector at the end
    results, before = [], torch.get_num_threads()
    try:
        for isa in ISAS:
            for threads in (1, 3):
                _core.set_isa(isa)
                torch.set_num_threads(threads)
                results.append(quantized(*tensors, trellis=bits, ranges=[0, 301, 701]))
    finally:
        _core.set_isa(ISAS[-1])
        torch.set_num_threads(before)
    for symbols, errors in results[1:]:
        assert torch.equal(symbols, results[0][0]) and torch.equal(errors, results[0][1])


def test_more_states_lose_less() -> None:
    w_CO = torch.randn(64, 1000, generator=torch.Generator().manual_seed(1))
    lost = [
        float(quantized(w_CO, w_CO, torch.zeros(64, 64), torch.ones(1000), trellis=b)[1].square().mean())
        for b in (0, 2, 3, 5, 8)
    ]
    gains = [10 * np.log10(lost[0] / x) for x in lost[1:]]
    assert gains == sorted(gains)
    # The step of a trellis is that of rounding, so that its symbols cost about as many bits.
    assert gains[1] > 0.9 and gains[3] > 1.2, gains


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", [(5, 300), (1, 1), (0, 4), (17,), (3, 2, 5)])
def test_compiled_and_numpy_decoders_agree(bits: int, shape: tuple[int, ...]) -> None:
    symbols = np.random.default_rng(bits).integers(-128, 128, shape).astype(np.int8)
    assert np.array_equal(points(symbols, bits), points_in_numpy(symbols, bits))


def test_what_does_not_fit_is_refused() -> None:
    wanted_CO, w_CO, feedback_CC, step_O = problem(8, 4)
    for changed in ({"trellis": 9}, {"limit": 200}, {"ranges": [0, 5]}, {"ranges": [0, 6, 4, 8]}):
        with pytest.raises(InputError):
            quantized(wanted_CO, w_CO, feedback_CC, step_O, **changed)
    with pytest.raises(InputError, match="feedback has shape"):
        quantized(wanted_CO, w_CO, feedback_CC[:3, :3], step_O)
    with pytest.raises(InputError, match="weight has shape"):
        quantized(wanted_CO, w_CO[:3], feedback_CC, step_O)
    with pytest.raises(InputError, match="contiguous"):
        quantized(wanted_CO.t().contiguous().t(), w_CO, feedback_CC, step_O)
    with pytest.raises(InputError, match="fp32"):
        quantized(wanted_CO.double(), w_CO, feedback_CC, step_O)
