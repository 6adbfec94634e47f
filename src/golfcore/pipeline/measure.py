"""Time a training step on this machine: run the real trainer on random tokens for some seconds."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from golfcore.config import RecipeConfig
from golfcore.data.contracts import Documents, TokenBatch
from golfcore.data.segments import segment_bounds
from golfcore.machine import cpu_model, peak_resident_bytes
from golfcore.model import get_family
from golfcore.ops.memory import keep_freed_memory
from golfcore.optim.schedule import stage_at
from golfcore.pipeline.setup import build_trainer
from golfcore.ranks.world import World
from golfcore.training.precision import choose_precision
from golfcore.training.runlog import RunLog

SKIPPED = 2  # first steps that are not counted: they allocate
AT_LEAST = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of a training step in the run's first stage, on one process of this machine.

    Attributes:
        device: name of the processor or GPU.
        ms: milliseconds per whole step.
        tokens: tokens per step that was run; fewer than the recipe's if a whole step would take too long.
        steps: number of steps that were timed.
        peak_flops: operations per second of plain products of 1,024 x 1,024 matrices, in the activations' dtype.
        memory_bytes: peak memory of the GPU, or of the process without one.
        precision: dtype of the activations.
    """

    device: str
    ms: float
    tokens: int
    steps: int
    peak_flops: float
    memory_bytes: int
    precision: str


class RandomTokens:
    """A loader of uniformly random tokens, since the time of a step does not depend on their values.

    Each of ``ranks`` gets its share of the rows.
    """

    def __init__(self, vocab_size: int, batch_tokens: int, seq_len: int, ranks: int = 1) -> None:
        self.vocab_size, self._ranks = vocab_size, ranks
        self.reshape(batch_tokens, seq_len)

    def reshape(self, batch_tokens: int, seq_len: int, documents: Documents | None = None) -> None:
        """Set the size of the batches from here on."""
        rng = np.random.default_rng(0)
        rows = batch_tokens // seq_len // self._ranks
        ids_BT = rng.integers(0, self.vocab_size, (rows, seq_len + 1), dtype=np.uint16)
        inputs_BT, targets_BT = np.ascontiguousarray(ids_BT[:, :-1]), np.ascontiguousarray(ids_BT[:, 1:])
        bounds = None if documents is None else segment_bounds(inputs_BT, documents)
        self._batch = TokenBatch(inputs_BT, targets_BT, bounds)

    def __next__(self) -> TokenBatch:
        return self._batch

    def peek(self) -> TokenBatch:
        return self._batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return


class _Enough(Exception):
    """Raised to end a training that has been timed for long enough."""


class _StepTimes(RunLog):
    """A log that writes nothing and keeps each step's milliseconds; raises when it has seen enough."""

    def __init__(self) -> None:
        super().__init__(Path(), primary=False)
        self.times: list[float] = []
        self._until = math.inf

    def end_after(self, seconds: float) -> None:
        """Begin to count the seconds; choices measured before the first step are not part of its time."""
        self._until = time.monotonic() + seconds

    def train(
        self, step: int, total: int, *, loss: float, train_s: float, tokens: int, lr_mult: float, step_ms: float
    ) -> None:
        self.times.append(step_ms)
        if len(self.times) >= SKIPPED + AT_LEAST and time.monotonic() > self._until:
            raise _Enough


def measure_step(recipe: RecipeConfig, vocab_size: int, seconds: float) -> Measured:
    """Time the first stage of ``recipe`` on this machine's first device for about ``seconds``.

    If a whole step would take longer, steps of two smaller sizes are timed, and the line through both times predicts
    the time of a whole step. torch.compile is left off on a CPU, where compiling would take longer than measuring.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_freed_memory()  # as a run does: without it the steps here took a seventh longer than a run's
    dtype, _ = choose_precision(recipe.train.precision, device)
    peak = product_flops(dtype, device)
    works = get_family(recipe.model_family).work(recipe.model, vocab_size, recipe.train.seq_len)
    first = stage_at(0.0, recipe.train, [work.start for work in works][1:])
    batch, seq_len = first.batch_tokens, first.seq_len
    flops = batch * get_family(recipe.model_family).work(recipe.model, vocab_size, seq_len)[first.phase].flops
    expected_s = flops / (0.3 * peak)  # of a whole step, were it to run at a third of plain products
    whole = expected_s * (SKIPPED + AT_LEAST) <= 2 * seconds
    if whole:
        sizes = [batch]
    else:
        rows = max(1, int(batch // seq_len * seconds / (3 * (SKIPPED + AT_LEAST) * expected_s)))
        sizes = [rows * seq_len, 2 * rows * seq_len]
    runs = [_step_times(recipe, vocab_size, size, seq_len, device, seconds / len(sizes)) for size in sizes]
    times = [statistics.median(run) for run in runs]
    ms = times[0] if whole else times[0] + (times[1] - times[0]) * (batch - sizes[0]) / (sizes[1] - sizes[0])
    return Measured(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cpu_model()}, CPU",
        ms=ms, tokens=sizes[-1], steps=sum(map(len, runs)), peak_flops=peak, memory_bytes=peak_memory_bytes(device),
        precision=str(dtype).removeprefix("torch."),
    )  # fmt: skip


def _step_times(
    recipe: RecipeConfig, vocab_size: int, batch: int, seq_len: int, device: torch.device, seconds: float
) -> list[float]:
    train = dataclasses.replace(
        recipe.train, batch_tokens=batch, seq_len=seq_len, batch_ramp=(), batch_ramp_until=(), seq_ramp=(),
        seq_ramp_until=(), iterations=10**9, log_every=1, val_every=0, checkpoint_every_s=0.0,
        compile=recipe.train.compile and device.type == "cuda", require_gpu=False,
    )  # fmt: skip
    timed = dataclasses.replace(recipe, train=train, track=dataclasses.replace(recipe.track, train_s=0.0))
    log = _StepTimes()
    loader = RandomTokens(vocab_size, batch, seq_len)
    with build_trainer(timed, vocab_size, loader, World(rank=0, size=1, device=device), log) as trainer:
        log.end_after(seconds)
        with contextlib.suppress(_Enough):
            trainer.run()
    return log.times[SKIPPED:]


def product_flops(dtype: torch.dtype, device: torch.device) -> float:
    """Measure the operations per second of plain products of 1,024 x 1,024 matrices of normal numbers."""
    generator = torch.Generator(device).manual_seed(0)
    a = torch.randn(1024, 1024, dtype=dtype, device=device, generator=generator)

    def once() -> float:
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    return 2 * 1024.0**3 / min(once() for _ in range(10))


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most bytes that torch has held on a GPU, or this process without one."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_resident_bytes()
