"""Attention beyond the case table: what it must not see, what it must refuse, and the accuracy of its exponential."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from golfcore import _core
from golfcore.errors import InputError
from golfcore.ops import attention, using
from golfcore.ops.registry import DTYPE_CODE, ISAS

LEVELS = ISAS[: ISAS.index(_core.detected_isa()) + 1]
DTYPES = [pytest.param(d, id=str(d).removeprefix("torch.")) for d in (torch.float32, torch.bfloat16)]


@pytest.fixture(params=LEVELS, autouse=True)
def level(request: Any) -> Iterator[str]:
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(ISAS[-1])


def qkv(b: int, t: int, n: int, k: int, h: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(b, t, x, h, generator=generator).to(dtype) for x in (n, k, k)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cut", [1, 40, 64, 100])
def test_later_tokens_change_nothing_before_them(dtype: torch.dtype, cut: int) -> None:
    q, k, v = qkv(1, 130, 2, 1, 32, dtype)
    before = attention(q, k, v, xsa=True)
    for x in (q, k, v):
        x[:, cut:] = 100.0
    assert torch.equal(attention(q, k, v, xsa=True)[:, :cut], before[:, :cut])


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_reaches_only_what_was_seen(dtype: torch.dtype) -> None:
    q, k, v = (x.requires_grad_() for x in qkv(1, 150, 2, 2, 32, dtype))
    y = attention(q, k, v, window=20)
    y[:, 90].sum().backward()
    for x in (k, v):
        assert x.grad is not None
        reached = x.grad.abs().amax(dim=(0, 2, 3)).nonzero().flatten()
        assert (reached.min(), reached.max()) == (71, 90)
    assert q.grad is not None
    assert q.grad.abs().amax(dim=(0, 2, 3)).nonzero().flatten().tolist() == [90]


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_documents_have_the_bits_of_separate_rows(dtype: torch.dtype) -> None:
    b, t = 3, 77
    rows = [x.requires_grad_() for x in qkv(b, t, 4, 2, 64, dtype)]
    flat = [x.detach().reshape(1, b * t, *x.shape[2:]).requires_grad_() for x in rows]
    cu_seqlens = torch.arange(0, b * t + 1, t, dtype=torch.int32)
    separate, packed = attention(*rows, xsa=True), attention(*flat, cu_seqlens=cu_seqlens, xsa=True)
    assert torch.equal(separate.flatten(), packed.flatten())
    seed = torch.randn(separate.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    separate.backward(seed)
    packed.backward(seed.view_as(packed))
    for x, y in zip(rows, flat, strict=True):
        assert x.grad is not None and y.grad is not None
        assert torch.equal(x.grad.flatten(), y.grad.flatten())


@pytest.mark.parametrize("dtype", DTYPES)
def test_exponential_against_fp64(dtype: torch.dtype, level: str) -> None:
    """Two keys, the second token's scores 0 and x: its output is e^x / (1 + e^x) in a column where only v_1 is 1."""
    x = torch.linspace(-80, 0, 4001)
    q = torch.zeros(len(x), 2, 1, 32)
    k, v = torch.zeros_like(q), torch.zeros_like(q)
    q[:, 1, 0, 0] = 1
    k[:, 1, 0, 0] = x
    v[:, 1, 0, 0] = 1
    q, k, v = (t.to(dtype) for t in (q, k, v))
    exact = torch.sigmoid(k[:, 1, 0, 0].double())
    ours = attention(q, k, v, scale=1.0)[:, 1, 0, 0].double()
    # fp32: the polynomial (1e-7), and half an ulp of the exponent x log2(e), which may reach 116. bf16: two roundings.
    limit = 8e-6 if dtype == torch.float32 else 2**-7 + 1e-5
    assert ((ours - exact).abs() / exact).max() <= limit
    near = x > -1
    assert ((ours - exact).abs() / exact)[near].max() <= (3e-7 if dtype == torch.float32 else limit)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_far_from_zero(dtype: torch.dtype) -> None:
    """Neither a common shift of a query's scores nor a key that dwarfs the earlier ones may overflow."""
    q, k, v = qkv(1, 200, 1, 1, 32, dtype)
    k[..., 0] = torch.linspace(-3, 3, 200).pow(3)[:, None]
    q[..., 0] = 300.0
    y = attention(q, k, v, scale=1.0)
    with using("reference"):
        expected = attention(q.double(), k.double(), v.double(), scale=1.0)
    assert (y.double() - expected).abs().max() <= (1e-3 if dtype == torch.float32 else 3e-2)


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_nan_never_becomes_a_number(name: str) -> None:
    made = dict(zip(("q_BTNH", "k_BTKH", "v_BTKH"), qkv(1, 100, 2, 1, 32), strict=True))
    made[next(key for key in made if key.startswith(name))][0, 30, 0, 3] = torch.nan
    y = attention(**made)
    seen = slice(30, 31) if name == "q" else slice(30, None)
    assert y[0, seen, 0].isnan().any(dim=-1).all()
    if name != "v":
        assert y[0, :30].isfinite().all()


def test_memory_grows_with_t_not_with_its_square() -> None:
    def scratch(t: int, backward: bool) -> int:
        return int(_core.attention_scratch_bytes(DTYPE_CODE[torch.bfloat16], (1, t, 4, 2, 64, 0, 1, t), True, backward))

    for backward in (False, True):
        assert scratch(8192, backward) <= 2 * scratch(4096, backward)
        assert scratch(4096, backward) <= 4096 * 64 * 100


def test_heads_wider_than_the_kernels_are_served_by_the_reference() -> None:
    q, k, v = qkv(1, 9, 2, 1, 160)
    with using("reference"):
        expected = attention(q, k, v)
    assert torch.equal(attention(q, k, v), expected)


def _refused(**changes: Any) -> str:
    made: dict[str, Any] = dict(zip(("q_BTNH", "k_BTKH", "v_BTKH"), qkv(1, 6, 4, 2, 32), strict=True))
    with pytest.raises(InputError) as caught:
        attention(**{**made, **changes})
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q_BTNH": torch.zeros(1, 6, 4, 32, dtype=torch.int64)}, "q is torch.int64"),
        ({"q_BTNH": torch.zeros(6, 4, 32)}, "q has shape (6, 4, 32)"),
        ({"q_BTNH": torch.zeros(1, 6, 3, 32)}, "q has 3 heads, k 2"),
        ({"k_BTKH": torch.zeros(1, 6, 2, 64)}, "k (1, 6, 2, 64)"),
        ({"k_BTKH": torch.zeros(1, 6, 0, 32), "v_BTKH": torch.zeros(1, 6, 0, 32)}, "k 0"),
        ({"v_BTKH": torch.zeros(1, 5, 2, 32)}, "v has shape (1, 5, 2, 32)"),
        ({"v_BTKH": torch.zeros(1, 6, 2, 32).bfloat16()}, "v is torch.bfloat16"),
        ({"v_BTKH": torch.zeros(1, 6, 2, 32, device="meta")}, "v is on meta"),
        ({"gate_BTN": torch.zeros(1, 6, 2)}, "gate has shape"),
        ({"gate_BTN": torch.zeros(1, 6, 4).half()}, "gate is torch.float16"),
        ({"cu_seqlens": torch.tensor([0, 6])}, "cu_seqlens is torch.int64"),
        ({"cu_seqlens": torch.tensor([[0, 6]]).int()}, "cu_seqlens is torch.int32 (1, 2)"),
        ({"cu_seqlens": torch.tensor([0, 5]).int()}, "from 0 to T = 6"),
        ({"cu_seqlens": torch.tensor([0, 7]).int()}, "from 0 to T = 6"),
        ({"cu_seqlens": torch.tensor([1, 6]).int()}, "from 0 to T = 6"),
        ({"cu_seqlens": torch.tensor([0, 4, 3, 6]).int()}, "from 0 to T = 6"),
        ({"cu_seqlens": torch.tensor([]).int()}, "from 0 to T = 6"),
        ({"window": -1}, "window = -1"),
        ({"scale": 0.0}, "scale = 0.0"),
        ({"scale": float("nan")}, "scale = nan"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], message: str) -> None:
    assert message in _refused(**changes)


def test_documents_need_one_row() -> None:
    q, k, v = qkv(2, 6, 2, 1, 32)
    with pytest.raises(InputError, match="flatten the batch into one row"):
        attention(q, k, v, cu_seqlens=torch.tensor([0, 6]).int())
