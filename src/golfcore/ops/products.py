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
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch

from golfcore.environment import cpu_model
from golfcore.errors import InputError
from golfcore.paths import atomic_write, cache_dir

# What lowers the instructions that torch and its libraries use; each choice has a measurement of its own.
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
_KEPT = "products.json"
_SHAPE = (512, 256, 256)  # rows, shared, columns: 0.2 s where bf16 is at its slowest
_TRIAL_S = 0.03

# How products are computed: in fp32; in bf16 by vector instructions; in bf16 by a unit for matrices.
Choice = Literal["fp32", "bf16", "bf16-tiles"]
# A vector instruction for bf16 does at most twice the work of one for fp32; above this there are tiles.
_TILES = 4.0


class Speeds(NamedTuple):
    """GFLOP/s of products on all of torch's threads, by the dtype of the operands."""

    fp32: float
    bf16: float

    @property
    def choice(self) -> Choice:
        """What follows for products."""
        if self.bf16 <= self.fp32:
            return "fp32"
        return "bf16" if self.bf16 < _TILES * self.fp32 else "bf16-tiles"

    def __str__(self) -> str:
        return f"fp32 {self.fp32:.4g} GFLOP/s, bf16 {self.bf16:.4g} GFLOP/s"


_chosen: Choice | None = None


def choice() -> Choice:
    """How products on this processor are computed: as ``using`` says, else as ``speeds`` found."""
    return speeds().choice if _chosen is None else _chosen


def fast_dtype() -> torch.dtype:
    """``torch.bfloat16`` or ``torch.float32``: what products on this processor are computed in."""
    return torch.float32 if choice() == "fp32" else torch.bfloat16


@contextlib.contextmanager
def using(wish: Choice) -> Iterator[None]:
    """Inside the block ``choice()`` is ``wish``, whatever this machine's measurement says.

    Raises:
        InputError: there is no such choice.
    """
    global _chosen
    if wish not in get_args(Choice):
        raise InputError(f"products in {wish!r}: expected one of {', '.join(get_args(Choice))}")
    before, _chosen = _chosen, wish
    try:
        yield
    finally:
        _chosen = before


@functools.cache
def speeds() -> Speeds:
    """This processor's, from the cache or measured and put there."""
    kept = _read().get(_key())
    return remember(measure()) if kept is None else kept


def remember(found: Speeds) -> Speeds:
    """Puts ``found`` into the user's cache, for the next process; a cache that cannot be written is no error."""
    table = {name: value._asdict() for name, value in (_read() | {_key(): found}).items()}
    with contextlib.suppress(InputError, OSError), atomic_write(cache_dir() / _KEPT, "w") as f:
        json.dump(table, f, indent=1)
    return found


def measure() -> Speeds:
    """Multiplies for a few hundredths of a second, in turn, so that other load falls on both."""
    dtypes = (torch.float32, torch.bfloat16)
    rows, shared, columns = _SHAPE
    pairs = [(torch.ones(rows, shared, dtype=d), torch.ones(shared, columns, dtype=d)) for d in dtypes]
    best = [float("inf")] * len(dtypes)
    begun, trials = time.perf_counter(), 0
    while trials < 2 or (time.perf_counter() - begun < _TRIAL_S and trials < 1000):
        for i, (a, b) in enumerate(pairs):
            start = time.perf_counter()
            a @ b
            best[i] = min(best[i], time.perf_counter() - start)
        trials += 1
    return Speeds(*(round(2e-9 * rows * shared * columns / seconds, 2) for seconds in best))


def _key() -> str:
    limits = [f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ]
    return ", ".join([cpu_model(), f"torch {torch.__version__}", f"{torch.get_num_threads()} threads", *limits])


def _read() -> dict[str, Speeds]:
    try:
        rows = json.loads((cache_dir() / _KEPT).read_text(encoding="utf-8"))
        found = {str(key): Speeds(float(row["fp32"]), float(row["bf16"])) for key, row in rows.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return {key: value for key, value in found.items() if min(value) > 0}


def widened(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tensors as products take them: bf16 ones on a processor in fp32 where it multiplies that faster."""
    return tuple(x.float() if x.dtype == torch.bfloat16 and is_slow(x) else x for x in tensors)


def is_slow(x: torch.Tensor) -> bool:
    """Whether products of tensors like ``x`` are faster in fp32."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and fast_dtype() == torch.float32


def mm(a_NK: torch.Tensor, b_KM: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """``a b`` in the dtype of ``a``, rounded once; into ``out`` where it is given."""
    if not is_slow(a_NK):
        return torch.mm(a_NK, b_KM) if out is None else torch.mm(a_NK, b_KM, out=out)
    wide = torch.mm(a_NK.float(), b_KM.float())
    return wide.to(a_NK.dtype) if out is None else out.copy_(wide)


def addmm_(out_NM: torch.Tensor, a_NK: torch.Tensor, b_KM: torch.Tensor) -> torch.Tensor:
    """``out += a b`` in place, rounded once."""
    if not is_slow(a_NK):
        return out_NM.addmm_(a_NK, b_KM)
    return out_NM.copy_(torch.addmm(out_NM.float(), a_NK.float(), b_KM.float()))


def linear(x: torch.Tensor, w_OI: torch.Tensor) -> torch.Tensor:
    """``x w^T`` in the dtype of ``x``: torch's own layer with its product in the fast precision; differentiable."""
    wide, weight = widened(x, w_OI.to(x.dtype))
    return torch.nn.functional.linear(wide, weight).to(x.dtype)
