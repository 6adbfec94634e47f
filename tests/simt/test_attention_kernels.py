"""Attention's kernels for GPUs beyond the case table: memory they must not touch, views, and what they leave behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from golfcore import _simt
from golfcore.errors import InputError
from golfcore.ops import attention, check, using
from golfcore.ops.registry import DTYPE_CODE, backends, native

BF16 = torch.bfloat16


@pytest.fixture(autouse=True)
def kernels() -> Iterator[None]:
    with check.on_simt(seed=3):
        yield


def qkv(b: int, t: int, n: int, k: int, h: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(b, t, x, h, generator=generator).to(BF16) for x in (n, k, k)]


def results(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: object) -> list[torch.Tensor]:
    """The result and the three gradients."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    y = attention(*leaves, **options)  # type: ignore[arg-type]
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, seed)]


def test_other_dtypes_are_the_references() -> None:
    assert backends()["attention"] == "reference"  # of fp32, torch's default
    assert native("attention", torch.empty(0, dtype=BF16))
    q, k, v = (x.float() for x in qkv(1, 9, 2, 1, 64))
    y = attention(q, k, v)
    with using("reference"):
        assert torch.equal(y, attention(q, k, v))


@pytest.mark.parametrize("h", [32, 64, 128])
def test_views_at_odd_addresses(h: int) -> None:
    """What cannot be read in packs of 16 bytes is copied first, with the same bits as result."""
    plain = qkv(1, 20, 2, 1, h)
    shifted = [torch.zeros(x.numel() + 1, dtype=BF16)[1:].view(x.shape).copy_(x) for x in plain]
    apart = [torch.zeros(1, 20, x.shape[2], h + 3, dtype=BF16)[..., :h].copy_(x) for x in plain]
    assert all(x.data_ptr() % 16 == 2 for x in shifted)
    expected = results(*plain, xsa=True)
    for views in (shifted, apart):
        for ours, theirs in zip(results(*views, xsa=True), expected, strict=True):
            assert torch.equal(ours, theirs)


def test_gradients_of_results_at_odd_addresses() -> None:
    q, k, v = (x.requires_grad_() for x in qkv(1, 20, 2, 1, 64))
    y = attention(q, k, v)
    seed = torch.randn(y.numel() + 1, generator=torch.Generator().manual_seed(1)).to(BF16)
    there = torch.autograd.grad(y, (q, k, v), seed[1:].view(y.shape), retain_graph=True)
    here = torch.autograd.grad(y, (q, k, v), seed[1:].view(y.shape).clone())
    for ours, theirs in zip(there, here, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("cut", [1, 64, 127])
def test_later_tokens_change_nothing_before_them(cut: int) -> None:
    q, k, v = qkv(1, 150, 2, 1, 64)
    before = attention(q, k, v, xsa=True)
    for x in (q, k, v):
        x[:, cut:] = 100.0
    assert torch.equal(attention(q, k, v, xsa=True)[:, :cut], before[:, :cut])


def test_gradient_reaches_only_what_was_seen() -> None:
    q, k, v = (x.requires_grad_() for x in qkv(1, 150, 2, 2, 64))
    y = attention(q, k, v, window=20)
    y[:, 90].sum().backward()
    for x, reached in ((k, range(71, 91)), (v, range(71, 91)), (q, range(90, 91))):
        assert x.grad is not None
        assert x.grad.abs().amax(dim=(0, 2, 3)).nonzero().flatten().tolist() == list(reached)


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_nan_never_becomes_a_number(name: str) -> None:
    made = dict(zip("qkv", qkv(1, 100, 2, 1, 64), strict=True))
    made[name][0, 30, 0, 3] = torch.nan
    y = attention(*made.values())
    seen = slice(30, 31) if name == "q" else slice(30, None)
    assert y[0, seen, 0].isnan().any(dim=-1).all()
    if name != "v":
        assert y[0, :30].isfinite().all()


def test_scores_far_from_zero() -> None:
    """A key that dwarfs the earlier ones must not overflow, nor a shift of a query's scores that all keys share."""
    q, k, v = qkv(1, 200, 1, 1, 64)
    k[..., 0] = torch.linspace(-3, 3, 200).pow(3)[:, None]
    q[..., 0] = 300.0
    y = attention(q, k, v, scale=1.0)
    with using("reference"):
        expected = attention(q.double(), k.double(), v.double(), scale=1.0)
    assert (y.double() - expected).abs().max() <= 3e-2


def test_what_forward_leaves_for_backward() -> None:
    """lse is the logarithm of the denominator, out what precedes xsa and gate: as the processor's kernels have them."""
    q, k, v = qkv(2, 70, 4, 2, 64)
    arguments = (q, k, v, torch.rand(2, 70, 4), None, 50, 0.2, True)
    _, out, lse = torch.ops.golf.attention(*arguments)
    with using("native"):
        _, expected_out, expected_lse = torch.ops.golf.attention(*arguments)
    assert (lse - expected_lse).abs().max() <= 1e-2 * expected_lse.abs().max()
    assert (out.float() - expected_out.float()).abs().max() <= 2e-2


def test_cu_seqlens_that_can_be_read_are_checked() -> None:
    q, k, v = qkv(1, 6, 2, 1, 32)
    for bad in ([0, 5], [0, 4, 3, 6], [1, 6], []):
        with pytest.raises(InputError, match="from 0 to T = 6"):
            attention(q, k, v, cu_seqlens=torch.tensor(bad, dtype=torch.int32))


def _call(
    function: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor | None = None, b: int = 1
) -> None:
    """The binding itself, past the checks: forward into fresh tensors, or backward from zeros."""
    _, t, n, h = q.shape
    made = {
        "attention_forward": [torch.zeros_like(q), torch.zeros_like(q), torch.zeros(n, t)],
        "attention_backward": [
            torch.zeros_like(q), torch.zeros(n, t), *(torch.zeros_like(x) for x in (q, q, k, v)),
            torch.zeros(n, t), torch.zeros_like(q), torch.zeros(n, 1, 2, (t + 3) // 4 * 4),
        ],
    }[function]  # fmt: skip
    gate = torch.ones(t, n)
    inputs = [q, k, v, gate, torch.empty(0) if cu_seqlens is None else cu_seqlens]
    for x in (*inputs, *made):
        _simt.map_buffer(x.data_ptr(), x.numel() * x.element_size())
    try:
        getattr(_simt, function)(
            DTYPE_CODE[BF16], DTYPE_CODE[torch.float32],
            (b, t, n, k.shape[2], h, 0, inputs[4].numel() - 1, t), [x.data_ptr() for x in inputs],
            [step for x in (q, k, v) for step in x.stride()[:3]], (0.1, True), *(x.data_ptr() for x in made), 0, 0,
        )  # fmt: skip
    finally:
        _simt.unmap_buffers()


@pytest.mark.parametrize("function", ["attention_forward", "attention_backward"])
@pytest.mark.parametrize(
    "numbers", [[0, 2**31 - 1], [-(2**31), 150], [150, 0], [0, 140, 3, 7, 150], [90, 90, 90], [-1, -5, 2**30, 0, 1]]
)
def test_wrong_cu_seqlens_touch_nothing_outside(function: str, numbers: list[int]) -> None:
    """On a GPU nobody reads them before the kernels do, so these must stay inside of their tensors by themselves."""
    _call(function, *qkv(1, 150, 2, 1, 32), torch.tensor(numbers, dtype=torch.int32))


@pytest.mark.parametrize("function", ["attention_forward", "attention_backward"])
def test_sizes_that_no_grid_holds_are_refused(function: str) -> None:
    q, k, v = qkv(1, 4, 2, 1, 32)
    with pytest.raises(ValueError, match="refused its sizes"):
        _call(function, q, k, v, b=2**40)
