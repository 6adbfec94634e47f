"""The process's memory: kept between steps instead of handed back, and its peak measured."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> bool:
    """Make the C allocator keep what is freed, for the rest of the process; return False if it is not glibc.

    By default glibc returns every block above some MB to the system when it is freed, so each training step takes its
    activations and logits as fresh zeroed pages: in an 8,192 x 768 fp32 relu squared that was a third of the time
    (4.5 instead of 7.4 ms in plain torch). The price is that memory, once used, stays with the process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def peak_bytes(function: Callable[[], object]) -> int | None:
    """Measure how far resident memory rises, in bytes, while ``function`` runs; None outside Linux.

    Free memory that the allocator holds is given back first, so that all the function takes is counted; the kernel's
    own count is exact to some hundred KB.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets the peak to the present level
        before = _status("VmRSS")
        result = function()
        peak = _status("VmHWM")
    except (OSError, KeyError):
        return None
    del result
    return max(0, peak - before)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return int(dict(line.split(":", 1) for line in lines if ":" in line)[field].split()[0]) * 1024
