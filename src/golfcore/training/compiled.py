"""Choose how to run a model's loss: eagerly, under torch.compile, or replayed as CUDA graphs.

A choice is tried on a batch of each of the run's shapes before the clock starts. If torch.compile fails on one rank, or
would fall into more than one graph, all ranks fall back to the eager loss, and the log says why. If CUDA graphs fail,
the run ends: a capture that broke off leaves torch's memory and random numbers in a state that no call undoes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from golfcore.config import TrainConfig
from golfcore.data.contracts import TokenBatch
from golfcore.data.segments import segment_bounds
from golfcore.errors import DeviceError
from golfcore.machine import one_line
from golfcore.model.interface import Batch, Context, LanguageModel
from golfcore.ranks.world import World
from golfcore.training.feed import batches_of

LossFunction = Callable[[Batch, Context], tuple[Tensor, dict[str, Tensor]]]
# Graphs of one function that torch keeps; with fewer than a run has shapes and phases, the last ones would be an error.
GRAPHS = 64


class Shape(NamedTuple):
    """A shape of micro-batches, and the phase of the model in which it comes."""

    rows: int
    seq_len: int
    phase: int = 0


def choose_loss(
    loss: LossFunction, module: LanguageModel, train: TrainConfig, shapes: Sequence[Shape], world: World
) -> tuple[LossFunction, str]:
    """Return ``loss`` as it is to be run in training, and a line for the log; gradients stay None.

    Args:
        loss: ``module.loss``, or another function of batch and context by which the weights are trained.
        module: the model on ``world.device``.
        train: ``compile`` and ``cuda_graphs``.
        shapes: the shapes of the run.
        world: the ranks, which decide together.

    Raises:
        DeviceError: CUDA graphs were asked for and failed, on any rank.
    """
    note = ""
    if train.cuda_graphs and world.device.type == "cuda":
        graphs = _Graphs(loss, module)
        if failure := _try(graphs, module, shapes, world):
            raise DeviceError(
                f"train.cuda_graphs = true: the loss cannot be captured ({failure}); set train.cuda_graphs = false"
            )
        return graphs, "CUDA graphs"
    if train.cuda_graphs:
        note = " (no CUDA graphs: the device is a CPU)"
    if not train.compile:
        return loss, f"eager{note}"
    compiled = _compiled(loss)
    failure = _try(compiled, module, shapes, world)
    return (loss, f"eager{note} (torch.compile failed: {failure})") if failure else (compiled, f"compiled{note}")


def _compiled(loss: LossFunction) -> LossFunction:
    """``loss`` as one graph for each shape and phase; more than one graph is an error.

    The number of documents changes from batch to batch and makes no graph of its own.
    """
    config: Any = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # before torch 2.7
    setattr(config, limit, max(GRAPHS, getattr(config, limit)))
    traced: LossFunction = torch.compile(loss, fullgraph=True, dynamic=False)

    def compiled(batch: Batch, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        if batch.bounds is not None:
            torch._dynamo.maybe_mark_dynamic(batch.bounds, 0)
        return traced(batch, context)

    return compiled


def _try(loss_fn: LossFunction, module: LanguageModel, shapes: Sequence[Shape], world: World) -> str:
    """Try a forward and backward pass on zeros of each shape; return why one failed on any rank, or an empty string."""
    failure, phase = "", module.phase
    try:
        for shape in shapes:
            module.phase = shape.phase
            loss, _ = loss_fn(_zeros(module, shape, world.device), Context(torch.zeros((), device=world.device)))
            loss.backward()  # type: ignore[no-untyped-call]
        if world.device.type == "cuda":
            torch.cuda.synchronize(world.device)
    except Exception as error:  # whatever a compiler raises: the run goes on without it
        failure = f"{type(error).__name__}: {one_line(error):.120}"
    finally:
        module.phase = phase
        module.zero_grad(set_to_none=True)
    failed = float(world.sum(torch.tensor(float(bool(failure)))))
    return failure or ("it failed on another rank" if failed else "")


def _zeros(module: LanguageModel, shape: Shape, device: torch.device) -> Batch:
    ids_BT, documents = np.zeros((shape.rows, shape.seq_len), dtype=np.uint16), module.documents()
    bounds = None if documents is None else segment_bounds(ids_BT, documents)
    return batches_of(TokenBatch(ids_BT, ids_BT, bounds), shape.rows, device)[0]


class _Graphs:
    """Forward and backward passes captured as CUDA graphs, one pair per batch shape and phase of the model."""

    def __init__(self, loss: LossFunction, module: LanguageModel) -> None:
        self._loss, self._module = loss, module
        self._captured: dict[tuple[Any, ...], Any] = {}

    def __call__(self, batch: Batch, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        # A replay writes gradients where the last one did, which ``grad`` may still be: what is there becomes its own.
        for parameter in self._module.parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad.clone()
        arguments = (batch.inputs_BT, batch.targets_BT, context.progress, *_of_few_lengths(batch.bounds))
        key = (self._module.phase, *(tensor.shape for tensor in arguments))
        if key not in self._captured:
            own = tuple(tensor.clone() for tensor in arguments)
            self._captured[key] = torch.cuda.make_graphed_callables(_TensorLoss(self._loss, self._module), own)
        loss, ce = self._captured[key](*arguments)
        return loss, {"ce": ce.detach()}


def _of_few_lengths(bounds: Tensor | None, least: int = 256) -> tuple[Tensor, ...]:
    """``bounds`` with the last one repeated up to a power of two, since each length is a capture with its memory."""
    if bounds is None:
        return ()
    length = max(least, 1 << (bounds.numel() - 1).bit_length())
    return (torch.cat((bounds, bounds[-1:].expand(length - bounds.numel()))),)


class _TensorLoss(nn.Module):
    """The loss as a function of tensors only, since a graph can replay nothing else."""

    def __init__(self, loss: LossFunction, module: LanguageModel) -> None:
        super().__init__()
        self.loss, self.module = loss, module  # a module's parameters are found through it

    def forward(
        self, inputs_BT: Tensor, targets_BT: Tensor, progress: Tensor, bounds: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        loss, parts = self.loss(Batch(inputs_BT, targets_BT, bounds), Context(progress))
        return loss, parts["ce"]
