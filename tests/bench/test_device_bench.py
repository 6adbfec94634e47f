"""The bench of a GPU as far as a machine without one can tell: its cases, its rivals, its clock, its refusals."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from golfcore.bench import device_cases, harness
from golfcore.bench.clocks import CYCLES_S, LEAD_S, MOST_LEAD_S, DeviceClock
from golfcore.bench.device_cases import attention_rivals
from golfcore.bench.device_cases import device_cases as cases_of
from golfcore.bench.segments import Segments
from golfcore.bench.step_work import Shape, shape_of
from golfcore.bench.workloads import of_case
from golfcore.cli import main
from golfcore.errors import DeviceError
from golfcore.ops import check
from golfcore.ops.cases import Case
from golfcore.pipeline.measure import product_flops
from golfcore.recipes import load_recipe

SMALL = Shape(
    tokens=96, d=64, heads=4, kv_heads=2, head_dim=32, hidden=128, vocab=300, order=(0,), segments=Segments((23,))
)  # four segments
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
    for words in (["--device", "cuda:1"], ["--device", "cuda", "--recipe", "pocket"]):
        assert main(["bench", "train_step", *words]) == 75
        assert "no GPU to run on (" in capsys.readouterr().err.splitlines()[-1]


def test_a_gpu_that_is_not_there_or_cannot_run_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(device_cases, "why_not", lambda index: "the driver is too old")
    with pytest.raises(DeviceError, match="there are 1 GPUs"):
        device_cases.require_gpu("cuda:1")
    with pytest.raises(DeviceError, match="kernels cannot run there: the driver is too old"):
        device_cases.require_gpu("cuda")


class FakeCuda:
    """A stand-in for torch.cuda that writes its calls down, and the device on which each of them happened."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.current = "cuda:0"

    def note(self, what: str) -> None:
        self.calls.append(f"{self.current} {what}")

    @contextlib.contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before, self.current = self.current, str(device)
        yield
        self.current = before

    def Event(self, *, enable_timing: bool) -> Any:
        assert enable_timing
        return types.SimpleNamespace(
            record=lambda: self.note("record"), synchronize=lambda: self.note("synchronize"),
            elapsed_time=lambda other: 1.5,
        )  # fmt: skip

    def _sleep(self, cycles: int) -> None:
        self.note(f"sleep {cycles}")

    def get_device_properties(self, device: torch.device) -> Any:
        return types.SimpleNamespace(L2_cache_size=512)

    def synchronize(self, device: torch.device) -> None: ...

    def memory_allocated(self, device: torch.device) -> int:
        return 100

    def reset_peak_memory_stats(self, device: torch.device) -> None: ...

    def max_memory_allocated(self, device: torch.device) -> int:
        return 164


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> tuple[DeviceClock, FakeCuda]:
    """A clock of the second GPU while the first is the current one."""
    cuda = FakeCuda()
    monkeypatch.setattr("golfcore.bench.clocks.torch.cuda", cuda)
    made = DeviceClock("cpu")  # where its numbers can lie
    made.device = torch.device("cuda:1")
    return made, cuda


def test_the_device_clock_times_its_own_device(clock: tuple[DeviceClock, FakeCuda]) -> None:
    """A lead, then events around the call, all on the GPU that was asked for; other numbers in its cache."""
    made, cuda = clock
    made._other.fill_(7)
    assert made.seconds(lambda: cuda.note("work")) == pytest.approx(0.0015)
    what = [f"sleep {round(LEAD_S * CYCLES_S)}", "record", "work", "record", "synchronize"]
    assert cuda.calls == [f"cuda:1 {call}" for call in what]
    assert cuda.current == "cuda:0"
    assert made._other.numel() == 1024
    assert not made._other.any()
    assert made.peak_bytes(lambda: None) == 64


@pytest.mark.parametrize(
    ("queued_s", "leads"), [(0.0001, [LEAD_S]), (0.004, [LEAD_S, 0.008]), (1.0, [LEAD_S, MOST_LEAD_S])]
)
def test_what_the_host_queues_slowly_is_timed_again_with_a_longer_lead(
    queued_s: float, leads: list[float], clock: tuple[DeviceClock, FakeCuda], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the time of the host's calls would be in the GPU's. What waits for the GPU itself is not timed for ever."""
    made, cuda = clock
    now = 0.0

    def work() -> None:
        nonlocal now
        now += queued_s

    monkeypatch.setattr("golfcore.bench.clocks.time.perf_counter", lambda: now)
    assert made.seconds(work) == pytest.approx(0.0015)
    slept = [call.split()[-1] for call in cuda.calls if "sleep" in call]
    assert slept == [str(int(lead * CYCLES_S)) for lead in leads]
    made.seconds(work)  # the lead stays
    assert len([call for call in cuda.calls if "sleep" in call]) == len(leads) + 1


def test_ceilings_are_those_of_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU multiplies and copies ones faster than what a training has."""
    seen: list[torch.Tensor] = []
    multiply, add = torch.Tensor.__matmul__, torch.add
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: seen.extend((a, b)) or multiply(a, b))
    monkeypatch.setattr(torch, "add", lambda a, b, *, out: seen.extend((a, b)) or add(a, b, out=out))
    monkeypatch.setattr(harness, "last_cache_bytes", lambda: 1 << 10)
    harness.measure_ceilings(1e-6)
    product_flops(torch.float32, torch.device("cpu"))
    assert {x.dtype for x in seen} == {torch.float32, torch.bfloat16}
    for x in seen:
        assert abs(float(x.double().mean())) < 0.02
        assert abs(float(x.double().std()) - 1) < 0.02
