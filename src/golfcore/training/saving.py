"""Save the state of a training in checkpoints when they are due, and resume from one."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any, Protocol

import torch
from torch import Tensor

from golfcore.data.contracts import Documents, TokenBatch
from golfcore.errors import InputError, MachineError
from golfcore.hints import command
from golfcore.model.interface import LanguageModel
from golfcore.optim.optimizers import Optimizers
from golfcore.paths import disk_is_full
from golfcore.run_folder import CHECKPOINT, PREVIOUS_CHECKPOINT
from golfcore.training.checkpoint import CheckpointWriter, save_checkpoint
from golfcore.training.next_step import begin_again, next_step
from golfcore.training.runlog import RunLog

RETRY_S = 5.0  # between two tries to write the last checkpoint
ROOM_S, LAST_ROOM_S = 60.0, 600.0  # for making room, where the weights are kept elsewhere and where they are not


class BatchLoader(Protocol):
    """The interface of a loader: it gives this rank's share of each step, in any shape, and a position to save."""

    def __next__(self) -> TokenBatch: ...

    def peek(self) -> TokenBatch: ...

    def reshape(self, batch_tokens: int, seq_len: int, documents: Documents | None = None) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass
class TrainState:
    """The progress of a run: all of its state that is not in tensors."""

    step: int = 0
    train_s: float = 0.0  # the clock
    tokens: int = 0
    averaged: int = 0  # weights that have joined the average
    saved_at: float = field(default_factory=time.monotonic)


class Saver:
    """The checkpoints of one training.

    Args:
        module, optimizers, loader: their states make up a checkpoint.
        log: gets warnings, and names the folder.
        every_s: seconds from one checkpoint to the next; 0 for the last checkpoint only.
        data: hashes that identify the data, which every checkpoint carries.
        writes: whether this rank writes the files.
    """

    def __init__(
        self, module: LanguageModel, optimizers: Optimizers, loader: BatchLoader, log: RunLog, every_s: float,
        data: Mapping[str, str], *, writes: bool,
    ) -> None:  # fmt: skip
        self.module, self.optimizers, self.loader, self.log, self.every_s = module, optimizers, loader, log, every_s
        self.data = dict(data)
        self.writer = CheckpointWriter(log.run_dir) if writes else None

    def tensors(self) -> dict[str, Any]:
        """Return the state of module, optimizers and loader; nothing is copied."""
        return {
            "module": self.module.state_dict(),
            "optimizers": self.optimizers.state_dict(),
            "loader": self.loader.state_dict(),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Restore a state that ``tensors`` returned."""
        self.module.load_state_dict(saved["module"])
        self.optimizers.load_state_dict(saved["optimizers"])
        self.loader.load_state_dict(saved["loader"])

    def is_due(self, state: TrainState, recent_s: Iterable[float]) -> bool:
        """Return whether to begin a checkpoint now, so that it is on the disk just before ``every_s`` are over.

        Args:
            state: the progress of the run.
            recent_s: seconds that each of the last steps took.
        """
        if self.writer is None or not self.every_s or not state.step or self.writer.busy:
            return False
        self._tell_failure()
        ahead_s = min(self.every_s / 2, self.writer.lag_s + 2 * max(recent_s, default=0.0))
        return time.monotonic() - state.saved_at >= self.every_s - ahead_s

    def save(self, state: TrainState, choices: Mapping[str, Any], *, final: bool) -> None:
        """Begin to write a checkpoint; with ``final`` it is on the disk when this returns.

        Its ``weights`` are those to keep: the average, if there is one.

        Raises:
            InputError: a weight is not finite (the last checkpoint stays).
            MachineError: with ``final``, the disk stays full; the message says where the weights are.
        """
        tensors = self.tensors()  # every rank takes part: banks are gathered
        state.saved_at = time.monotonic()
        if self.writer is None:
            return
        averages = self.optimizers.averages if state.averaged and not final else {}
        weights = tensors["module"] | averages
        if not all(bool(torch.isfinite(w).all()) for w in weights.values()):
            raise InputError(f"after step {state.step} {odd_tensor(self.optimizers)}; {way_back(self.log.run_dir)}")
        checkpoint = {
            **tensors, "weights": weights, "final": final, "choices": dict(choices), "data": self.data,
            "step": state.step, "train_s": state.train_s, "tokens": state.tokens, "averaged": state.averaged,
        }  # fmt: skip
        if final:
            self.wait()
            save_at_last(self.log, checkpoint)
        else:
            self.writer.submit(checkpoint)

    def wait(self) -> None:
        """Wait until nothing is being written."""
        if self.writer is not None:
            self.writer.wait()
            self._tell_failure()

    def _tell_failure(self) -> None:
        if self.writer is not None and (failure := self.writer.failure()):
            self.log.warn(f"no checkpoint was written: {failure}; training goes on")

    def resume(self, saved: Mapping[str, Any]) -> TrainState:
        """Restore a checkpoint and return the progress of its run.

        Raises:
            InputError: the checkpoint belongs to a run that had ended, or to another model.
        """
        if saved["final"]:
            raise InputError(
                f"the training in {self.log.run_dir} has ended after {saved['step']} steps; "
                f"{next_step(self.log.run_dir)}"
            )
        self._require_same_model(saved["module"])
        self.restore(saved)
        return TrainState(saved["step"], saved["train_s"], saved["tokens"], saved["averaged"])

    def _require_same_model(self, saved: Mapping[str, Tensor]) -> None:
        own = {name: tuple(tensor.shape) for name, tensor in self.module.state_dict().items()}
        theirs = {name: tuple(tensor.shape) for name, tensor in saved.items()}
        for name in sorted(own.keys() | theirs.keys()):
            if own.get(name) != theirs.get(name):
                raise InputError(
                    f"the checkpoint in {self.log.run_dir} is of another model: {name} is "
                    f"{theirs.get(name, 'absent')} there and {own.get(name, 'absent')} in this run's; resume with the "
                    "config that it was trained with"
                )


def save_at_last(log: RunLog, checkpoint: dict[str, Any]) -> None:
    """Write a run's last checkpoint, however full the disk is: it is all that the training leaves.

    The checkpoint before the last is given up for room. If that does not do, the weights go to the folder for temporary
    files, and for ``ROOM_S`` seconds there is time to make room; after that the run ends.

    Raises:
        MachineError: there was no room; the message says where the weights are.
    """
    run_dir = log.run_dir
    try:
        save_checkpoint(run_dir, checkpoint)
        return
    except InputError as error:
        why, cause = str(error), error.__cause__
    if isinstance(cause, OSError) and disk_is_full(cause):
        with contextlib.suppress(InputError, OSError):
            (run_dir / PREVIOUS_CHECKPOINT).unlink()
            save_checkpoint(run_dir, checkpoint)
            log.warn(f"{why}; {PREVIOUS_CHECKPOINT} was removed to make room, and the last checkpoint is written")
            return
    refuge = _refuge(run_dir, checkpoint)
    wait_s = ROOM_S if refuge else LAST_ROOM_S
    if isinstance(cause, OSError) and cause.errno == errno.EFBIG:  # a limit of this process, which nobody can raise
        wait_s = 0.0
    kept = f"the trained weights are in {refuge}" if refuge else "the trained weights are in memory alone"
    log.warn(f"{why}; {kept}; make room within {wait_s:.0f} s and the run goes on")
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        time.sleep(min(RETRY_S, max(0.0, until - time.monotonic())))
        with contextlib.suppress(InputError):
            save_checkpoint(run_dir, checkpoint)
            log.line("note: there is room again; the last checkpoint is written")
            if refuge:
                shutil.rmtree(refuge.parent, ignore_errors=True)
            return
    if refuge is None:
        raise MachineError(f"{why}; there was no room for the trained weights anywhere, and they are lost")
    back = f"mv {quote(str(refuge))} {quote(str(run_dir / CHECKPOINT))}"
    resume = command("run", "--resume", run_dir)
    raise MachineError(f"{why}; {kept}: make room, then go on with: {back} && {resume}")


def _refuge(run_dir: Path, checkpoint: dict[str, Any]) -> Path | None:
    """Write a checkpoint into a new folder for temporary files; return its path, or None if there is no room either."""
    folder: Path | None = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"golfcore-{run_dir.resolve().name}-"))
        return save_checkpoint(folder, checkpoint)
    except (InputError, OSError):
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        return None


def odd_tensor(optimizers: Optimizers) -> str:
    """Return the name of the first parameter or gradient that is not finite."""
    for what, tensors in (
        ("parameter", optimizers.parameters),
        ("gradient of", {n: p.grad for n, p in optimizers.parameters.items()}),
    ):
        for name, tensor in tensors.items():
            if tensor is not None and not torch.isfinite(tensor).all():
                return f"{what} {name} is not finite"
    return "every parameter and gradient is finite, so it arose in the forward pass"


def way_back(run_dir: Path) -> str:
    """Return advice for a run whose loss is not finite."""
    saved = run_dir / CHECKPOINT
    kept = f"the last good checkpoint stays in {saved}; " if saved.exists() else ""
    clipped = command(*begin_again(run_dir), "--set", "optim.grad_clip_norm=1.0")
    return f"{kept}lower optim.matrix_lr and the other rates, or clip the gradients: {clipped}"
