"""Rounding: the rule, its error, its bounds, and the prediction of bytes."""

import math

import numpy as np
import pytest
import torch
from tiny import TINY, VOCAB

from golfcore.artifact.inspect import order0_bits
from golfcore.artifact.model_io import StoredTensor
from golfcore.config import QuantConfig
from golfcore.container import grid
from golfcore.errors import InputError
from golfcore.model import get_family
from golfcore.quant import error_rows, predict_bytes, quantize_state
from golfcore.quant.matrix import gaussian_bits
from golfcore.quant.rtn import quantize_rows

WEIGHT = torch.randn(64, 300, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.01, 3, 64)[:, None]


@pytest.mark.parametrize("bits", [2, 3, 5, 6, 8])
@pytest.mark.parametrize("clip", ["sigma", "absmax", "percentile"])
def test_rounding_is_to_the_nearest_symbol_and_clips_at_the_ends(bits: int, clip: str) -> None:
    quantized = quantize_rows(WEIGHT, bits=bits, clip=clip, k=4.0)
    q = 2 ** (bits - 1) - 1
    symbols, scale = quantized.symbols_OI.numpy(), quantized.scale_O.float().numpy()
    expected = np.clip(np.rint(WEIGHT.numpy() / scale[:, None]), -q, q)
    # Ties and the last bit of the division may fall either way; nothing may be off by more than that.
    assert (np.abs(symbols - expected) <= (np.abs(WEIGHT.numpy() / scale[:, None] % 1 - 0.5) < 1e-4)).all()
    assert symbols.min() >= -q
    assert symbols.max() <= q
    inside = np.abs(WEIGHT.numpy()) <= q * scale[:, None]
    error = np.abs(symbols * scale[:, None] - WEIGHT.numpy())
    assert (error[inside] <= 0.5001 * np.broadcast_to(scale[:, None], error.shape)[inside]).all()


def test_absmax_never_clips_and_sigma_follows_k() -> None:
    absmax = quantize_rows(WEIGHT, bits=6, clip="absmax", k=1.0)
    assert (absmax.symbols_OI.abs().amax(1) == 31).all()
    sigma = quantize_rows(WEIGHT, bits=6, clip="sigma", k=10.0)
    torch.testing.assert_close(sigma.scale_O.float(), 10 * WEIGHT.std(1, unbiased=False) / 31, rtol=1e-3, atol=0)


def test_rows_of_zeros_and_tiny_rows_stay_zero() -> None:
    weight = WEIGHT.clone()
    weight[3], weight[4] = 0, 1e-12
    quantized = quantize_rows(weight, bits=6, clip="sigma", k=12.85)
    assert not quantized.symbols_OI[3:5].any()
    assert quantized.symbols_OI[5].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e9])
def test_weights_that_cannot_be_stored_name_the_tensor(bad: float) -> None:
    weight = WEIGHT.clone()
    weight[1, 1] = bad
    with pytest.raises(InputError, match=r"blocks\.0\.q"):
        quantize_rows(weight, bits=6, clip="absmax", k=1.0, name="blocks.0.q")


@pytest.mark.parametrize("clip", ["sigma", "absmax"])
def test_scales_on_the_grid_are_near_and_never_clip_more(clip: str) -> None:
    fp16 = quantize_rows(WEIGHT, bits=6, clip=clip, k=12.85)
    log8 = quantize_rows(WEIGHT, bits=6, clip=clip, k=12.85, scales="log8")
    assert grid.to_index(log8.scale_O.numpy().view(np.uint16)) is not None
    ratio = (log8.scale_O.float() / fp16.scale_O.float()).log2()
    if clip == "sigma":
        assert ratio.abs().max() < 1 / 16 + 1e-3
        change = (log8.symbols_OI.float() * log8.scale_O.float()[:, None] - WEIGHT).square().sum()
        plain = (fp16.symbols_OI.float() * fp16.scale_O.float()[:, None] - WEIGHT).square().sum()
        assert change < 1.03 * plain
    else:
        assert ratio.min() > -1e-3 and ratio.max() < 1 / 8 + 1e-3
        assert (
            log8.symbols_OI.float().abs().amax(1) * log8.scale_O.float() > WEIGHT.abs().amax(1) - log8.scale_O
        ).all()
    rows = WEIGHT.clone()
    rows[5] = 0
    assert not quantize_rows(rows, bits=6, clip=clip, k=12.85, scales="log8").symbols_OI[5].any()
    with pytest.raises(InputError, match="does not fit fp16"):
        quantize_rows(1e9 * WEIGHT, bits=6, clip=clip, k=12.85, scales="log8")


def test_only_matrices_have_rows() -> None:
    with pytest.raises(InputError, match="expected a matrix"):
        quantize_rows(torch.ones(3), bits=6, clip="sigma", k=1.0)


@pytest.mark.parametrize(("bits", "k"), [(6, 12.85), (8, 20.0), (5, 5.0), (4, 4.0), (3, 7.0)])
def test_predicted_entropy_is_that_of_gaussian_rows(bits: int, k: float) -> None:
    weight = torch.randn(200, 500, generator=torch.Generator().manual_seed(1))
    symbols = quantize_rows(weight, bits=bits, clip="sigma", k=k).symbols_OI.numpy()
    assert gaussian_bits(bits, k) == pytest.approx(order0_bits(symbols), abs=0.02)


def test_a_model_becomes_symbols_by_role_and_fp16() -> None:
    model = get_family("gpt").build(TINY, VOCAB, 0)
    config = QuantConfig(matrix_bits=5, embed_bits=7)
    stored = {item.name: item for item in quantize_state(model.state_dict(), model.parameter_roles(), config)}
    assert stored.keys() == dict(model.named_parameters()).keys()
    assert stored["embed.weight"].bits == 7
    assert stored["blocks.1.mlp.up.weight"].bits == 5
    vector = stored["blocks.0.attn_scale_D"]
    assert (vector.bits, vector.values.dtype, vector.scale) == (0, torch.float16, None)


def test_error_rows_measure_what_rounding_cost() -> None:
    state = {"w": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "v": torch.ones(2)}
    stored = [
        StoredTensor("w", "q", torch.tensor([[1, 0], [0, 0]], dtype=torch.int8), torch.ones(2, dtype=torch.float16), 6),
        StoredTensor("v", "control", torch.ones(2, dtype=torch.float16)),
    ]
    lossy, exact = error_rows(state, stored)
    assert lossy["error_db"] == pytest.approx(10 * math.log10(0.5))
    assert exact["error_db"] is None


def test_prediction_counts_every_parameter() -> None:
    family = get_family("gpt")
    small, large = (predict_bytes(family, TINY, VOCAB, QuantConfig(matrix_k=k)) for k in (25.7, 12.85))
    matrices = sum(n for kind, n, _ in family.counts(TINY, VOCAB).values() if kind == "matrix")
    saved_bits = gaussian_bits(6, 12.85) - gaussian_bits(6, 25.7)
    assert large - small == pytest.approx(matrices * saved_bits / 8, abs=1)
