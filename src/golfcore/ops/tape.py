"""Record what a computation does to its tensors, and do it again without the Python around it.

A pass of one token through a small model is hundreds of short calls, and Python's checks and views between them take
longer than the work. A tape keeps the calls alone: native functions with the addresses that they got, and torch's own
operations with their tensors. It is replayed on the same memory, as a CUDA graph is: inputs are copied into the tensors
that the recorded pass read, and results lie where it left them.

Recorded are the CPU's native functions (``registry.call``), which know memory only through ``registry.address``, and
every operation that torch dispatches. What Python decided is decided for good, so reading a number of a tensor is an
error while a tape runs.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from golfcore.errors import InputError
from golfcore.ops import registry

_ONE_AT_A_TIME = threading.Lock()


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A recording, made inside ``with tape.recording():`` and repeated by ``tape.replay()``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._steps: list[Callable[[], object]] = []
        self._kept: list[object] = []  # tensors whose memory the steps use
        self._paused, self._thread = False, 0  # other threads compute meanwhile, and are not recorded

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what is computed inside the block, on this thread and without gradients."""
        with _ONE_AT_A_TIME, registry.recorded_by(self), self:
            self._thread = threading.get_ident()
            yield

    def keep(self, x: object) -> None:
        """Keep a tensor, so that its memory is given to no other while the tape lives."""
        if threading.get_ident() == self._thread:
            self._kept.append(x)

    def add(self, step: Callable[[], object]) -> None:
        """Add a step that repeats what was just computed."""
        if not self._paused and threading.get_ident() == self._thread:
            self._steps.append(step)

    def by_hand(self, function: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Call ``function`` now and at each replay, where it may decide anew; its result keeps its place and shape."""
        self._paused = True
        try:
            result = function()
        finally:
            self._paused = False
        self.add(lambda: result.copy_(function()))
        return result

    def replay(self) -> None:
        """Repeat the recorded computation."""
        for step in self._steps:
            step()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if self._paused:
            return found
        results = tree_leaves(found)
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        self.keep((inputs, results))
        if func._schema.is_mutable:
            self.add(partial(func, *args, **kwargs))
        elif not all(isinstance(x, torch.Tensor) for x in results):
            raise InputError(f"a tape cannot hold {func}: what Python reads of a tensor may differ the next time")
        elif not _is_memory_alone(func, inputs, results):
            self.add(_again(func, args, kwargs, results))
        return found


def _is_memory_alone(func: Any, inputs: list[torch.Tensor], results: list[torch.Tensor]) -> bool:
    """Return whether an operation computes nothing: views of its inputs, or new memory without content."""
    if "empty" in func.__name__:
        return True
    own = {x.untyped_storage().data_ptr() for x in inputs}
    return all(x.untyped_storage().data_ptr() in own for x in results)


def _again(func: Any, args: Any, kwargs: Any, results: list[torch.Tensor]) -> Callable[[], object]:
    """Return what computes ``results`` again in their place: the operation's form with ``out``, if it has one."""
    for name in (f"{func._overloadname}_out", "out"):
        if name in func.overloadpacket.overloads() and len(results) == 1:
            step = partial(getattr(func.overloadpacket, name), *args, **kwargs, out=results[0])
            with contextlib.suppress(RuntimeError, TypeError):  # it takes other arguments
                step()
                return step
    return lambda: [old.copy_(new) for old, new in zip(results, tree_leaves(func(*args, **kwargs)), strict=True)]
