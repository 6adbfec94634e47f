"""Clocks as ``nvidia-smi`` tells them, FlashAttention-3, and the comparison of GPUs, on a machine that has none."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import recipe

from golfcore.boxcheck import gpus, smi
from golfcore.boxcheck.findings import Failed, Found, NotHere

GOOD = {
    "name": "NVIDIA H100 80GB HBM3", "driver_version": "580.65.06", "mig.mode.current": "Disabled", "clocks.sm": "1755",
    "clocks.max.sm": "1980", "temperature.gpu": "54", "power.draw": "690.12", "power.limit": "700.00",
    "power.default_limit": "700.00", "ecc.errors.uncorrected.volatile.total": "0",
    "clocks_event_reasons.active": "0x0000000000000004",
}  # fmt: skip
CUDA = torch.device("cuda", 0)


def test_a_gpu_at_its_power_cap_is_sound() -> None:
    text = smi.judge(GOOD, 640.0)
    assert text == "1755 of 1980 MHz, 690.12 of 700.00 W, 54 degrees Celsius, 640 TFLOP/s in bf16 products"


@pytest.mark.parametrize(
    ("changes", "said", "remedy"),
    [
        ({"clocks_event_reasons.active": "0x0000000000000002"}, "an application clock was set", "nvidia-smi -rac"),
        ({"clocks_event_reasons.active": "0x0000000000000008"}, "hardware slowdown", "another machine"),
        ({"clocks_event_reasons.active": "0x0000000000000024"}, "too hot (software slowdown), at 54", "cooling"),
        ({"clocks_event_reasons.active": "0x0000000000000040"}, "too hot (hardware slowdown)", "cooling"),
        ({"clocks_event_reasons.active": "0x0000000000000084"}, "the power brake", "power supply"),
        ({"clocks.sm": "345"}, "the clock is 345 of 1980 MHz under load", "another machine"),
        ({"power.limit": "500.00"}, "the power limit is 500 W, by default 700 W", "nvidia-smi -pl 700"),
        ({"ecc.errors.uncorrected.volatile.total": "3"}, "3 uncorrected memory faults", "another machine"),
        ({"mig.mode.current": "Enabled"}, "cut into MIG slices", "nvidia-smi -mig 0"),
    ],
)
def test_a_gpu_that_is_held_back_or_faulty_fails(changes: dict[str, str], said: str, remedy: str) -> None:
    with pytest.raises(Failed) as caught:
        smi.judge({**GOOD, **changes}, 640.0)
    assert said in str(caught.value)
    assert remedy in caught.value.remedy


def test_what_a_gpu_does_not_tell_is_no_fault() -> None:
    fields = dict.fromkeys(GOOD, "[N/A]") | {"clocks.sm": "1000"}
    assert smi.judge(fields, 100.0).startswith("1000 of [N/A] MHz")


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a program of that name first on the path, whose body is given."""

    def put(body: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put


@pytest.mark.parametrize("old", [False, True])
def test_the_fields_come_from_nvidia_smi_of_old_and_new_drivers(nvidia_smi: Any, old: bool) -> None:
    row = ", ".join(GOOD.values())
    refusal = 'case "$*" in *clocks_event*) echo "Field \\"clocks_event_reasons.active\\" is not valid"; exit 2;; esac'
    nvidia_smi(f'test "$1 $2" = "-i GPU-abc" || exit 3\n{refusal if old else ""}\necho "{row}"')
    assert smi.ask("GPU-abc") == GOOD


@pytest.mark.parametrize(
    "body", ["echo Failed to initialize NVML: Driver/library version mismatch; exit 18", "echo a, b"]
)
def test_a_driver_that_tells_nothing_is_one_line(nvidia_smi: Any, body: str) -> None:
    nvidia_smi(body)
    with pytest.raises(Failed, match=r"nvidia-smi tells nothing of GPU-abc \((Failed to init.* mismatch|a, b)\)"):
        smi.ask("GPU-abc")


def test_no_nvidia_smi_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failed, match="No such file") as caught:
        smi.ask("GPU-abc")
    assert "driver" in caught.value.remedy


def test_the_slowest_gpu_is_named() -> None:
    def found(*rates: float) -> list[Found]:
        return [Found("", {"tflops": rate, "memory_bytes": 80e9}) for rate in rates]

    gpus.compare_clocks(found(640, 620, 610, 650))
    with pytest.raises(Failed, match="GPU of rank 2 multiplies at 500 TFLOP/s, the median at 635"):
        gpus.compare_clocks(found(640, 630, 500, 650))
    gpus.compare_gpus(found(1, 2))
    with pytest.raises(Failed, match="GPU of rank 1 has 37 GiB, others have 75"):
        gpus.compare_gpus([*found(1), Found("", {"memory_bytes": 40e9})])


@pytest.mark.parametrize("check", [gpus.check_gpu, gpus.check_clocks])
def test_a_processor_is_no_gpu(check: Any) -> None:
    with pytest.raises(NotHere, match="computes on its processor: torch"):
        check(torch.device("cpu"))


def test_a_gpu_whose_memory_is_used_and_one_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    name, why, free = "NVIDIA H100 80GB HBM3", "", 79 << 30
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 << 30))
    monkeypatch.setattr(gpus, "why_not", lambda index: why)
    assert gpus.check_gpu(CUDA).detail.startswith("NVIDIA H100 80GB HBM3, 79 GiB free; torch ")
    free = 20 << 30
    with pytest.raises(Failed, match=r"20\.0 of 80\.0 GiB are free"):
        gpus.check_gpu(CUDA)
    why = "the driver (12.4) is older than the toolkit (13.0)"
    with pytest.raises(Failed, match="kernels cannot run on NVIDIA H100 80GB HBM3: the driver"):
        gpus.check_gpu(CUDA)
    name += " MIG 1g.10gb"
    with pytest.raises(Failed, match="a slice of a GPU"):
        gpus.check_gpu(CUDA)


class Flash(types.ModuleType):
    """FlashAttention-3's interface by torch's attention, times a factor."""

    factor = 1.0

    def flash_attn_func(self, q: Any, k: Any, v: Any, **options: Any) -> Any:
        y = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True, enable_gqa=True)
        return self.factor * y.transpose(1, 2)


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> Flash:
    """The stand-in, and a device that passes for a GPU."""
    module = Flash("flash_attn_interface")
    monkeypatch.setitem(sys.modules, "flash_attn_interface", module)
    monkeypatch.setattr(gpus, "require_gpu", lambda device: None)
    return module


@pytest.mark.parametrize(("factor", "fails"), [(1.0, ""), (1.5, "is off by"), (float("nan"), "is off by nan")])
def test_flash_attention_is_compared_with_torchs(flash: Flash, factor: float, fails: str) -> None:
    flash.factor = factor
    config = recipe(attention="auto")
    if not fails:
        assert "it runs" in gpus.check_flash_attention(config, torch.device("cpu")).detail
        return
    with pytest.raises(Failed, match=fails) as caught:
        gpus.check_flash_attention(config, torch.device("cpu"))
    assert f"its build for torch {torch.__version__}" in caught.value.remedy


def test_flash_attention_that_is_absent_or_of_another_interface(flash: Flash, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    with pytest.raises(NotHere, match=r"train\.attention = 'own'"):
        gpus.check_flash_attention(recipe(attention="own"), cpu)
    monkeypatch.setattr(flash, "flash_attn_func", lambda q, k, v: q)
    with pytest.raises(Failed, match=r"FlashAttention-3 fails: .*unexpected keyword"):
        gpus.check_flash_attention(recipe(attention="fa3"), cpu)
    monkeypatch.setitem(sys.modules, "flash_attn_interface", None)
    assert "not installed" in gpus.check_flash_attention(recipe(attention="auto"), cpu).detail
    with pytest.raises(Failed, match="is not installed"):
        gpus.check_flash_attention(recipe(attention="fa3"), cpu)


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        (lambda function: function, ""),
        (lambda function: lambda x: 2 * function(x), "gives other gradients than torch"),
        (lambda function: lambda x: (_ for _ in ()).throw(RuntimeError("no g++")), "fails: RuntimeError: no g\\+\\+"),
    ],
)
def test_the_compiler_has_to_compile_rightly(compiler: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiler(function))
    config = dataclasses.replace(recipe(), train=dataclasses.replace(recipe().train, compile=True))
    if not said:
        assert "gradients of torch" in gpus.check_compile(config, torch.device("cpu")).detail
        with pytest.raises(NotHere, match=r"train\.compile = false"):
            gpus.check_compile(recipe(compile=False), torch.device("cpu"))
        return
    with pytest.raises(Failed, match=said):
        gpus.check_compile(config, torch.device("cpu"))
