"""The bench of a GPU as far as a machine without one can tell: its cases, its rivals, its clock, its refusals."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch

from golfcore.bench import device_cases
from golfcore.bench.clocks import LEAD_CYCLES, DeviceClock
from golfcore.bench.device_cases import attention_rivals
from golfcore.bench.device_cases import device_cases as cases_of
from golfcore.bench.step_work import Shape, shape_of
from golfcore.bench.workloads import of_case, select
from golfcore.cli import main
from golfcore.errors import DeviceError, UsageError
from golfcore.ops import check
from golfcore.ops.cases import Case
from golfcore.recipes import load_recipe

SMALL = Shape(
    tokens=96, d=64, heads=4, kv_heads=2, head_dim=32, hidden=128, vocab=300, order=(0,), keys=12.0
)  # segments of 23 tokens, four of them
PAIRS = [pair for pair in cases_of(SMALL) if pair[0] is not pair[1]]


@pytest.mark.parametrize(("timed", "checked"), PAIRS, ids=[timed.id for timed, _ in PAIRS])
def test_resized_cases_are_right(timed: Case, checked: Case) -> None:
    """At the sizes asked for, and with results that the reference confirms."""
    large, small = (check.build(case, torch.bfloat16) for case in (timed, checked))
    sizes = [max(x.numel() for x in made.values() if isinstance(x, torch.Tensor)) for made in (large, small)]
    assert sizes[0] == 2 * sizes[1] or timed.op in ("head", "embed", "qk")
    assert all(finding.ok for finding in check.parity(checked, torch.bfloat16))
    assert timed.touched(large) > timed.touched(small)


def test_the_frontiers_cases_have_the_frontiers_sizes() -> None:
    shape = shape_of(load_recipe("frontier_8xh100", environment={}).config)
    labels = {timed.id: timed.shape for timed, _ in cases_of(shape)}
    assert labels["norm/all-frontier"] == "shape (98304, 512)"
    assert labels["attention/segments-frontier"] == "shape (48, 2048, 8, 4, 64)"
    assert labels["activation/leaky2-frontier"] == "shape (98304, 2048)"
    assert labels["head/tokens-frontier"] == "n 98304 v 8192 d 512"
    assert {timed.op for timed, _ in cases_of(shape)} >= {"qk", "embed", "optim", "bitpack", "residual"}


def test_a_workload_is_judged_on_its_smaller_sibling() -> None:
    timed, checked = PAIRS[0]
    workload = of_case(timed, torch.bfloat16, ("torch",), "cpu", checked)
    workload.check()
    assert list(workload.contenders) == ["golfcore", "torch"]
    assert check.draws.cache_info().currsize >= 1


def test_attention_has_rivals_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    by_op = {timed.op: checked for timed, checked in PAIRS}
    assert list(attention_rivals(by_op["norm"], ("sdpa", "fa3"))) == []
    monkeypatch.setattr(device_cases, "unavailable", lambda name: "not installed" if name == "fa3" else "")
    ((name, function),) = attention_rivals(by_op["attention"], ("torch", "sdpa", "fa3"))
    assert name == "sdpa"
    findings = check.parity(by_op["attention"], torch.float32, function)
    assert all(finding.within(50) for finding in findings)


def test_without_a_gpu_one_line_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "norm", "--device", "cuda"]) == 75
    text = capsys.readouterr().err
    assert "bench --device cuda: no GPU to run on (" in text
    assert text.count("\n") == 1
    assert main(["bench", "--device", "tpu"]) == 2


def test_a_gpu_that_is_not_there_or_cannot_run_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(device_cases, "why_not", lambda index: "the driver is too old")
    with pytest.raises(DeviceError, match="there are 1 GPUs"):
        device_cases.require_gpu("cuda:1")
    with pytest.raises(DeviceError, match="kernels cannot run there: the driver is too old"):
        device_cases.require_gpu("cuda")


def test_steps_are_the_processors() -> None:
    with pytest.raises(UsageError, match="no bench case 'train_step'"):
        select("train_step", (), "cuda")


def test_the_device_clock_times_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for torch.cuda that writes its calls down: a lead, then events around the call; another cache."""
    calls: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            calls.append("record")

        def synchronize(self) -> None:
            calls.append("synchronize")

        def elapsed_time(self, other: Event) -> float:
            return 1.5

    fake: Any = types.SimpleNamespace(
        Event=Event,
        _sleep=lambda cycles: calls.append(f"sleep {cycles}"),
        get_device_properties=lambda device: types.SimpleNamespace(L2_cache_size=512),
        synchronize=lambda device: None,
        memory_allocated=lambda device: 100,
        reset_peak_memory_stats=lambda device: None,
        max_memory_allocated=lambda device: 164,
    )
    monkeypatch.setattr("golfcore.bench.clocks.torch.cuda", fake)
    clock = DeviceClock("cpu")
    clock._other.fill_(7)
    assert clock.seconds(lambda: calls.append("work")) == pytest.approx(0.0015)
    assert calls == [f"sleep {LEAD_CYCLES}", "record", "work", "record", "synchronize"]
    assert clock._other.numel() == 1024
    assert not clock._other.any()
    assert clock.peak_bytes(lambda: None) == 64
