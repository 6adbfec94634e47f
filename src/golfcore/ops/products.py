"""Matrix products on processors, in the precision that this one multiplies fast.

A processor with bf16 instructions (AVX512-BF16, AMX, Arm's BFMMLA) multiplies bf16 faster than fp32, with AMX's tiles
twelve times as fast; on one without them torch multiplies bf16 element by element, some 100 times slower than fp32. So
whatever is stored, a product on a processor is computed in ``fast_dtype()``: bf16 operands are widened to fp32 first
where that is faster, and the result is rounded back. GPUs multiply as they are told.

The choice is measured once for each processor and build of torch and kept in the user's cache. A run makes rank 0's
choice that of all its ranks with ``using``, and a resumed run keeps the one it began with.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from golfcore.errors import InputError
from golfcore.machine import cpu_model
from golfcore.paths import atomic_write, cache_dir
from golfcore.ranges import FACTOR

# What lowers the instructions that torch and its libraries use; each choice has a measurement of its own.
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
_KEPT = "products.json"
_SIDE = 256  # of the square matrices that are multiplied: 0.1 s each where bf16 is at its slowest
_TRIALS, _TRIAL_S = 4, 0.05  # at least so many, and for so long

# A vector instruction for bf16 does at most twice the work of one for fp32; above this there is a unit for matrices.
_TILES = 4.0
# oneDNN's fp32 product needs copies that torch.mm does not: it has to be this much faster.
_ONEDNN = 1.2


class Route(NamedTuple):
    """The precision and the library with which a processor computes products."""

    dtype: str  # fp32 or bf16
    tiles: bool = False  # bf16 products go through a unit for matrices (AMX)
    onednn: bool = False  # the head's fp32 products go through oneDNN's inner product instead of torch.mm

    def __str__(self) -> str:
        return self.dtype + (" by tiles" if self.tiles else "") + (", fp32 by oneDNN" if self.onednn else "")


class Speeds(NamedTuple):
    """GFLOP/s of products on one thread: fp32 by torch.mm and by oneDNN (0 without it), bf16."""

    fp32: float
    onednn: float
    bf16: float

    @property
    def route(self) -> Route:
        """What follows for products."""
        fp32 = max(self.fp32, self.onednn)
        fast = "bf16" if self.bf16 > fp32 else "fp32"
        return Route(fast, self.bf16 > _TILES * fp32, self.onednn > _ONEDNN * self.fp32)

    def __str__(self) -> str:
        return f"a thread's GFLOP/s: fp32 {self.fp32:.4g}, by oneDNN {self.onednn:.4g}, bf16 {self.bf16:.4g}"


_chosen: Route | None = None


def route() -> Route:
    """Return how products on this processor are computed: as ``using`` says, else as ``speeds`` found."""
    return speeds().route if _chosen is None else _chosen


def fast_dtype() -> torch.dtype:
    """Return ``torch.bfloat16`` or ``torch.float32``: what products on this processor are computed in."""
    return torch.bfloat16 if route().dtype == "bf16" else torch.float32


@contextlib.contextmanager
def using(wish: Route) -> Iterator[None]:
    """Make ``route()`` return ``wish`` inside the block, whatever this machine's measurement says.

    Raises:
        InputError: its dtype is neither fp32 nor bf16.
    """
    global _chosen
    if wish.dtype not in ("fp32", "bf16"):
        raise InputError(f"products in {wish.dtype!r}: expected fp32 or bf16")
    before, _chosen = _chosen, wish
    try:
        yield
    finally:
        _chosen = before


@functools.cache
def speeds() -> Speeds:
    """Return this processor's speeds, from the cache or measured and put there."""
    kept = _read().get(_key())
    return remember(measure()) if kept is None else kept


def remember(found: Speeds) -> Speeds:
    """Put ``found`` into the user's cache, for the next process; a cache that cannot be written is no error."""
    table = {name: value._asdict() for name, value in (_read() | {_key(): found}).items()}
    with contextlib.suppress(InputError, OSError), atomic_write(cache_dir() / _KEPT, "w") as f:
        json.dump(table, f, indent=1)
    return found


def measure() -> Speeds:
    """Measure products for a few hundredths of a second, in turn, so that other load falls on all alike."""
    a = torch.ones(_SIDE, _SIDE)
    a16 = a.bfloat16()
    # bf16 both ways: without instructions for it torch takes 30 times longer for the second, and layers need both.
    work: list[Callable[[], object]] = [
        lambda: torch.mm(a, a.t()), lambda: torch.mm(a16, a16.t()), lambda: torch.mm(a16, a16)
    ]  # fmt: skip
    if has_onednn():
        work.append(lambda: inner_product(a, a))
    best = [float("inf")] * 4
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # beside other load several threads wait for each other, which says nothing of products
    try:
        begun, trials = time.perf_counter(), 0
        while trials < _TRIALS or (time.perf_counter() - begun < _TRIAL_S and trials < 1000):
            for i, multiply in enumerate(work):
                start = time.perf_counter()
                multiply()
                best[i] = min(best[i], time.perf_counter() - start)
            trials += 1
    finally:
        torch.set_num_threads(threads)
    fp32, onednn, bf16 = (round(2e-9 * _SIDE**3 / s, 2) for s in (best[0], best[3], (best[1] + best[2]) / 2))
    return Speeds(fp32, onednn, bf16)


def has_onednn() -> bool:
    """Return whether this build of torch offers oneDNN's inner product."""
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(built) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def inner_product(a_NK: torch.Tensor, b_MK: torch.Tensor) -> torch.Tensor:
    """Multiply ``a b^T`` in fp32 by oneDNN."""
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(a_NK, b_MK, None, "none", [], "")
    return result


def _key() -> str:
    limits = [f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ]
    return ", ".join([cpu_model(), f"torch {torch.__version__}", *limits])


def _read() -> dict[str, Speeds]:
    try:
        rows = json.loads((cache_dir() / _KEPT).read_text(encoding="utf-8"))
        found = {str(key): Speeds(*(float(row[name]) for name in Speeds._fields)) for key, row in rows.items()}
    except (InputError, OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return {}
    return {
        key: value for key, value in found.items()
        if all(rate in FACTOR for rate in value) and min(value.fp32, value.bf16) > 0
    }  # fmt: skip


def widened(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Convert tensors to what products take: bf16 on a processor becomes fp32 if it multiplies that faster."""
    return tuple(x.float() if x.dtype == torch.bfloat16 and is_slow(x) else x for x in tensors)


def is_slow(x: torch.Tensor) -> bool:
    """Return whether products of tensors like ``x`` are faster in fp32."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and fast_dtype() == torch.float32


def mm(a_NK: torch.Tensor, b_KM: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Multiply ``a b`` in the dtype of ``a``, rounded once; into ``out`` if it is given."""
    if not is_slow(a_NK):
        return torch.mm(a_NK, b_KM) if out is None else torch.mm(a_NK, b_KM, out=out)
    wide = torch.mm(a_NK.float(), b_KM.float())
    return wide.to(a_NK.dtype) if out is None else out.copy_(wide)


def addmm_(out_NM: torch.Tensor, a_NK: torch.Tensor, b_KM: torch.Tensor) -> torch.Tensor:
    """Add a product in place, ``out += a b``, rounded once."""
    if not is_slow(a_NK):
        return out_NM.addmm_(a_NK, b_KM)
    return out_NM.copy_(torch.addmm(out_NM.float(), a_NK.float(), b_KM.float()))


def leaves_fp32(x: torch.Tensor) -> bool:
    """Return whether torch can leave a product of tensors like ``x`` in fp32: half precision, a GPU, torch 2.8."""
    return x.device.type == "cuda" and x.dtype != torch.float32 and hasattr(torch.ops.aten.mm, "dtype_out")


def mm_fp32(a_NK: torch.Tensor, b_KM: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Multiply ``a b`` into fp32, never rounded to the dtype of ``a`` on the way; into ``out`` if it is given."""
    if leaves_fp32(a_NK):
        return torch.mm(a_NK, b_KM, torch.float32, out=out)
    return torch.mm(a_NK.float(), b_KM.float(), out=out)


def add_fp32_(out_NM: torch.Tensor, a_NK: torch.Tensor, b_KM: torch.Tensor) -> torch.Tensor:
    """Add a product as ``mm_fp32`` leaves it to an fp32 matrix, in place, ``out += a b``; inside cuBLAS if it can."""
    if leaves_fp32(a_NK) and _adds_into_fp32(a_NK.device, a_NK.dtype):
        return torch.addmm(out_NM, a_NK, b_KM, torch.float32, out=out_NM)
    return out_NM.add_(mm_fp32(a_NK, b_KM))


@functools.cache
def _adds_into_fp32(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether torch's product of ``dtype`` adds to an fp32 matrix, by trying: its first versions refused."""
    try:
        one, total = torch.ones(8, 8, dtype=dtype, device=device), torch.zeros(8, 8, device=device)
        torch.addmm(total, one, one, torch.float32, out=total)
    except (RuntimeError, TypeError):  # of the operator, and of its description for fake tensors
        return False
    return True


def sum_in_fp32() -> None:
    """Make cuBLAS add up the parts of a product that it splits in fp32, for the rest of the process.

    By default torch lets it add them in bf16, and a product over many rows, as of a weight's gradient, is split.
    """
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def linear(x: torch.Tensor, w_OI: torch.Tensor) -> torch.Tensor:
    """Multiply ``x w^T`` in the dtype of ``x`` like torch's own layer, in the fast precision; differentiable."""
    wide, weight = widened(x, w_OI.to(x.dtype))
    return torch.nn.functional.linear(wide, weight).to(x.dtype)
