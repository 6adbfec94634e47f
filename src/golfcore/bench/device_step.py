"""Time whole training steps of a recipe on one device: ``golfcore bench train_step --recipe R``.

The steps are the run's own: its trainer, its choice of attention, its compiler or CUDA graphs, its optimizers, on one
GPU's share of the batch and on documents of the usual lengths. Two things differ: weights stay as they are, so that
every step does the same work, and with one rank no gradient is reduced and all matrices are orthogonalized here.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golfcore.bench.segments import DOCUMENT_SPREAD, DOCUMENT_TOKENS
from golfcore.config import RecipeConfig
from golfcore.data.contracts import Documents, TokenBatch
from golfcore.data.segments import segment_bounds
from golfcore.optim.schedule import Stage
from golfcore.paths import atomic_write
from golfcore.pipeline.measure import RandomTokens, peak_memory_bytes
from golfcore.pipeline.setup import build_trainer
from golfcore.ranks.world import World
from golfcore.training.runlog import KeptLog
from golfcore.training.trainer import Trainer

GPUS = 8  # that share a step of the recipe; one of their shares is timed
CPU_TOKENS = 512  # of a step on a processor, where a GPU's share would take minutes
WARM, TIMED = 3, 10  # steps before the timed ones, and timed ones of either kind


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """The times of a step in one phase of a recipe, medians in milliseconds.

    Attributes:
        recipe, device, phase: what was timed where.
        layers: layers run, if the model says so, else 0.
        tokens: tokens of a step.
        how: how the loss is computed: compiled, eager and why, or CUDA graphs.
        attention: the kernels that serve attention.
        forward_ms, backward_ms, update_ms: parts of a step that begins on a device at rest.
        queued_ms: the host's time for such a step; of more than the sum of the parts the host is the limit.
        step_ms: a step among others, the host being as far ahead as in a run.
        peak_bytes: most memory of the GPU, or of this process without one.
    """

    recipe: str
    device: str
    phase: int
    layers: int
    tokens: int
    how: str
    attention: str
    forward_ms: float
    backward_ms: float
    update_ms: float
    queued_ms: float
    step_ms: float
    peak_bytes: int


class RandomDocuments(RandomTokens):
    """Random tokens in documents of log-normal lengths, where the model keeps documents apart."""

    def reshape(self, batch_tokens: int, seq_len: int, documents: Documents | None = None) -> None:
        super().reshape(batch_tokens, seq_len)
        if documents is None:
            return
        rng = np.random.default_rng(1)
        mean = np.log(DOCUMENT_TOKENS) - DOCUMENT_SPREAD**2 / 2
        lengths = np.ceil(rng.lognormal(mean, DOCUMENT_SPREAD, batch_tokens)).astype(np.int64)
        inputs_BT, targets_BT, _ = self._batch
        inputs_BT[inputs_BT == documents.bos] = documents.bos + 1 if documents.bos + 1 < self.vocab_size else 0
        starts = np.cumsum(lengths) - lengths
        inputs_BT.reshape(-1)[starts[starts < batch_tokens]] = documents.bos
        self._batch = TokenBatch(inputs_BT, targets_BT, segment_bounds(inputs_BT, documents))


def share_of(
    recipe: RecipeConfig, device: torch.device, *, compile: bool | None = None, cuda_graphs: bool | None = None
) -> RecipeConfig:
    """Return ``recipe`` as one rank of its GPUs trains it: its share of the batch, cut to a few tokens on a processor.

    Args:
        recipe: the recipe.
        device: the device of the steps.
        compile: in place of ``train.compile``; None keeps it, but compiles nothing on a processor.
        cuda_graphs: in place of ``train.cuda_graphs``; None keeps it.
    """
    train, on_gpu = recipe.train, device.type == "cuda"
    tokens = train.batch_tokens // GPUS if on_gpu else min(CPU_TOKENS, train.batch_tokens)
    length = min(train.seq_len, tokens)
    share = dataclasses.replace(
        train, batch_tokens=tokens // length * length, seq_len=length, iterations=10**9, batch_ramp=(),
        batch_ramp_until=(), seq_ramp=(), seq_ramp_until=(), val_every=0, checkpoint_every_s=0.0,
        compile=(train.compile and on_gpu) if compile is None else compile,
        cuda_graphs=train.cuda_graphs if cuda_graphs is None else cuda_graphs,
        require_gpu=train.require_gpu and on_gpu,
    )  # fmt: skip
    return dataclasses.replace(recipe, track=dataclasses.replace(recipe.track, train_s=0.0), train=share)


def measure_steps(
    recipe: RecipeConfig, device: torch.device, *, compile: bool | None = None, cuda_graphs: bool | None = None,
    trace: Path | None = None,
) -> list[StepTimes]:  # fmt: skip
    """Time the steps of ``recipe`` in each of its phases.

    Args:
        recipe: the recipe, of any family.
        device: the device; a GPU becomes the current device of this process.
        compile, cuda_graphs: in place of the recipe's keys, as ``share_of`` takes them.
        trace: file for torch's profile of one more step of the last phase, in Chrome's format.

    Raises:
        DeviceError: CUDA graphs were asked for and cannot be captured.
        UsageError: kernels for GPUs cannot serve a recipe that requires them.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    cut, log = share_of(recipe, device, compile=compile, cuda_graphs=cuda_graphs), KeptLog()
    vocab_size, world = cut.data.vocab_size, World(rank=0, size=1, device=device)
    loader = RandomDocuments(vocab_size, cut.train.batch_tokens, cut.train.seq_len)
    with build_trainer(cut, vocab_size, loader, world, log) as trainer:
        trainer.module.train()
        found = [times_of(trainer, log, stage) for stage in trainer.stages]
        if trace is not None:
            _profile(trainer, trace)
    return found


def times_of(trainer: Trainer, log: KeptLog, stage: Stage) -> StepTimes:
    """Time steps of ``trainer`` in a stage of its run; ``log`` is its log."""
    trainer.set_stage(stage)
    for _ in range(WARM):
        _step(trainer)
    parts = [_parts(trainer) for _ in range(TIMED)]
    forward, backward, update, queued = (statistics.median(times) for times in zip(*parts, strict=True))
    trainer.ahead.finish()
    started = time.perf_counter()
    for _ in range(TIMED):
        _step(trainer)
        trainer.ahead.note_step()
    trainer.ahead.finish()
    free_ms = 1e3 * (time.perf_counter() - started) / TIMED
    orders = getattr(trainer.module, "orders", None)
    return StepTimes(
        recipe=trainer.recipe.name, device=str(trainer.world.device), phase=stage.phase,
        layers=len(orders[stage.phase]) if orders else 0, tokens=stage.batch_tokens, how=log.value("loss"),
        attention=log.value("attention"), forward_ms=forward, backward_ms=backward, update_ms=update, queued_ms=queued,
        step_ms=free_ms, peak_bytes=peak_memory_bytes(trainer.world.device),
    )  # fmt: skip


def _step(trainer: Trainer) -> None:
    trainer.backward()
    trainer.update(0.0, 0.0)


class _Marks:
    """Moments on the clock of a device: events of its stream, or the host's time."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"

    def now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between_ms(self, start: Any, end: Any) -> float:
        """Return the milliseconds between two marks; the device has to be at rest."""
        return float(start.elapsed_time(end)) if self._on_gpu else 1e3 * (end - start)


def _parts(trainer: Trainer) -> tuple[float, float, float, float]:
    """Return the milliseconds of a step's forward passes, backward passes and update, and of the host for all."""
    marks, passes = _Marks(trainer.world.device), []

    def watched(loss_fn: Any) -> Any:
        def loss(*arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
            start = marks.now()
            result: tuple[Tensor, dict[str, Tensor]] = loss_fn(*arguments)
            passes.append((start, marks.now()))
            return result

        return loss

    trainer.ahead.finish()
    genuine, trainer.loss_fn = trainer.loss_fn, watched(trainer.loss_fn)
    try:
        begun, start = time.perf_counter(), marks.now()
        trainer.backward()
        middle = marks.now()
        trainer.update(0.0, 0.0)
        end, queued_ms = marks.now(), 1e3 * (time.perf_counter() - begun)
    finally:
        trainer.loss_fn = genuine
    trainer.ahead.finish()
    forward = sum(marks.between_ms(*pair) for pair in passes)
    return forward, marks.between_ms(start, middle) - forward, marks.between_ms(middle, end), queued_ms


def _profile(trainer: Trainer, path: Path) -> None:
    """Write torch's profile of one step, which a browser shows at chrome://tracing or ui.perfetto.dev."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if trainer.world.device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        _step(trainer)
        trainer.ahead.finish()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(file))
        with atomic_write(path) as f:
            f.write(file.read_bytes())
