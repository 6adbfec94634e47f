"""Ternary, binary and fp8, the low-rank correction, and how all of them come back from a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY, VOCAB
from toys import layer

from golfcore.artifact.model_io import StoredTensor, load_model, save_model
from golfcore.artifact.weights import E4M3, restore
from golfcore.config import QuantConfig
from golfcore.errors import InputError, UsageError
from golfcore.model import get_family
from golfcore.quant import quantize_state
from golfcore.quant.lowbit import binary, fp8, ternary
from golfcore.quant.lqer import _leading, corrected
from golfcore.quant.measure import hessian_error
from golfcore.quant.rtn import best_clip, quantize_rows

WEIGHT = torch.randn(12, 256, generator=torch.Generator().manual_seed(0)) * 0.1


def test_ternary_codes_and_the_shrinkage_fix() -> None:
    codes, mean = ternary(WEIGHT, group=128, trained=True)
    assert torch.equal(mean.float(), WEIGHT.unflatten(1, (2, 128)).abs().mean(2).half().float())
    assert set(codes.unique().tolist()) == {-1, 0, 1}
    other, fitted = ternary(WEIGHT, group=128)
    assert torch.equal(other, codes)

    def lost(scale: torch.Tensor) -> float:
        return float((WEIGHT - codes * scale.float().repeat_interleave(128, 1)).square().sum())

    assert lost(fitted) < 0.85 * lost(mean)
    assert (fitted > 1.2 * mean).all()  # the mean is taken over weights that become zero too
    for factor in (0.97, 1.03):
        assert lost(fitted) < lost(fitted * factor)


def test_binary_is_signs_and_fp8_is_torchs() -> None:
    signs, scale = binary(WEIGHT, group=64)
    item = StoredTensor("w", "up", signs, scale, 1)
    expected = torch.where(WEIGHT < 0, -1.0, 1.0) * scale.float().repeat_interleave(64, 1)
    assert torch.equal(item.dequantize(), expected)
    patterns, rows = fp8(WEIGHT)
    assert rows is not None
    back = StoredTensor("w", "up", patterns, rows).dequantize()
    assert float((back / WEIGHT - 1).abs().quantile(0.99)) < 2**-4 + 1e-3
    assert np.array_equal(
        E4M3, torch.arange(256).to(torch.uint8).view(torch.float8_e4m3fn).float().numpy(), equal_nan=True
    )
    vector, none = fp8(torch.tensor([1.0, -500.0, 0.0]))
    assert none is None and StoredTensor("v", "control", vector).dequantize().tolist() == [1.0, -448.0, 0.0]


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match=r"up: 256 columns are not a multiple of quant\.group = 100"):
        ternary(WEIGHT, group=100, name="up")
    with pytest.raises(InputError, match="up: holds NaN"):
        binary(WEIGHT * float("nan"), group=64, name="up")
    with pytest.raises(InputError, match="gate: holds NaN"):
        fp8(torch.tensor([float("inf")]), "gate")
    with pytest.raises(UsageError, match=r"quant\.method"):
        QuantConfig(format="ternary", method="gptq")


@pytest.mark.parametrize("form", ["ternary", "binary"])
@pytest.mark.parametrize("rest", ["fp16", "fp8"])
def test_a_low_bit_model_comes_back_from_its_file(form: str, rest: str, tmp_path: Path) -> None:
    family = get_family("gpt")
    model = family.build(TINY, VOCAB, 0)
    config = QuantConfig(format=form, rest=rest, group=32)  # type: ignore[arg-type]
    stored = quantize_state(model.state_dict(), model.parameter_roles(), config)
    save_model(tmp_path / "m.golf", family, TINY, VOCAB, stored, b"", {})
    loaded = dict(load_model(tmp_path / "m.golf").module.named_parameters())
    for item in stored:
        assert torch.equal(loaded[item.name], item.dequantize())
    values = {item.name: item.values.dtype for item in stored}
    assert values["embed.weight"] == (torch.int8 if rest == "fp16" else torch.uint8)
    assert values["blocks.0.attn_scale_D"] == (torch.float16 if rest == "fp16" else torch.uint8)
    up = loaded["blocks.0.mlp.up.weight"]
    assert len(up[0].unique()) == (3 if form == "ternary" else 2)


def test_a_correction_is_kept_where_it_pays_and_read_back(tmp_path: Path) -> None:
    weight, hessian = layer(96, 64)
    white = quantize_rows(weight, bits=6, clip="sigma", k=12.85)
    item = StoredTensor("w", "up", white.symbols_OI, white.scale_O, 6)
    assert corrected(item, weight, hessian, rank=2, damping=0.01) is item  # rounding errors have no structure
    spike = weight + 3.0 * torch.outer(torch.ones(96), torch.randn(64, generator=torch.Generator().manual_seed(5)))
    clipped = quantize_rows(spike, bits=3, clip="sigma", k=1.0)
    item = StoredTensor("w", "up", clipped.symbols_OI, clipped.scale_O, 3)
    better = corrected(item, spike, hessian, rank=2, damping=0.01)
    assert better.low_rank is not None
    before, after = (hessian_error(spike, spike - i.dequantize(), hessian) for i in (item, better))
    assert after < 0.3 * before
    lost = spike - item.dequantize()
    damped = hessian + torch.eye(64) * 0.01 * hessian.diagonal().mean()
    size = torch.linalg.svdvals(lost @ torch.linalg.cholesky(damped)).square()
    for rank in (1, 2, 64):
        left_OR, share = _leading(lost, lost @ damped, rank)
        assert share == pytest.approx(float(size[:rank].sum() / size.sum()), rel=1e-3)
        assert torch.allclose(left_OR.t() @ left_OR, torch.eye(rank), atol=1e-4)
    assert corrected(item, spike, torch.zeros(64, 64), rank=2, damping=0.01) is item
    assert StoredTensor.from_tuple(dataclasses.astuple(better)).dequantize().equal(better.dequantize())


def test_a_file_whose_parts_do_not_fit_is_refused() -> None:
    symbols, scale = np.zeros((4, 6), np.int8), np.ones(4, np.float16)
    bits = {"w": (6, 0)}
    for extra, message in (
        ({}, "missing"),
        ({"w": symbols, "w.scale": np.ones(5, np.float16)}, "its scales"),
        ({"w": symbols, "w.scale": np.ones((4, 4), np.float16)}, "its scales"),
        ({"w": symbols, "w.scale": scale, "w.columns": np.ones(4, np.float16)}, "columns' factors"),
        ({"w": symbols, "w.scale": scale, "w.left": np.ones((4, 2), np.float16)}, "'w.right' is missing"),
        ({"w": symbols, "w.scale": scale, "w.left": np.ones((4, 2), np.float16),
          "w.right": np.ones((3, 6), np.float16)}, "do not multiply"),
        ({"w": symbols, "w.scale": scale, "w.left": np.ones((5, 2), np.float16),
          "w.right": np.ones((2, 6), np.float16)}, "its correction"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            restore("w", extra, bits)


def test_the_best_clip_is_never_worse_than_the_whole_range() -> None:
    weight = WEIGHT.clone()
    weight[:, 0] *= 40  # an outlier a row
    whole = quantize_rows(weight, bits=4, clip="absmax", k=1.0)
    best = best_clip(weight, bits=4)
    lost = [
        (weight - q.symbols_OI * q.scale_O.float()[:, None]).square().sum(1) for q in (whole, best)
    ]  # fmt: skip
    assert (lost[1] <= lost[0] + 1e-6).all()
    assert torch.equal(best.scale_O, whole.scale_O) or (lost[1] < lost[0]).any()
