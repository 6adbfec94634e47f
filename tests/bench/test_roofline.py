"""Bytes and operations against counts by hand, floors against divisions by hand, the stream's way against the model."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from golfcore import ops
from golfcore.bench import operations, roofline, step_work
from golfcore.bench.launch_shapes import launches, served
from golfcore.bench.operations import Work
from golfcore.bench.resources import document, rows_of
from golfcore.bench.roofline import floor_of, instructions_of, predict, times_of
from golfcore.bench.segments import FLASH2, FLASH3, Segments, documents
from golfcore.bench.step_work import TODAY, Path, Shape, shape_of, walk
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
TINY = Shape(
    tokens=3, d=8, heads=2, kv_heads=1, head_dim=4, hidden=16, vocab=10, order=(0, 1), segments=Segments((3,))
)  # fmt: skip


def test_norm_by_hand() -> None:
    forward, backward = operations.norm(3, 8, branch=True, mixed=True)
    # 24 numbers of 2 bytes: x, y, x0 in; r and h out, and 3 fp32 rstd.
    assert (forward.read, forward.written) == (3 * 48, 2 * 48 + 12)
    # dr, dh, r, y, x, x0 and rstd in; dx, dy, dx0 out.
    assert (backward.read, backward.written) == (6 * 48 + 12, 3 * 48)
    forward, backward = operations.norm(3, 8, branch=False, mixed=False)
    assert (forward.read, forward.written) == (48, 48 + 12)
    assert (backward.read, backward.written) == (2 * 48 + 12, 48)


def test_attention_by_hand() -> None:
    # Three tokens of one head see 1, 2 and 3 keys: two on average, six scores of four dimensions.
    forward, prepare, backward = operations.attention(3, 1, 1, 4, Segments((3,)), gated=False)
    assert forward.special == 6
    assert forward.mma == 2 * (2 * 6 * 4)  # q k and p v
    assert backward.mma == 7 * (2 * 6 * 4)  # q k and dp twice, dv, dq, dk
    assert backward.special == 2 * 6
    assert (forward.read, forward.written) == (3 * 24, 2 * 24 + 12)
    # dy, o, v and the sums in; the gradient of o, what XSA adds to dv, and two numbers a row out.
    assert (prepare.read, prepare.written) == (3 * 24 + 12, 2 * 24 + 24)
    assert (backward.read, backward.written) == (5 * 24 + 24, 3 * 24)
    assert (forward.flops_s, backward.flops_s) == (FLASH2.forward(3), FLASH2.backward(3))
    flash = operations.flash3(3, 1, 1, 4, Segments((3,)), gated=False)
    assert [w.products for w in flash[:2]] == [2 * (2 * 6 * 4), 5 * (2 * 6 * 4)]
    assert [w.op for w in flash] == ["fa3", "fa3", "torch", "torch", "torch"]
    assert (flash[0].flops_s, flash[1].flops_s) == (FLASH3.forward(3), FLASH3.backward(3))


def test_published_rates() -> None:
    for published in (FLASH2, FLASH3):
        for length, rate in published.causal.items():
            assert published.forward(length) == pytest.approx(1e12 * rate)
        rates = [published.forward(length) for length in (16, 100, 512, 700, 1024, 1500, 2048)]
        assert rates == sorted(rates)
        assert published.backward(1024) / published.forward(1024) == pytest.approx(
            published.full_backward / published.full
        )
    # Twice the scores for each query in the time of its own work and of twice the scores: 1 / rate = a + b / length.
    a = 2 / FLASH2.forward(1024) - 1 / FLASH2.forward(512)
    assert 1 / FLASH2.forward(256) == pytest.approx(4 / FLASH2.forward(1024) - 3 * a)


def test_segments_by_hand() -> None:
    both = Segments((2, 6))
    assert (both.longest, both.keys) == (6, (3 + 21) / 8)
    forward, backward = both.rates(FLASH2)
    assert forward == pytest.approx(24 / (3 / FLASH2.forward(2) + 21 / FLASH2.forward(6)))
    assert backward / forward == pytest.approx(264 / 318)


@pytest.mark.parametrize(("spread", "keys"), [(0.9, 654), (1.0, 672), (1.2, 706)])
def test_a_query_of_the_contests_documents_sees_two_thirds_of_a_full_segments_keys(spread: float, keys: float) -> None:
    """Against a long draw of log-normal lengths of mean 957, cut at 2,048."""
    made = documents(2048, spread=spread)
    assert made.keys == pytest.approx(keys, rel=0.01)
    assert made.longest == 2048
    assert sum(made.lengths) / 999 == pytest.approx(957, rel=0.01)


def test_products_by_hand() -> None:
    forward, of_input, of_weight = operations.product("up", 3, 8, 16)
    assert forward.products == of_input.products == of_weight.products == 2 * 3 * 8 * 16
    assert (forward.read, forward.written) == (2 * (24 + 128), 2 * 48)
    assert (of_input.read, of_input.written) == (2 * (48 + 128), 2 * 24)
    assert (of_weight.read, of_weight.written) == (2 * (24 + 48), 4 * 128)


def test_the_rest_by_hand() -> None:
    activation = operations.activation(3, 16)
    assert [(w.read, w.written) for w in activation] == [(96, 96), (192, 96)]
    qk = operations.qk(3, 2, 1, 4)
    assert [(w.read, w.written) for w in qk] == [(72, 72), (144, 72)]
    residual = operations.residual(3, 8)
    assert [(w.read, w.written) for w in residual] == [(96, 48), (96, 48)]
    embed = operations.embed(3, 8, 10)
    assert [(w.read, w.written) for w in embed] == [(24 + 320, 48), (24 + 48 + 320, 320)]
    (adamw,) = step_work.adamw(100, averaged=True)
    assert (adamw.read, adamw.written) == (5 * 400, 4 * 400)  # p, m, v, average and g; all but g written
    dequantize, rounding, vector = operations.bitpack(4, 64, 6)
    assert (dequantize.read, dequantize.written) == (4 * 48 + 16, 512)
    assert (rounding.read, rounding.written) == (512 + 16, 512)
    assert (vector.read, vector.written) == (4 * 48 + 16 + 128, 16)


def test_the_head_by_hand() -> None:
    logits, entropy, of_input, of_weight, scaling = operations.head(3, 8, 10, 40)  # one chunk of three tokens
    assert {w.products for w in (logits, of_input, of_weight)} == {2 * 3 * 8 * 10}
    assert (logits.read, logits.written) == (48 + 160, 0)  # logits stay in L2
    assert (entropy.special, entropy.cached) == (3 * 30, 120)  # logits in, gradients out
    assert (of_weight.read, of_weight.written) == (48 + 320, 320)  # the sum so far
    assert scaling.written == 48 + 320
    *_, apart = operations.head(3, 8, 10, 10, adds_inside=False)
    assert (apart.calls, apart.read, apart.written) == (3, 2 * 320, 320)
    small, large = (operations.head(98_304, 512, 8192, 1 << bits) for bits in (24, 25))
    assert [w.calls for w in small[:4]] == [48] * 4  # of 2,048 tokens
    assert (small[1].cached, large[1].cached) == (2 * (2 << 24), 0)  # 32 MB fit into L2, 64 MB do not
    assert (large[1].read, large[1].written) == ((2 << 25) + 8 * 4096, (2 << 25) + 4 * 4096)
    # Of the input's gradient: 16 x 4 tiles for 132 multiprocessors, or 32 x 4.
    assert (small[2].fill, large[2].fill) == (64 / 132, 128 / 132)
    assert small[0].fill == 1.0


def test_muon_by_hand() -> None:
    """Of three matrices of one shape and one of another on two ranks: two and one on the rank with most."""
    shape = replace(TINY, matrices=((512, 512),) * 3 + ((256, 512),), others=100, other_tensors=5, gpus=2)
    assert step_work.banks(shape) == [(512, 512, 3, 2), (256, 512, 1, 1)]
    momentum, *products, apply = step_work.muon(replace(shape, averaged=True))
    assert (momentum.read, momentum.launches) == (8 * (2 * 512 * 512 + 256 * 512), 4)
    assert [w.products for w in products] == [
        2 * 2 * 512**3, 2 * 2 * 512**3, 2 * 2 * 512**3, 2 * 256**2 * 512, 2 * 256**3, 2 * 256**2 * 512,
    ]  # fmt: skip
    assert {w.calls for w in products} == {5}
    assert [w.fill for w in products[:1] + products[3:]] == [32 / 132, 4 / 132, 4 / 132, 8 / 132]
    assert (apply.read, apply.launches) == (10 * (3 * 512 * 512 + 256 * 512), 3)


def test_collectives_by_hand() -> None:
    """Four places for three matrices of 1 MiB, two for one of half of it: what is padded travels too."""
    shape = replace(TINY, matrices=((512, 512),) * 3 + ((256, 512),), others=100, other_tensors=5, gpus=2)
    copies, scatter, gather, reduce = step_work.collectives(shape)
    size = 512 * 512
    assert (copies.read, copies.launches) == (4 * (3.5 * size + 100), 9)
    assert (scatter.link, scatter.launches) == (4 * 5 * size * 0.5, 3)
    assert (gather.link, gather.launches) == (2 * 5 * size * 0.5, 2)
    assert reduce.link == 2 * 4 * 100 * 0.5
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
    products = sum(w.calls * w.products for w in work_of(shape) if w.op == "cublas" and "Muon" not in w.name)
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
    assert found.predicted_us == pytest.approx(times["mma"] / roofline.REACHED["mma"] + 1)  # and one launch
    assert found.step_us == 3 * found.floor_us


def test_predictions_by_hand() -> None:
    work = Work(name="x", op="cublas", products=6.135e8)
    assert floor_of(work).predicted_us == pytest.approx(1 + 1, rel=1e-3)  # at 0.62 of 989.5 TFLOP/s
    assert floor_of(replace(work, fill=0.25)).predicted_us == pytest.approx(4 + 1, rel=1e-3)
    assert floor_of(replace(work, launches=2, ramps=1)).predicted_us == pytest.approx(1 + 2 + 3, rel=1e-3)
    assert floor_of(replace(work, flops_s=6.135e14 / 3)).predicted_us == pytest.approx(3 + 1)
    assert floor_of(replace(work, products=0, mma=6.135e8, flops_s=6.135e14)).predicted_us == pytest.approx(1 + 1)
    assert floor_of(Work(name="x", op="host", waited_s=1e-3, launches=0)).predicted_us == pytest.approx(1000)
    issuing = floor_of(Work(name="x", op="qk", issued=4 * 132 * 1.83e3, launches=0))
    assert (issuing.limiter, issuing.predicted_us) == ("issue", pytest.approx(1 / 0.7, rel=1e-3))


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


def test_the_prediction_lies_above_the_floor() -> None:
    early, late = predict(FRONTIER)
    assert (early.passes, early.logged_ms, late.passes, late.logged_ms) == (11, 96.3, 17, 140.9)
    for step in (early, late):
        assert 0 < step.floor_ms < step.predicted_ms
        ops_of_step = {f.work.op for f in step.floors}
        assert ops_of_step >= {"norm", "residual", "qk", "attention", "activation", "embed", "head", "optim", "nccl"}


def test_the_frontiers_tensors_are_counted() -> None:
    """Each has a gradient that is copied into a buffer before it is reduced."""
    narrow = replace(FRONTIER.model, model_dim=32, num_heads=4, num_kv_heads=2, rope_dims=4)
    shape = shape_of(FRONTIER)
    assert len(shape.matrices) + shape.other_tensors == len(list(get_family("gpt").build(narrow, 40, 0).parameters()))


def test_mends_follow_each_other() -> None:
    """The last but one line is today's code; each line but the first is a change of the one before."""
    changes = roofline.mends(FRONTIER)
    assert changes[-2].ms == {step.passes: step.predicted_ms for step in predict(FRONTIER)}
    assert changes[-1].ms == {
        step.passes: step.predicted_ms for step in predict(FRONTIER, None, replace(TODAY, flash3=True))
    }
    assert all(list(mend.ms) == [11, 17] and mend.ms[11] < mend.ms[17] for mend in changes)
    for before, after in pairwise(changes):
        assert after.ms[11] < before.ms[11] and after.ms[17] < before.ms[17], after.what


def test_what_a_step_waits_for_is_counted() -> None:
    found = work_of(shape_of(FRONTIER), replace(TODAY, compiled=False, waits=True))
    assert [w.waited_s for w in found if w.op == "host"] == [step_work.DRAIN_S]
    (eager,) = (w for w in found if w.name == "torch's passes, not compiled")
    assert (eager.read, eager.launches) == (pytest.approx(48.6e9, rel=0.01), 497)
    (late,) = (w for w in work_of(shape_of(FRONTIER, 2), replace(TODAY, compiled=False)) if "not compiled" in w.name)
    assert (late.read, late.launches) == (pytest.approx(60.7e9, rel=0.01), 713)
    assert [w.calls for w in work_of(shape_of(FRONTIER)) if w.name in ("q", "k", "v")] == [11] * 3


def test_roofline_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "roofline", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [step["layers_run"] for step in found["steps"]] == [11, 17]
    assert [mend["what"] for mend in found["mends"]][1:] == [what for what, _ in roofline.MENDS]
    assert found["assumptions"] == list(roofline.ASSUMPTIONS)
    assert found["basis"].endswith("nothing was measured on a GPU")
    assert all(row["floor_us"] > 0 for row in found["steps"][0]["operations"])
    assert main(["bench", "roofline"]) == 0
    shown = capsys.readouterr().out
    assert "the contest's best entry logged 96.3 ms" in shown
    assert "not a measurement" in shown
    assert all(f"- {line}" in shown for line in roofline.ASSUMPTIONS)
    assert all(what in shown for what, _ in roofline.MENDS)


def test_resources_command_needs_a_build_with_cuda(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("golfcore.ops.cubin._core.has_cuda", False)
    roofline.cubin.built_kernels.cache_clear()
    assert main(["kernels", "list", "--resources"]) == 1
    assert "GOLF_CUDA=ON" in capsys.readouterr().err
