"""Products go in the precision that the processor multiplies fast, whatever their operands are stored in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from golfcore import machine, openmp
from golfcore.errors import InputError
from golfcore.ops import linear, linear_cross_entropy, muon_update, orthogonalize, products
from golfcore.ops.products import Route, Speeds
from golfcore.ops.threads import fit_threads

FP32, BF16, TILES = Route("fp32"), Route("bf16"), Route("bf16", tiles=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path))
    products.speeds.cache_clear()
    yield tmp_path  # type: ignore[misc]
    products.speeds.cache_clear()


@pytest.mark.parametrize(
    ("speeds", "route"),
    [
        (Speeds(72, 70, 1.3), FP32),  # AVX2
        (Speeds(92, 90, 19), FP32),  # AVX-512 without bf16
        (Speeds(100, 95, 170), BF16),  # AVX512-BF16
        (Speeds(200, 475, 600), Route("bf16", onednn=True)),
        (Speeds(103, 100, 1265), TILES),  # AMX
        (Speeds(50, 0, 10), FP32),  # a torch without oneDNN
    ],
)
def test_the_route_follows_the_speeds(speeds: Speeds, route: Route) -> None:
    assert speeds.route == route


def test_speeds_are_measured_once_and_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = products.speeds()
    assert found.fp32 > 0 and found.bf16 > 0
    (key,) = json.loads((cache / "products.json").read_text())
    assert machine.cpu_model() in key and torch.__version__ in key
    products.speeds.cache_clear()
    monkeypatch.setattr(products, "measure", lambda: pytest.fail("it was kept"))
    assert products.speeds() == found
    products.speeds.cache_clear()
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")  # another machine, as far as torch goes
    monkeypatch.setattr(products, "measure", lambda: Speeds(9.0, 8.0, 1.0))
    assert products.speeds() == Speeds(9.0, 8.0, 1.0)
    assert len(json.loads((cache / "products.json").read_text())) == 2


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}', '{"x": {"fp32": -1, "onednn": 1, "bf16": 1}}'])
def test_a_broken_cache_is_measured_again(cache: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (cache / "products.json").write_text(text)
    monkeypatch.setattr(products, "measure", lambda: Speeds(9.0, 8.0, 1.0))
    assert products.speeds() == Speeds(9.0, 8.0, 1.0)
    assert len(json.loads((cache / "products.json").read_text())) == 1


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "file").write_text("")
    monkeypatch.setenv("GOLFCORE_CACHE", str(cache / "file" / "below"))
    assert products.speeds().fp32 > 0


def test_using_holds_inside_alone() -> None:
    with products.using(FP32):
        assert products.fast_dtype() is torch.float32
        with products.using(TILES):
            assert products.fast_dtype() is torch.bfloat16
        assert products.route() == FP32
    with pytest.raises(InputError, match="expected fp32 or bf16"), products.using(Route("fp8")):
        pass


@pytest.mark.parametrize("route", [FP32, BF16, TILES])
def test_bf16_operands_give_bf16_results_of_the_same_value(route: Route) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(s, generator=generator).bfloat16() for s in ((17, 33), (33, 9), (17, 9)))
    exact = a.double() @ b.double()
    with products.using(route):
        for y in (
            products.mm(a, b),
            products.mm(a, b, out=torch.empty(17, 9, dtype=a.dtype)),
            products.linear(a, b.t()),
        ):
            assert y.dtype is torch.bfloat16
            torch.testing.assert_close(y.double(), exact, rtol=2**-7, atol=2**-6)
        total = products.addmm_(c.clone(), a, b)
    torch.testing.assert_close(total.double(), exact + c.double(), rtol=2**-7, atol=2**-6)


def test_without_bf16_instructions_no_bf16_product_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear, head and Muon, forward and backward: what took a stranger's laptop 7.5 s a step."""
    taken: list[torch.dtype] = []

    def watched(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(*args: Any, **kwargs: Any) -> torch.Tensor:
            taken.extend(a.dtype for a in args if isinstance(a, torch.Tensor))
            return function(*args, **kwargs)

        return call

    for owner, names in ((torch, ("mm", "bmm", "addmm", "baddbmm")), (torch.Tensor, ("addmm_", "__matmul__"))):
        for name in names:
            monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    x = torch.randn(8, 16).bfloat16().requires_grad_()
    w = torch.randn(12, 16).requires_grad_()
    grads = [torch.randn(16, 32)]
    with products.using(FP32):
        (y,) = linear(x, w)
        y.float().sum().backward()
        linear_cross_entropy(x, w, torch.arange(8), 30.0).backward()
        update = muon_update(grads, [torch.zeros(16, 32)], momentum=0.9)
        orthogonalize(torch.randn(1, 16, 16).bfloat16() / 16)
    assert update.dtype is torch.float32
    assert taken and set(taken) == {torch.float32}


@pytest.mark.parametrize(
    ("environ", "quota", "expected"),
    [
        ({}, None, []),
        ({}, 0.5, ["0.5 of 4 processors: 1 thread,"]),
        ({"OMP_NUM_THREADS": "1"}, None, ["OMP_NUM_THREADS = 1 of 4"]),
        ({"OMP_NUM_THREADS": "1"}, 0.5, ["0.5 of 4 processors: 1 thread,"]),
        ({"MKL_NUM_THREADS": "1"}, None, ["MKL_NUM_THREADS = 1 of 4"]),
        ({"OMP_NUM_THREADS": "2"}, 0.5, ["0.5 of 4 processors: 1 thread,"]),
    ],
)
def test_limits_on_the_processor_are_said(
    environ: dict[str, str], quota: float | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(openmp, "corrections", {})
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
        torch.set_num_threads(int(value))
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    monkeypatch.setattr("golfcore.ops.threads.HIGHEST_ISA", "avx2")
    try:
        lines = fit_threads()
        assert len(lines) == len(expected)
        assert all(part in line for part, line in zip(expected, lines, strict=True))
        if quota is not None:
            assert torch.get_num_threads() == 1
        openmp.corrections["OMP_NUM_THREADS"] = "OMP_NUM_THREADS='64' is more"
        assert fit_threads()[0] == "note: OMP_NUM_THREADS='64' is more"
        monkeypatch.setattr("golfcore.ops.threads.HIGHEST_ISA", "scalar")
        assert "without vector instructions" in fit_threads()[-1]
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Take the GPU's branch on the CPU, with a torch.mm that widens as cuBLAS does; return its results' dtypes."""
    taken, real = [], torch.mm

    def mm(a: torch.Tensor, b: torch.Tensor, out_dtype: torch.dtype | None = None, *, out: Any = None) -> torch.Tensor:
        if out_dtype is None:
            return real(a, b) if out is None else real(a, b, out=out)
        assert a.dtype == b.dtype == torch.bfloat16 and (out is None or out.dtype == out_dtype)
        taken.append(out_dtype)
        return real(a.float(), b.float(), out=out)

    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(products, "leaves_fp32", lambda x: x.dtype == torch.bfloat16)
    return taken


@pytest.mark.parametrize("operation", ["linear", "head", "head in chunks"])
def test_gradients_of_weights_are_rounded_once_on_a_gpu(
    operation: str, like_a_gpu: list[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of fp32 weights are exact sums of products of bf16 numbers: never in bf16 on the way."""
    if operation == "head in chunks":
        monkeypatch.setattr("golfcore.ops.head.CHUNK_LOGITS", 64)
        monkeypatch.setattr("golfcore.ops.head.MIN_CHUNK", 100)
    x = torch.randn(300, 16).bfloat16().requires_grad_()
    w = torch.randn(24, 16, requires_grad=True)
    if operation == "linear":
        dy = torch.randn(300, 24).bfloat16()
        (y,) = linear(x, w)
        y.backward(dy)
        exact = dy.double().t() @ x.detach().double()
    else:
        targets = torch.randint(0, 24, (300,))
        linear_cross_entropy(x, w, targets, 30.0).backward()
        logits = (x.detach() @ w.detach().bfloat16().t()).double().requires_grad_()
        torch.nn.functional.cross_entropy(30 * torch.tanh(logits / 30), targets).backward()
        assert logits.grad is not None
        exact = logits.grad.bfloat16().double().t() @ x.detach().double()
    assert w.grad is not None and like_a_gpu and set(like_a_gpu) == {torch.float32}
    error = (w.grad - exact).norm() / exact.norm()
    rounded = (exact.bfloat16() - exact).norm() / exact.norm()
    assert error < 0.1 * rounded if operation == "linear" else error < rounded, (error, rounded)


@pytest.mark.parametrize("serves", [True, False])
def test_products_of_chunks_are_added_up_by_the_product_itself(
    serves: bool, like_a_gpu: list[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If torch's product adds bf16 to fp32, with no matrix between; else the sum is the same, by a pass of its own."""
    shapes: list[tuple[int, ...]] = []

    def addmm(c: torch.Tensor, a: torch.Tensor, b: torch.Tensor, out_dtype: torch.dtype, *, out: torch.Tensor) -> Any:
        if not serves:
            raise RuntimeError("self and mat2 must have the same dtype, but got Float and BFloat16")
        assert (c.dtype, a.dtype, b.dtype, out_dtype) == (torch.float32, torch.bfloat16, torch.bfloat16, torch.float32)
        assert out is c
        shapes.append(tuple(c.shape))
        return out.add_(a.float() @ b.float())

    monkeypatch.setattr(torch, "addmm", addmm)
    products._adds_into_fp32.cache_clear()
    total, exact = torch.ones(24, 16), torch.ones(24, 16, dtype=torch.float64)
    for _ in range(3):
        a, b = torch.randn(24, 300).bfloat16(), torch.randn(300, 16).bfloat16()
        assert products.add_fp32_(total, a, b) is total
        exact += a.double() @ b.double()
    products._adds_into_fp32.cache_clear()
    assert shapes == ([(8, 8), *[(24, 16)] * 3] if serves else [])
    assert len(like_a_gpu) == (0 if serves else 3)
    assert (total - exact).abs().max() < 1e-4 * exact.abs().max()
