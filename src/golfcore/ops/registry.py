"""Native operations under ``torch.ops.golf``: one definition each, a cheap call, and a choice of back end.

An operation is one or more *leaves* (forward, backward) that torch sees as opaque functions: ``leaf`` defines the
schema, the CPU implementation and the shape function that ``torch.compile`` traces; ``join`` makes a backward leaf the
gradient of a forward leaf. A public function checks its tensors, asks ``native``, and calls either the leaf or the
reference, which is plain torch and serves every device and dtype.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from golfcore import _core
from golfcore.errors import InputError, UsageError

ISAS = ("scalar", "avx2", "avx512", "avx512bf16")
DTYPE_CODE = {torch.float32: 0, torch.bfloat16: 1}  # csrc/golf.h: DType

_library: Any = torch.library.Library("golf", "DEF")  # type: ignore[no-untyped-call]
_leaves: dict[str, list[str]] = {}


def _mode_from_environment() -> str:
    mode = os.environ.get("GOLF_OPS", "native")
    if mode not in ("native", "reference"):
        raise UsageError(f"GOLF_OPS = {mode!r}: expected native or reference")
    isa = os.environ.get("GOLF_ISA", ISAS[-1])
    if isa not in ISAS:
        raise UsageError(f"GOLF_ISA = {isa!r}: expected one of {', '.join(ISAS)}")
    return mode


_mode = _mode_from_environment()
HIGHEST_ISA: str = _core.active_isa()  # nothing has lowered it yet but GOLF_ISA


def _borrow_openmp() -> None:
    """Lets native operations run on the OpenMP threads that torch already has.

    The symbol is looked up through libtorch_cpu, so it is the runtime that torch itself is linked with. Where there is
    none the core starts threads of its own.
    """
    with contextlib.suppress(OSError, AttributeError, StopIteration):
        library = next((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"))
        parallel = ctypes.CDLL(str(library)).GOMP_parallel
        _core.borrow_openmp(ctypes.cast(parallel, ctypes.c_void_p).value)


_borrow_openmp()


class Leaf:
    """A function of ``torch.ops.golf``, called past torch's dispatcher where nobody watches.

    The dispatcher and ``register_autograd`` are needed where torch traces (compile, fake tensors, dispatch modes) and
    where the schema says that an argument is written to. Elsewhere a plain ``autograd.Function`` does: it took 1.4 of
    the 8.1 ms off that a pocket step's 41 operations cost beside their work (2 cores of an AMD EPYC).
    """

    def __init__(self, overload: Any, cpu: Callable[..., Any], *, mutates: bool) -> None:
        self.overload, self.cpu, self.mutates = overload, cpu, mutates
        self.node: Any = None  # the autograd.Function, where ``join`` made one

    def __call__(self, *arguments: Any) -> Any:
        if self.mutates or torch.compiler.is_compiling() or _is_watched(arguments):
            return self.overload(*arguments)
        return (self.cpu if self.node is None else self.node.apply)(*arguments)


def _is_watched(arguments: tuple[Any, ...]) -> bool:
    return torch._C._len_torch_dispatch_stack() > 0 or any(
        isinstance(a, torch.Tensor) and type(a) not in (torch.Tensor, torch.nn.Parameter) for a in arguments
    )


def leaf(op: str, schema: str, cpu: Callable[..., Any], fake: Callable[..., Any]) -> Leaf:
    """Defines ``torch.ops.golf.<name>`` and returns what calls it.

    Args:
        op: the operation that the leaf belongs to, as ``kernels list`` shows it.
        schema: ``name(Tensor x, float c) -> Tensor``.
        cpu: the implementation; gets real CPU tensors and allocates its results.
        fake: the same signature; returns empty tensors of the right shape, dtype and strides.
    """
    name = schema.partition("(")[0]
    _library.define(schema)
    _library.impl(name, cpu, "CPU")
    torch.library.register_fake(f"golf::{name}", fake, lib=_library)
    _leaves.setdefault(op, []).append(name)
    return Leaf(getattr(torch.ops.golf, name).default, cpu, mutates="!" in schema)


def join(forward: Leaf, setup_context: Callable[..., None], backward: Callable[..., Any]) -> None:
    """Makes ``backward(ctx, *grads)`` the gradient of the leaf ``forward``."""
    torch.library.register_autograd(forward.overload.name(), backward, setup_context=setup_context, lib=_library)
    name, cpu = forward.overload.name(), forward.cpu

    def run(ctx: Any, *inputs: Any) -> Any:
        output = cpu(*inputs)
        setup_context(ctx, inputs, output)
        return output

    def run_backward(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():  # create_graph: what follows would take the gradients for constants
            raise InputError(
                f"{name}: native operations have no second derivative; leave create_graph out, or compute inside "
                "golfcore.ops.using('reference')"
            )
        return backward(ctx, *gradients)

    members = {"forward": staticmethod(run), "backward": staticmethod(run_backward)}
    forward.node = type(name.replace("::", "_"), (torch.autograd.Function,), members)


def native(x: torch.Tensor) -> bool:
    """Whether a native leaf serves tensors like ``x``; otherwise the reference does, more slowly."""
    return _mode == "native" and x.device.type == "cpu" and x.dtype in DTYPE_CODE


@contextlib.contextmanager
def using(mode: str) -> Iterator[None]:
    """Switches every operation to ``native`` or ``reference`` inside the block."""
    global _mode
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def leaves() -> dict[str, list[str]]:
    """The leaves of each operation, in order of definition."""
    return {op: list(names) for op, names in _leaves.items()}


def backends(device: torch.device | None = None) -> dict[str, str]:
    """What serves each operation, for the run's log: ``{"activation": "native-avx512"}``; default: on the CPU."""
    on_cpu = device is None or device.type == "cpu"
    served = f"native-{_core.active_isa()}" if _mode == "native" and on_cpu else "reference"
    return dict.fromkeys(_leaves, served)


def threads() -> int:
    """The number of threads for a native call: torch's own, at the time of the call."""
    return torch.get_num_threads()


def check_same(
    op: str, name: str, x: torch.Tensor, like_name: str, like: torch.Tensor, dtype: torch.dtype | None = None
) -> None:
    """Raises InputError unless ``x`` is on the device of ``like`` and has ``dtype`` (default: that of ``like``)."""
    if x.device != like.device:
        raise InputError(
            f"{op}: {name} is on {x.device}, {like_name} on {like.device}; move one with {name}.to({like_name}.device)"
        )
    expected = dtype or like.dtype
    if x.dtype != expected:
        raise InputError(f"{op}: {name} is {x.dtype}; expected {expected}: convert it with {name}.to({expected})")


def check_shape(op: str, name: str, x: torch.Tensor, expected: tuple[int, ...]) -> None:
    """Raises InputError unless ``x`` has the shape ``expected``."""
    if tuple(x.shape) != expected:
        raise InputError(f"{op}: {name} has shape {tuple(x.shape)}; expected {expected}")


def check_float(op: str, name: str, x: torch.Tensor) -> None:
    """Raises InputError unless ``x`` is a floating-point tensor."""
    if not x.is_floating_point():
        raise InputError(f"{op}: {name} is {x.dtype}; expected a floating-point tensor, for example {name}.float()")


def rows(x: torch.Tensor) -> torch.Tensor:
    """``x`` as [rows, last] with a contiguous last dimension; a view where one row stride describes it."""
    d = x.shape[-1]
    if x.stride(-1) != 1 and d > 1:
        x = x.contiguous()
    return x.reshape(-1, d) if x.numel() else x.new_empty(0, d)


def row_stride(x_ND: torch.Tensor | None) -> int:
    """The distance of rows in elements; 0 for an absent tensor."""
    return 0 if x_ND is None else x_ND.stride(0)


def address(x: torch.Tensor | None) -> int:
    """Where the data starts; 0, a null pointer, for an absent tensor."""
    return 0 if x is None else x.data_ptr()


def heads(x_BTNH: torch.Tensor) -> tuple[torch.Tensor, int]:
    """``x`` with each token's heads contiguous and tokens at one stride (the second result, in elements).

    A view into a wider product is taken as it is; anything else is copied.
    """
    b, t, n, h = x_BTNH.shape
    together = (x_BTNH.stride(3) == 1 or h == 1) and (x_BTNH.stride(2) == h or n == 1)
    if not together or (b > 1 and t > 0 and x_BTNH.stride(0) != t * x_BTNH.stride(1)):
        x_BTNH = x_BTNH.contiguous()
    # A dimension of size 1 may have any stride.
    return x_BTNH, x_BTNH.stride(1) if t > 1 else x_BTNH.stride(0)
