"""Choose how to run a model's loss: eagerly, under torch.compile, or replayed as CUDA graphs.

A choice is tried on a batch of the run's shape before the clock starts. If it fails on one rank, all ranks fall back to
the eager loss, and the log says why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from golfcore.config import TrainConfig
from golfcore.model.interface import Batch, Context, LanguageModel
from golfcore.ranks.world import World

LossFunction = Callable[[Batch, Context], tuple[Tensor, dict[str, Tensor]]]


def choose_loss(
    loss: LossFunction, module: LanguageModel, train: TrainConfig, rows: int, seq_len: int, world: World
) -> tuple[LossFunction, str]:
    """Return ``loss`` as it is to be run in training, and a line for the log; gradients stay None.

    Args:
        loss: ``module.loss``, or another function of batch and context by which the weights are trained.
        module: the model on ``world.device``.
        train: ``compile`` and ``cuda_graphs``.
        rows, seq_len: shape of a batch.
        world: the ranks, which decide together.
    """
    if train.cuda_graphs and world.device.type != "cuda":
        return _compiled(
            loss, module, rows, seq_len, world, " (no CUDA graphs: the device is a CPU)", wanted=train.compile
        )
    if train.cuda_graphs:
        graphs = _Graphs(loss, module)
        failure = _try(graphs, module, rows, seq_len, world)
        return (loss, f"eager (CUDA graphs failed: {failure})") if failure else (graphs, "CUDA graphs")
    return _compiled(loss, module, rows, seq_len, world, "", wanted=train.compile)


def _compiled(
    loss: LossFunction, module: LanguageModel, rows: int, seq_len: int, world: World, note: str, *, wanted: bool
) -> tuple[LossFunction, str]:
    if not wanted:
        return loss, f"eager{note}"
    compiled: LossFunction = torch.compile(loss)
    failure = _try(compiled, module, rows, seq_len, world)
    return (loss, f"eager{note} (torch.compile failed: {failure})") if failure else (compiled, f"compiled{note}")


def _try(loss_fn: LossFunction, module: LanguageModel, rows: int, seq_len: int, world: World) -> str:
    """Try a forward and backward pass on zeros; return why it failed on any rank, or an empty string."""
    ids_BT = torch.zeros(rows, seq_len, dtype=torch.int64, device=world.device)
    failure = ""
    try:
        loss, _ = loss_fn(Batch(ids_BT, ids_BT.clone()), Context(torch.zeros((), device=world.device)))
        loss.backward()  # type: ignore[no-untyped-call]
        if world.device.type == "cuda":
            torch.cuda.synchronize(world.device)
    except Exception as error:  # whatever a compiler raises: the run goes on without it
        failure = f"{type(error).__name__}: {str(error).strip().splitlines()[0]:.120}"
    finally:
        module.zero_grad(set_to_none=True)
    failed = float(world.sum(torch.tensor(float(bool(failure)))))
    return failure or ("it failed on another rank" if failed else "")


class _Graphs:
    """Forward and backward passes captured as CUDA graphs, one pair per batch shape and phase of the model."""

    def __init__(self, loss: LossFunction, module: LanguageModel) -> None:
        self._loss, self._module = loss, module
        self._captured: dict[tuple[Any, ...], Any] = {}

    def __call__(self, batch: Batch, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        key = (batch.inputs_BT.shape, self._module.phase)
        if key not in self._captured:
            arguments = (batch.inputs_BT.clone(), batch.targets_BT.clone(), context.progress.clone())
            self._captured[key] = torch.cuda.make_graphed_callables(_TensorLoss(self._loss, self._module), arguments)
        loss, ce = self._captured[key](batch.inputs_BT, batch.targets_BT, context.progress)
        return loss, {"ce": ce.detach()}


class _TensorLoss(nn.Module):
    """The loss as a function of tensors only, since a graph can replay nothing else."""

    def __init__(self, loss: LossFunction, module: LanguageModel) -> None:
        super().__init__()
        self.loss, self.module = loss, module  # a module's parameters are found through it

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor, progress: Tensor) -> tuple[Tensor, Tensor]:
        loss, parts = self.loss(Batch(inputs_BT, targets_BT), Context(progress))
        return loss, parts["ce"]
