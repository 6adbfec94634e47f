"""Bytes and operations against counts by hand, floors against divisions by hand, the stream's way against the model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from golfcore import ops
from golfcore.bench import roofline, step_work
from golfcore.bench.launch_shapes import launches, served
from golfcore.bench.resources import document, rows_of
from golfcore.bench.roofline import floor_of, instructions_of, predict, times_of
from golfcore.bench.step_work import Path, Shape, Work, shape_of, walk
from golfcore.bench.step_work import step_work as work_of
from golfcore.cli import main
from golfcore.errors import UsageError
from golfcore.gpu_specs import H100
from golfcore.model import get_family
from golfcore.ops.cubin import Instruction, Kernel
from golfcore.ops.launches import Launch
from golfcore.ops.registry import on_device
from golfcore.plan.scaling import NVLINK_BYTES_S
from golfcore.recipes import load_recipe

FRONTIER = load_recipe("frontier_8xh100", environment={}).config
TINY = Shape(tokens=3, d=8, heads=2, kv_heads=1, head_dim=4, hidden=16, vocab=10, order=(0, 1), keys=2.0)


def test_norm_by_hand() -> None:
    forward, backward = step_work.norm(3, 8, branch=True, mixed=True)
    # 24 numbers of 2 bytes: x, y, x0 in; r and h out, and 3 fp32 rstd.
    assert (forward.read, forward.written) == (3 * 48, 2 * 48 + 12)
    # dr, dh, r, y, x, x0 and rstd in; dx, dy, dx0 out.
    assert (backward.read, backward.written) == (6 * 48 + 12, 3 * 48)
    forward, backward = step_work.norm(3, 8, branch=False, mixed=False)
    assert (forward.read, forward.written) == (48, 48 + 12)
    assert (backward.read, backward.written) == (2 * 48 + 12, 48)


def test_attention_by_hand() -> None:
    # Three tokens of one head see 1, 2 and 3 keys: two on average, six scores of four dimensions.
    forward, backward = step_work.attention(3, 1, 1, 4, 2.0, gated=False)
    assert forward.special == 6
    assert forward.mma == 2 * (2 * 6 * 4)  # q k and p v
    assert backward.mma == 7 * (2 * 6 * 4)  # q k and dp twice, dv, dq, dk
    assert backward.special == 2 * 6
    assert (forward.read, forward.written) == (3 * 24, 24 + 12)
    assert (backward.read, backward.written) == (5 * 24 + 12, 3 * 24)


def test_products_by_hand() -> None:
    forward, of_input, of_weight = step_work.product("up", 3, 8, 16)
    assert forward.products == of_input.products == of_weight.products == 2 * 3 * 8 * 16
    assert (forward.read, forward.written) == (2 * (24 + 128), 2 * 48)
    assert (of_input.read, of_input.written) == (2 * (48 + 128), 2 * 24)
    assert (of_weight.read, of_weight.written) == (2 * (24 + 48), 4 * 128)


def test_the_rest_by_hand() -> None:
    activation = step_work.activation(3, 16)
    assert [(w.read, w.written) for w in activation] == [(96, 96), (192, 96)]
    qk = step_work.qk(3, 2, 1, 4)
    assert [(w.read, w.written) for w in qk] == [(72, 72), (144, 72)]
    residual = step_work.residual(3, 8)
    assert [(w.read, w.written) for w in residual] == [(96, 48), (96, 48)]
    embed = step_work.embed(3, 8, 10)
    assert [(w.read, w.written) for w in embed] == [(24 + 320, 48), (24 + 48 + 320, 320)]
    products, entropy, chunks, _ = step_work.head(3, 8, 10)
    assert products.products == 3 * 2 * 3 * 8 * 10
    assert (entropy.special, entropy.cached) == (3 * 30, 120)  # logits in, gradients out
    assert (chunks.calls, chunks.read, chunks.written) == (1, 6 * 80, 4 * 80)
    assert step_work.head(98_304, 512, 8192)[2].calls == 48  # of 2,048 tokens
    (adamw,) = step_work.adamw(100, averaged=True)
    assert (adamw.read, adamw.written) == (5 * 400, 4 * 400)  # p, m, v, average and g; all but g written
    assert step_work.newton_schulz_flops(4, 8, 2) == 2 * (2 * 4 * 4 * 8 + 2 * 4**3 + 2 * 4 * 4 * 8)
    assert step_work.newton_schulz_flops(8, 4, 2) == step_work.newton_schulz_flops(4, 8, 2)
    dequantize, rounding, vector = step_work.bitpack(4, 64, 6)
    assert (dequantize.read, dequantize.written) == (4 * 48 + 16, 512)
    assert (rounding.read, rounding.written) == (512 + 16, 512)
    assert (vector.read, vector.written) == (4 * 48 + 16 + 128, 16)


def test_collectives_and_muon_by_hand() -> None:
    shape = replace(TINY, matrices=((8, 8), (4, 8)), others=100, gpus=4, averaged=True)
    scatter, gather, reduce = step_work.collectives(shape)
    assert (scatter.link, gather.link, reduce.link) == (4 * 96 * 0.75, 2 * 96 * 0.75, 2 * 4 * 100 * 0.75)
    momentum, products, apply = step_work.muon(shape)
    assert (momentum.read, momentum.written) == (8 * 24, 6 * 24)  # a quarter of the matrices
    assert products.products == (step_work.newton_schulz_flops(8, 8, 5) + step_work.newton_schulz_flops(4, 8, 5)) / 4
    assert (apply.read, apply.written) == (10 * 96, 8 * 96)
    assert step_work.collectives(replace(shape, gpus=1)) == []


@pytest.mark.parametrize(
    ("order", "more", "expected"),
    [
        ((0, 1, 2), {}, Path(plain=1, adding=2, last_adds=True)),
        # Both of the first half are kept; the last layer's output waits for the norm behind it.
        ((0, 1, 2, 3), {"skips": "gated"}, Path(plain=4, last_adds=True, sums=3, skips=2)),
        ((0, 1, 2, 3, 4), {"skips": "weighted"}, Path(plain=4, adding=1, last_adds=True, sums=3, skips=2)),
        ((0, 1, 2, 3), {"skips": "gated", "lanes_from": 3}, Path(plain=4, sums=3, skips=2, lanes=1)),
        ((0, 1, 2, 3), {"lanes_from": 2}, Path(plain=3, adding=1, sums=1, lanes=2)),
    ],
)
def test_the_streams_way(order: tuple[int, ...], more: dict[str, object], expected: Path) -> None:
    assert walk(replace(TINY, order=order, **more)) == expected


@pytest.mark.parametrize("phase", [0, 2])
def test_the_models_own_calls_are_those_counted(phase: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frontier's model, narrow and short: every operation is called as often as the model of the step says."""
    config = replace(FRONTIER.model, model_dim=32, num_heads=4, num_kv_heads=2, rope_dims=4, max_segment=8)
    model = get_family("gpt").build(config, 40, 0)
    model.phase = phase
    counted = dict.fromkeys(("rms_norm", "mix_norm", "residual", "qk", "attention", "leaky2", "embed"), 0)

    def spy(name: str) -> None:
        genuine = getattr(ops, name)

        def call(*arguments: object, **options: object) -> object:
            counted[name] += 1
            return genuine(*arguments, **options)

        monkeypatch.setattr(ops, name, call)

    for name in counted:
        spy(name)
    model.hidden(torch.ones(1, 16, dtype=torch.int64), model.embed.table())
    shape = shape_of(FRONTIER, phase)
    calls: dict[str, int] = {}
    for work in work_of(shape):
        if not work.backward and work.op not in ("torch", "cublas", "nccl", "optim"):
            calls[work.op] = calls.get(work.op, 0) + work.calls
    assert counted.pop("rms_norm") + counted.pop("mix_norm") == calls["norm"]
    assert counted == {
        "residual": calls["residual"], "qk": calls["qk"],
        "attention": calls["attention"], "leaky2": calls["activation"], "embed": calls["embed"],
    }  # fmt: skip


def test_the_frontiers_shape() -> None:
    shape = shape_of(FRONTIER)
    assert (shape.tokens, shape.d, shape.hidden, shape.vocab) == (98_304, 512, 2048, 8192)
    assert (len(shape.order), len(shape_of(FRONTIER, 2).order)) == (11, 17)
    assert shape.matrix_parameters + shape.others == 35_945_671
    products = sum(w.calls * w.products for w in work_of(shape) if w.op == "cublas")
    # Six flops a parameter and token, of the layers and of the tied head.
    assert products == 6 * 98_304 * (11 * 2_883_584 + 8192 * 512)
    with pytest.raises(UsageError, match="supports GPT recipes with activation relu2 or leaky2"):
        shape_of(replace(FRONTIER, model=replace(FRONTIER.model, activation="swiglu")))


def test_floors_by_hand() -> None:
    work = Work(name="x", op="norm", read=2e6, written=1.35e6, mma=1e9, fp32=1e6, special=1e5, products=1e8, link=3.6e5)
    times = times_of(work, H100, instructions=1e6)
    assert times["memory"] == pytest.approx(1.0)
    assert times["products"] == pytest.approx(1e8 / 989.5e12 * 1e6)
    assert times["mma"] == pytest.approx(1e9 / (989.5e12 * 0.62) * 1e6)
    assert times["issue"] == pytest.approx(1e6 / (4 * 132 * 1.83e9) * 1e6, rel=1e-3)
    assert times["link"] == pytest.approx(3.6e5 / NVLINK_BYTES_S * 1e6)
    found = floor_of(replace(work, calls=3))
    assert (found.limiter, found.floor_us) == ("mma", max(found.times.values()))
    assert found.predicted_us == pytest.approx(times["mma"] / roofline.REACHED["mma"])
    assert found.step_us == 3 * found.floor_us


def loop(*names: str) -> tuple[Instruction, ...]:
    code = [Instruction(16 * i, name) for i, name in enumerate(names)]
    return (*code, Instruction(16 * len(code), "BRA", 0))


def kernel(op: str, name: str, code: tuple[Instruction, ...], **more: int) -> Kernel:
    sizes = {"threads": 256, "registers": 32, "shared": 0, "stack": 0, **more}
    return Kernel(op=op, name=name, image="sm_90a", code=code, **sizes)


def test_instructions_by_hand() -> None:
    copying = kernel("norm", "f", loop("LDG.E.128", "FADD", "STG.E.128"))
    # Four instructions move 32 bytes a lane, 1,024 a warp.
    assert instructions_of(Work(name="", op="norm", read=4096.0, written=4096.0), [copying]) == 32
    multiplying = kernel("attention", "g", loop("LDSM.16.M88.4", "HMMA.16816.F32.BF16"))
    assert instructions_of(Work(name="", op="attention", mma=8192.0, read=1.0), [multiplying, copying]) == 6
    assert instructions_of(Work(name="", op="norm", read=1.0), [multiplying]) == 0
    assert "issue" not in floor_of(Work(name="", op="norm", read=1.0)).times


def test_launches_find_their_kernels() -> None:
    pytest.importorskip("golfcore._simt", reason="make simt")
    found = launches(shape_of(FRONTIER), tokens=256)
    assert {row.folder for rows in found.values() for row in rows} == on_device() - {"linear", "residual"}
    assert {(row.folder, row.kernel) for row in found["residual"]} == {("norm", "forward<bf16, bf16, 8, 2>")}
    assert [row.kernel for row in found["attention, gradient"]] == [
        "prepare<64>", "backward_keys<64>", "backward_queries<64>",
    ]  # fmt: skip
    assert [row.kernel for row in found["bitpack: dequantize"]] == ["dequantize<6, bf16, true>"]
    rows = found["activation, gradient"]
    assert [row.kernel for row in rows] == ["backward<bf16, 8>"]
    mine, other = (kernel(op, "backward<bf16, 8>", loop("FADD")) for op in ("activation", "qk"))
    pairs = served(found, [mine, other, kernel("activation", "backward<float, 4>", loop("FADD"))])
    assert pairs["activation, gradient"] == [(mine, rows[0])]
    assert pairs["activation"] == []


def test_rows_of_resources() -> None:
    found = {"q and k": [Launch("qk", "f", 10, 96, 1 << 10), Launch("qk", "f", 10, 96, 100 << 10)]}
    kernels = [kernel("qk", "f", loop("FADD"), shared=1 << 10), kernel("qk", "g", (), threads=0)]
    launched, unknown = rows_of(H100, kernels, found)
    assert launched.fits is not None
    assert (launched.fits.blocks, launched.fits.limit) == (2, "shared")  # 102 KB a block, with the system's own
    assert unknown.fits is None
    first, second = document([launched, unknown])
    assert (first["threads"], first["shared"], first["dynamic_shared"]) == (96, 1 << 10, 100 << 10)
    assert (first["code"]["instructions"], first["code"]["shared"]) == (2, 0)
    assert (second["threads"], second["dynamic_shared"], second["occupancy"]) == (None, None, None)


def test_the_prediction_lies_between_floor_and_log() -> None:
    early, late = predict(FRONTIER)
    assert (early.passes, early.logged_ms, late.passes, late.logged_ms) == (11, 96.3, 17, 140.9)
    for step in (early, late):
        assert 0 < step.floor_ms < step.predicted_ms
        ops_of_step = {f.work.op for f in step.floors}
        assert ops_of_step >= {"norm", "residual", "qk", "attention", "activation", "embed", "head", "optim", "nccl"}


def test_roofline_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "roofline", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [step["layers_run"] for step in found["steps"]] == [11, 17]
    assert found["basis"].endswith("nothing was measured on a GPU")
    assert all(row["floor_us"] > 0 for row in found["steps"][0]["operations"])
    assert main(["bench", "roofline"]) == 0
    shown = capsys.readouterr().out
    assert "the contest's best entry logged 96.3 ms" in shown
    assert "not a measurement" in shown


def test_resources_command_needs_a_build_with_cuda(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("golfcore.ops.cubin._core.has_cuda", False)
    roofline.cubin.built_kernels.cache_clear()
    assert main(["kernels", "list", "--resources"]) == 1
    assert "GOLF_CUDA=ON" in capsys.readouterr().err
