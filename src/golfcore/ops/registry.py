"""Native operations under ``torch.ops.golf``: one definition each, a cheap call, and a choice of back end.

An operation is one or more *leaves* (forward, backward) that torch sees as opaque functions: ``define_op`` defines the
schema, the implementations and the shape function that ``torch.compile`` traces; ``register_backward`` makes a backward
leaf the gradient of a forward leaf. A public function checks its tensors, asks ``native``, and calls either the leaf or
the reference, which is plain torch and serves every device and dtype.

Three modules hold native functions: ``_core`` for CPU tensors, ``_core.device`` for CUDA tensors, and ``_simt``, where
the source of the latter runs on the host and sees CPU tensors: in mode "simt" leaves go there. An implementation calls
a function of ``kernels``, for which ``call`` finds the module, so that what runs on a GPU is what the host has checked.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NewType

import torch

from golfcore import _core
from golfcore.errors import BuildError, DeviceError, InputError, UsageError
from golfcore.installed import require_torch
from golfcore.startup import name_user

require_torch(torch.__version__)  # before an old one is asked for what it lacks
name_user()  # for torch's compiler, where this process began without golfcore's command line

Address = NewType("Address", int)  # of a tensor's data, as it crosses to C++
NULL = Address(0)  # an absent tensor

ISAS: tuple[str, ...] = _core.isas()  # of this architecture, lowest first
DTYPE_CODE = {torch.float32: 0, torch.bfloat16: 1}  # csrc/golf.h: DType

try:
    from golfcore import _simt
except ImportError:  # tests alone need it, and `make simt` builds it
    _simt = None  # type: ignore[assignment]

# What torch raises where a kernel of its own, or one before it, has failed; torch 2.6 and 2.7 have RuntimeError alone.
_ACCELERATOR: Any = getattr(torch, "AcceleratorError", ())
_library: Any = torch.library.Library("golf", "DEF")  # type: ignore[no-untyped-call]
_leaves: dict[str, list[str]] = {}
_on_device: dict[str, tuple[torch.dtype, ...]] = {}  # operations with kernels for GPUs, and what those serve


def _mode_from_environment() -> str:
    mode = os.environ.get("GOLF_OPS", "native")
    if mode not in ("native", "reference"):
        raise UsageError(f"GOLF_OPS = {mode!r}: expected native or reference")
    if os.environ.get("GOLF_SYNC", "0") not in ("0", "1"):
        raise UsageError(f"GOLF_SYNC = {os.environ['GOLF_SYNC']!r}: expected 1, to wait after each kernel, or 0")
    isa = os.environ.get("GOLF_ISA", ISAS[-1])
    if isa not in ISAS:
        raise UsageError(f"GOLF_ISA = {isa!r}: expected one of {', '.join(ISAS)}")
    return mode


_mode = _mode_from_environment()
_recorder: Any = None  # the ops.tape.Tape that records now
_waits = os.environ.get("GOLF_SYNC") == "1"
HIGHEST_ISA: str = _core.active_isa()  # nothing has lowered it yet but GOLF_ISA


def _borrow_openmp() -> None:
    """Lets native operations run on the OpenMP threads that torch already has.

    The symbol is looked up through libtorch_cpu, so it is the runtime that torch itself is linked with. Where there is
    none, as on macOS, whose libomp does not offer GNU's entry points, the core starts threads of its own.
    """
    with contextlib.suppress(OSError, AttributeError, StopIteration):
        library = next((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"))
        parallel = ctypes.CDLL(str(library)).GOMP_parallel
        _core.borrow_openmp(ctypes.cast(parallel, ctypes.c_void_p).value or 0)


_borrow_openmp()


class Leaf:
    """A function of ``torch.ops.golf``, called past torch's dispatcher where nobody watches.

    The dispatcher and ``register_autograd`` are needed where torch traces (compile, fake tensors, dispatch modes) and
    where the schema says that an argument is written to. Elsewhere a plain ``autograd.Function`` does: it took 1.4 of
    the 8.1 ms off that a pocket step's 41 operations cost beside their work (2 cores of an AMD EPYC).
    """

    def __init__(self, overload: Any, serve: Callable[..., Any], *, mutates: bool) -> None:
        self.overload, self.serve, self.mutates = overload, serve, mutates
        self.node: Any = None  # the autograd.Function, where ``register_backward`` made one

    def __call__(self, *arguments: Any) -> Any:
        if self.mutates or torch.compiler.is_compiling() or _is_watched(arguments):
            return self.overload(*arguments)
        return (self.node.apply if self.node is not None and torch.is_grad_enabled() else self.serve)(*arguments)


def _is_watched(arguments: tuple[Any, ...]) -> bool:
    return _recorder is None and _has_watchers(arguments)


def _has_watchers(arguments: tuple[Any, ...]) -> bool:
    return torch._C._len_torch_dispatch_stack() > 0 or any(
        isinstance(a, torch.Tensor) and type(a) not in (torch.Tensor, torch.nn.Parameter) for a in arguments
    )


def define_op(
    op: str, schema: str, cpu: Callable[..., Any], fake: Callable[..., Any], device: Callable[..., Any] | None = None,
    device_dtypes: tuple[torch.dtype, ...] = tuple(DTYPE_CODE),
) -> Leaf:  # fmt: skip
    """Define ``torch.ops.golf.<name>`` and return what calls it.

    Args:
        op: the operation that the leaf belongs to, as ``kernels list`` shows it.
        schema: ``name(Tensor x, float c) -> Tensor``.
        cpu: the implementation; gets real CPU tensors and allocates its results.
        fake: the same signature; returns empty tensors of the right shape, dtype and strides.
        device: the implementation on a GPU, which passes every tensor through ``address``; often ``cpu`` itself.
        device_dtypes: what it serves.
    """
    name = schema.partition("(")[0]
    _library.define(schema)
    serve = cpu if device is None else _served(op, cpu, device)
    _library.impl(name, serve, "CPU")
    if device is not None:
        _library.impl(name, serve, "CUDA")
        _on_device[op] = device_dtypes
    torch.library.register_fake(f"golf::{name}", fake, lib=_library)
    _leaves.setdefault(op, []).append(name)
    return Leaf(getattr(torch.ops.golf, name).default, serve, mutates="!" in schema)


def _served(op: str, cpu: Callable[..., Any], kernels: Callable[..., Any]) -> Callable[..., Any]:
    """``cpu`` or ``kernels``, by where the tensors lie and by the mode."""

    def serve(*args: Any) -> Any:
        device = _tensors(args)[0].device
        if device.type == "cuda":
            with torch.cuda.device(device):
                return _guarded(op, kernels, args)
        return _guarded(op, kernels, args) if _mode == "simt" else cpu(*args)

    return serve


def _tensors(args: tuple[Any, ...]) -> list[torch.Tensor]:
    """The tensors among a leaf's arguments, those in lists included."""
    listed = (x for a in args for x in (a if isinstance(a, list | tuple) else (a,)))
    return [x for x in listed if isinstance(x, torch.Tensor)]


class _Earlier(RuntimeError):
    """A kernel before this call has failed."""


def _guarded(op: str, kernels: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """``kernels(*args)``; what goes wrong becomes an error that names the operation and its tensors."""
    try:
        return kernels(*args)
    except RuntimeError as error:  # torch.OutOfMemoryError among them
        raise DeviceError(_trouble(op, _tensors(args), error)) from error
    finally:
        if _mode == "simt":
            _simt.unmap_buffers()


def _trouble(op: str, given: list[torch.Tensor], error: RuntimeError) -> str:
    """Which operation, on which device, of which tensors, what went wrong, and what to do about it."""
    where, shown = given[0].device, ", ".join(f"{str(a.dtype)[6:]} {tuple(a.shape)}" for a in given[:8])
    if len(given) > 8:
        shown += f" and {len(given) - 8} more"
    if isinstance(error, _Earlier):
        return f"on {where}, before {op} of {shown}, another operation failed: {error}"
    hint = ""
    if isinstance(error, torch.OutOfMemoryError):
        hint = "; lower train.micro_batch_tokens"
    elif not _waits and (core(given[0]).device_lost() or isinstance(error, _ACCELERATOR)):
        hint = "; an earlier kernel may be the cause: GOLF_SYNC=1 tells which"
    return f"{op} on {where} of {shown}: {error}{hint}"


def register_backward(forward: Leaf, setup_context: Callable[..., None], backward: Callable[..., Any]) -> None:
    """Make ``backward(ctx, *grads)`` the gradient of the leaf ``forward``."""
    torch.library.register_autograd(forward.overload.name(), backward, setup_context=setup_context, lib=_library)
    name, serve = forward.overload.name(), forward.serve

    def run(ctx: Any, *inputs: Any) -> Any:
        output = serve(*inputs)
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


def native(op: str, x: torch.Tensor) -> bool:
    """Return whether a native leaf of ``op`` serves tensors like ``x``; otherwise the reference does, more slowly."""
    if x.dtype not in DTYPE_CODE or _mode == "reference":
        return False
    on_device = x.dtype in device_dtypes(op)
    if _mode == "simt":
        return x.device.type == "cpu" and on_device
    return x.device.type == "cpu" or (x.device.type == "cuda" and on_device and _kernels_run(x.device.index or 0))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _kernels_run(index: int) -> bool:
    """Whether the kernels can run on this GPU.

    torch.compile sees the decorator only on a plain function: a cached one it would trace, into C++ that it cannot.
    """
    return _told_once(index)


@functools.cache
def _told_once(index: int) -> bool:
    """Whether the kernels can run on this GPU; says once why they cannot."""
    reason = why_not(index)
    if reason:
        warnings.warn(
            f"golfcore's kernels cannot run on cuda:{index}, so plain torch serves it, more slowly: {reason}; "
            "golfcore doctor tells more", stacklevel=2,
        )  # fmt: skip
    return not reason


@functools.cache
def why_not(index: int) -> str:
    """Return why the kernels cannot run on this GPU; '' if they can."""
    if not _core.has_cuda:
        return f"golfcore's kernels are built for the CPU only ({_core.cuda_reason})"
    reason: str = _core.device.why_not(index)
    return reason


@contextlib.contextmanager
def using(mode: str) -> Iterator[None]:
    """Switch every operation to ``native``, ``reference`` or ``simt`` inside the block."""
    global _mode
    if mode == "simt" and _simt is None:
        raise BuildError(
            "golfcore._simt, which runs the kernels for GPUs on the host, is no part of an installed golfcore; in a "
            "checkout `make simt` builds it"
        )
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


@contextlib.contextmanager
def recorded_by(tape: Any) -> Iterator[None]:
    """Tell ``tape`` (``ops.tape.Tape``) every native call and its memory inside the block."""
    global _recorder
    before, _recorder = _recorder, tape
    try:
        yield
    finally:
        _recorder = before


def mode() -> str:
    """Return what serves the operations: ``native``, ``reference`` or ``simt``."""
    return _mode


def set_schedule(seed: int, host_threads: int) -> None:
    """Set the order in which blocks, warps and lanes run in mode simt, and on how many of the host's threads."""
    _simt.set_schedule(seed, host_threads)


def on_device() -> frozenset[str]:
    """Return the operations that have kernels for GPUs."""
    return frozenset(_on_device)


def device_dtypes(op: str) -> tuple[torch.dtype, ...]:
    """Return the dtypes that the kernels of ``op`` for GPUs serve; empty if there are none."""
    return _on_device.get(op, ())


def leaves() -> dict[str, list[str]]:
    """Return the leaves of each operation, in order of definition."""
    return {op: list(names) for op, names in _leaves.items()}


def backends(device: torch.device | None = None) -> dict[str, str]:
    """Return what serves each operation, as ``{"activation": "native-avx512"}``; default device: the CPU.

    On a GPU it is what serves bf16, the dtype of activations there.
    """
    like = torch.empty(0, device=device)
    best = "simt" if _mode == "simt" else "native-cuda" if like.is_cuda else f"native-{_core.active_isa()}"
    like = like.bfloat16() if like.is_cuda else like
    return {op: best if native(op, like) else "reference" for op in _leaves}


def threads() -> int:
    """Return the number of threads for a native call: torch's own, at the time of the call."""
    return torch.get_num_threads()


def may_look(x: torch.Tensor) -> bool:
    """Return whether an operation may read numbers of ``x`` to check them: on a GPU that would wait for it.

    With GOLF_SYNC=1 every call waits anyway. While a tape records, nothing may be read.
    """
    return _recorder is None and (not x.is_cuda or _waits)


def core(x: torch.Tensor) -> Any:
    """Return the module with the native functions for tensors like ``x``."""
    if x.is_cuda:
        return _core.device
    return _simt if _mode == "simt" else _core


def call(x: torch.Tensor, function: str, *args: Any) -> None:
    """Call the native function where ``x`` lies: on torch's threads, or on the device's current stream."""
    if not x.is_cuda and _mode != "simt":
        work = functools.partial(getattr(_core, function), *args, torch.get_num_threads())
        work()
        if _recorder is not None:
            _recorder.add(work)
        return
    module = core(x)
    index, stream = (x.device.index, torch.cuda.current_stream(x.device).cuda_stream) if x.is_cuda else (0, 0)
    if _waits:
        try:  # what torch, or an operation on this stream before, has left
            module.synchronize(index, stream)
        except RuntimeError as error:
            raise _Earlier(str(error)) from error
    getattr(module, function)(*args, index, stream)
    if _waits:
        module.synchronize(index, stream)


def address(x: torch.Tensor | None) -> Address:
    """Return where the data starts; NULL for an absent tensor. In mode simt, kernels may then touch ``x``."""
    if x is None:
        return NULL
    if _recorder is not None:
        _recorder.keep(x)
    if _mode == "simt" and x.numel():
        last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
        _simt.map_buffer(x.data_ptr(), (last + 1) * x.element_size())
    return x.data_ptr()  # type: ignore[return-value]  # a call of Address() takes as long as data_ptr()
