"""Other people's attention behind ``golfcore.ops.attention``: FlashAttention-3 where it is installed, and torch's SDPA.

Which one serves is a choice of the whole process, by name or by a trial on a run's own shapes; ours comes first where
it is no slower. A call that a back end does not serve (SDPA knows neither packed documents nor windows) goes to ours.
FlashAttention-3 (`flash_attn_interface` of github.com/Dao-AILab/flash-attention, folder hopper) runs on Hopper GPUs
only; its calls are tested against a stand-in with its interface.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from golfcore.errors import UsageError
from golfcore.machine import one_line
from golfcore.ops import products

NAMES = ("own", "fa3", "sdpa")  # in this order where two are equally fast
FA3 = "flash_attn_interface"
MARGIN = 0.95  # of its time: how much faster a later one must be
TRIALS = 5

_chosen = "own"
_flash: Any = None  # the module of FlashAttention-3 while it serves: torch.compile cannot trace an import


def chosen() -> str:
    """Return the name of the back end that serves now."""
    return _chosen


@contextmanager
def using_attention(name: str) -> Iterator[None]:
    """Let the back end ``name`` of ``NAMES`` serve ``golfcore.ops.attention`` inside the block.

    Raises:
        UsageError: an unknown name, or one that is not installed.
    """
    global _chosen, _flash
    if reason := unavailable(name):
        raise UsageError(f"train.attention = {name!r}: {reason}; use auto, own or sdpa")
    before, _chosen = (_chosen, _flash), name
    _flash = importlib.import_module(FA3) if name == "fa3" else None
    try:
        yield
    finally:
        _chosen, _flash = before


def unavailable(name: str) -> str:
    """Return why a back end cannot serve here; '' if it can."""
    if name not in NAMES:
        return f"expected one of {', '.join(NAMES)}"
    if name == "fa3":
        if not fa3_is_installed():
            return "FlashAttention-3 is not installed"
        try:
            importlib.import_module(FA3)
        except Exception as error:  # built for another torch, CUDA or Python, it fails in many ways
            return (
                f"FlashAttention-3 cannot be imported ({one_line(error):.200}), it was built for another torch or CUDA "
                f"than {torch.__version__} with {torch.version.cuda or 'none'}"
            )
    return ""


def fa3_is_installed() -> bool:
    """Return whether the package of FlashAttention-3 is there; it may be one that cannot be imported."""
    found = sys.modules[FA3] if FA3 in sys.modules else importlib.util.find_spec(FA3)
    return found is not None


def serve(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, window: int, scale: float | None, longest: int = 0
) -> Tensor | None:
    """Compute causal attention by the chosen back end; return None if ours has to do it."""
    if _chosen == "fa3" and q.dtype in (torch.bfloat16, torch.float16):
        return _fa3(q, k, v, cu_seqlens, window, scale, longest or q.shape[1])
    if _chosen == "sdpa" and cu_seqlens is None and (window == 0 or window >= q.shape[1]):
        dtype = q.dtype
        q, k, v = (x.transpose(1, 2) for x in products.widened(q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
        return y.transpose(1, 2).to(dtype)
    return None


def _fa3(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, window: int, scale: float | None, longest: int
) -> Tensor:
    options: dict[str, Any] = {
        "softmax_scale": scale, "causal": True, "window_size": (window - 1 if window else -1, 0),
    }  # fmt: skip
    if cu_seqlens is None:
        y = _flash.flash_attn_func(q, k, v, **options)
    else:
        y = _flash.flash_attn_varlen_func(
            q[0], k[0], v[0], cu_seqlens, cu_seqlens, longest, longest, **options
        )  # fmt: skip
        y = y[0] if isinstance(y, tuple) else y
        return y[None]  # type: ignore[no-any-return]
    return y[0] if isinstance(y, tuple) else y  # type: ignore[no-any-return]


def finish(y_BTNH: Tensor, v_BTKH: Tensor, gate_BTN: Tensor | None, xsa: bool) -> Tensor:
    """Apply the steps of ``golfcore.ops.attention`` that follow the attention itself: XSA and gate."""
    if xsa:
        unit = F.normalize(v_BTKH.float(), dim=-1).to(y_BTNH.dtype)
        unit = unit.repeat_interleave(y_BTNH.shape[2] // v_BTKH.shape[2], dim=2)
        y_BTNH = y_BTNH - (y_BTNH * unit).sum(-1, keepdim=True) * unit
    if gate_BTN is not None:
        y_BTNH = y_BTNH * gate_BTN.to(y_BTNH.dtype).unsqueeze(-1)
    return y_BTNH.contiguous()


def choose(
    wish: str, attention: Callable[..., Tensor], rows: int, length: int, heads: int, kv_heads: int, width: int,
    dtype: torch.dtype, device: torch.device, cu_seqlens: Tensor | None = None, longest: int = 0,
) -> tuple[str, str]:  # fmt: skip
    """Return the back end for a run, and why.

    Args:
        wish: a name of ``NAMES``, or ``auto`` for a trial: forward and backward on the run's own shapes.
        attention: ``golfcore.ops.attention``.
        rows, length, heads, kv_heads, width, dtype, device: of the tensors.
        cu_seqlens, longest: documents of one of the run's batches, over its rows end to end; None for whole rows.

    Raises:
        UsageError: ``wish`` cannot serve here.
    """
    if wish not in ("auto", "fa3"):
        with using_attention(wish):
            return wish, "as the recipe says"
    generator = torch.Generator().manual_seed(0)
    shape = (rows, length) if cu_seqlens is None else (1, rows * length)
    q, k, v = (
        torch.randn(*shape, n, width, generator=generator).to(device, dtype).requires_grad_()
        for n in (heads, kv_heads, kv_heads)
    )

    def once() -> Tensor:
        return attention(q, k, v, cu_seqlens=cu_seqlens, longest=longest)

    if wish == "fa3":
        with using_attention(wish):
            try:  # one of another version would fail later, in the middle of a step
                once()
            except Exception as error:
                raise UsageError(f"train.attention = 'fa3' fails: {one_line(error)}; use auto or own") from error
        return wish, "as the recipe says"
    seconds: dict[str, float] = {}
    found: list[str] = []
    for name in NAMES:
        if reason := unavailable(name):
            found.append(f"{name}: {reason}")
            continue
        if name == "sdpa" and cu_seqlens is not None:  # what would be timed is ours
            found.append("sdpa: keeps no documents apart")
            continue
        try:
            with using_attention(name):
                seconds[name] = _trial(once, device)
        except Exception as error:  # out of memory, a shape that it does not take, a version with other arguments
            found.append(f"{name}: {one_line(error):.80}")
            continue
        found.append(f"{name}: {1000 * seconds[name]:.2f} ms")
    best = next(iter(seconds))
    for name in seconds:
        if seconds[name] < MARGIN * seconds[best]:
            best = name
    return best, "measured; " + ", ".join(found)


def _trial(work: Callable[[], Tensor], device: torch.device) -> float:
    best = float("inf")
    for _ in range(TRIALS):
        start = time.perf_counter()
        work().float().square().sum().backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best
