"""A GPU that is not there: tensors without numbers on ``cuda``, kernels that are only described, and who waits for it.

``FakeGpu`` is the device as torch's fake tensors have it: every operation checks shapes, dtypes and devices and
computes nothing. Streams, events and pinned memory are stand-ins that write down their calls. What would make the
processor wait for the GPU is an AssertionError where the test asks for that: reading a number, and copies from memory
that the driver has to stage.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

from golfcore import _core
from golfcore.config import RecipeConfig
from golfcore.model import get_family
from golfcore.model.interface import LanguageModel
from golfcore.ops import registry
from golfcore.ranks.world import World

CUDA = torch.device("cuda", 0)


class FakeGpu(TorchDispatchMode):
    """One GPU; ``calls`` holds what streams and events were asked for, ``waits`` is an error where it is forbidden."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.may_wait = True
        self._pinned: set[int] = set()
        self._kept: list[torch.Tensor] = []  # so that an address in ``_pinned`` is of that tensor alone

    @contextlib.contextmanager
    def without_waiting(self) -> Iterator[None]:
        self.may_wait = False
        try:
            yield
        finally:
            self.may_wait = True

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self._pinned.add(id(tensor))
        self._kept.append(tensor)
        return tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [a for a in (*flat(args), *kwargs.values()) if isinstance(a, torch.Tensor)]
        if func.namespace == "golf":
            places = {t.device for t in given}
            assert len(places) == 1, f"{func} of tensors on {places}"
        if not self.may_wait:
            self._check(func, given, kwargs)
        return func(*args, **kwargs)

    def _check(self, func: Any, given: list[torch.Tensor], kwargs: Any) -> None:
        name = func.overloadpacket.__name__
        on_gpu = [t for t in given if t.is_cuda]
        assert not (name in ("_local_scalar_dense", "nonzero", "equal") and on_gpu), f"{name} waits for the GPU"
        if name == "copy_" and len({t.device.type for t in given}) > 1:
            raise AssertionError(f"copy_ between {[t.device.type for t in given]} waits for the GPU")
        if name != "_to_copy":
            return
        there = torch.device(kwargs.get("device") or given[0].device).type
        if there not in ("meta", given[0].device.type):  # C++ says meta where it means the device of its argument
            assert kwargs.get("non_blocking"), "a copy that blocks"
            assert id(given[0]) in self._pinned, "a copy from memory that is not pinned"


def flat(arguments: Any) -> Iterator[Any]:
    for a in arguments:
        if isinstance(a, list | tuple):
            yield from flat(a)
        else:
            yield a


class Event:
    """An event of a stream: ``synchronize`` waits for the step that it ends."""

    made = 0

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu, Event.made = gpu, Event.made + 1
        self.number = Event.made

    def record(self, stream: Any = None) -> None:
        self.gpu.calls.append(f"end {self.number}")

    def synchronize(self) -> None:
        self.gpu.calls.append(f"wait {self.number}")

    def elapsed_time(self, other: Event) -> float:
        return float(other.number - self.number)


class Stream:
    def __init__(self, gpu: FakeGpu, name: str) -> None:
        self.gpu, self.name = gpu, name

    def wait_stream(self, other: Stream) -> None:
        self.gpu.calls.append(f"{self.name} after {other.name}")


@contextlib.contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch, *, watched: bool = True) -> Iterator[FakeGpu]:
    """A block in which ``cuda`` is a fake GPU with golfcore's kernels; torch.compile works where nobody watches."""
    gpu = FakeGpu()
    device: Any = types.ModuleType("golfcore._core.device")
    device.norm_max_width, device.embed_max_smear, device.head_max_vocab = 16384, 64, 1 << 30
    device.why_not = lambda index: "" if _core.active_isa() else "never"  # calls C++, as the real one does
    monkeypatch.setattr(_core, "has_cuda", True)
    monkeypatch.setattr(_core, "device", device, raising=False)
    main, Event.made = Stream(gpu, "main"), 0

    @contextlib.contextmanager
    def inside(stream: Stream) -> Iterator[None]:
        gpu.calls.append(f"on {stream.name}")
        yield

    for name, stand_in in {
        "Stream": lambda device=None: Stream(gpu, "side"), "Event": lambda enable_timing=False: Event(gpu),
        "stream": inside,
        "current_stream": lambda device=None: main,
        "synchronize": lambda device=None: gpu.calls.append("wait for all"), "set_device": lambda device: None,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: gpu.pin(tensor))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    _let_python_alone_see_the_device(monkeypatch)
    registry._told_once.cache_clear()
    registry.why_not.cache_clear()
    try:
        with (
            FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()),
            gpu if watched else contextlib.nullcontext(),
        ):
            yield gpu
    finally:
        registry._told_once.cache_clear()
        registry.why_not.cache_clear()


def _let_python_alone_see_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the device ``cuda`` of fake tensors from torch's C++, whose autograd has no such device in a build for CPUs.

    It sees them on ``meta``, where their memory is not, and what it makes beside them there counts as on the GPU.
    Devices are compared in Python, by the fake mode and here.
    """
    make, new = torch.Tensor._make_subclass, FakeTensor.__new__

    def on_meta(cls: Any, data: torch.Tensor, require_grad: bool = False, **options: Any) -> Any:
        return make(cls, data, require_grad, **{**options, "dispatch_device": False})

    def on_cuda(cls: Any, mode: Any, data: torch.Tensor, device: torch.device, *rest: Any, **options: Any) -> Any:
        return new(cls, mode, data, CUDA if device.type == "meta" else device, *rest, **options)

    monkeypatch.setattr(torch.Tensor, "_make_subclass", staticmethod(on_meta))
    monkeypatch.setattr(FakeTensor, "__new__", staticmethod(on_cuda))
    monkeypatch.setattr(FakeTensor, "is_cuda", property(lambda self: self.device.type == "cuda"), raising=False)


def model_on_gpu(recipe: RecipeConfig, vocab_size: int) -> LanguageModel:
    """The model of a recipe as it trains on the fake GPU, in bf16; torch cannot move parameters that are fake."""
    module = get_family(recipe.model_family).build(recipe.model, vocab_size, 0)
    module.activation_dtype = torch.bfloat16
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            setattr(part, name, torch.nn.Parameter(parameter.detach().to(CUDA)))
    return module


class FakeWorld(World):
    """A rank of a world whose other ranks never answer: collectives return at once, on the device that they ran on."""

    def all_reduce(self, buffer: torch.Tensor) -> Any:
        assert buffer.is_cuda
        return lambda: None

    def reduce_scatter(self, own: torch.Tensor, pieces: torch.Tensor) -> Any:
        assert own.is_cuda and pieces.is_cuda
        return lambda: None

    def all_gather(self, all_: torch.Tensor, own: torch.Tensor) -> Any:
        assert own.is_cuda and all_.is_cuda
        return lambda: None

    def from_primary(self, *values: float) -> tuple[float, ...]:
        with unset_fake_temporarily():  # its numbers are real
            return super().from_primary(*values)

    def barrier(self) -> None:
        pass
