"""Run the queue of a sweep to its end, also after an earlier process of the sweep died.

The order is always: the journal says that a job runs, then its process is made; its process leaves a score, then the
journal says that it is done. So after a kill at any point the journal may lack the last event, and the score in the run
folder and the job's lock (``worker``) supply it. A job is started again only if no process has its lock and its folder
holds no score.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from golfcore.config import RecipeConfig
from golfcore.errors import FormatError, InputError, MachineError
from golfcore.paths import atomic_write, write_failure
from golfcore.report.load import number
from golfcore.run_folder import SCORE, STOPPED
from golfcore.sweep.early_stopping import Curve, Rule, Watch, read_curve
from golfcore.sweep.failures import Failure, classify
from golfcore.sweep.launch import Handle, Launcher
from golfcore.sweep.queue import ENDED, Entry, Queue
from golfcore.sweep.worker import exit_status, has_ended, is_running, output_path
from golfcore.training.runlog import read_json

JOURNAL, LOCK, RECIPE = "sweep.db", "sweep.lock", "recipe.toml"
ATTEMPTS = 3  # a run whose process was killed is started so often by one sweep; one that ends by itself is not
LAST_WORDS = 400  # characters of a failed run's last line that are kept


class Search:
    """A source of further jobs that learns from the results; this base class has none."""

    def more(self, entries: Sequence[Entry]) -> bool:
        """Add jobs to the queue if there are more; return whether it did."""
        return False

    def tell(self, entries: Sequence[Entry]) -> None:
        """Learn from the jobs that have ended."""


@dataclass
class Sweep:
    """A sweep that is being run.

    Attributes:
        folder: holds the journal, the recipe and the run folders.
        recipe: the recipe of every job, before its sets.
        queue: the journal.
        launcher: starts the runs.
        rule: says when to stop a run early.
        reference: the curve with which runs are compared; None for that of the best run that has ended.
        search: gives further jobs.
        command: the command of a run, up to its recipe; ends in ``run``.
        extra: further words of every run's command.
        poll_s: seconds between two rounds.
        trouble: what the machine lacked; no run is started after that.
    """

    folder: Path
    recipe: RecipeConfig
    queue: Queue
    launcher: Launcher
    command: Sequence[str]
    rule: Rule = field(default_factory=Rule)
    reference: Curve | None = None
    search: Search = field(default_factory=Search)
    extra: Sequence[str] = ()
    poll_s: float = 0.5
    trouble: str = ""
    _handles: dict[int, Handle] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._watch = Watch(self.rule)
        self._curves: dict[str, Curve] = {}
        self._told: set[int] = set()  # jobs whose process was asked to end
        self._deaths: Counter[int] = Counter()  # of each job's processes, under this sweep
        self._aside: dict[int, str] = {}  # jobs that die again and again, with the last reason

    def run(self, show: Callable[[list[Entry]], None]) -> list[Entry]:
        """Run every job to its end and return all entries of the journal; ``show`` is called after each round.

        Jobs are left if the machine lacks something; ``left`` says why. An interrupt asks the runs to end, waits for
        them, and leaves their jobs to a later process.
        """
        with one_process(self.folder):
            self._adopt()
            try:
                while True:
                    entries = self.look()
                    show(entries)
                    if self._is_over(entries):
                        return self.queue.entries()
                    time.sleep(self.poll_s)
            except KeyboardInterrupt:
                self._interrupt()
                raise

    def left(self, entries: Sequence[Entry]) -> str:
        """Return one line on the jobs that are left and why, or an empty string if none is."""
        count = sum(entry.state not in ENDED for entry in entries)
        why = self.trouble or next(iter(self._aside.values()), "")
        return f"{count} of {len(entries)} runs are left to do; {why}" if count and why else ""

    def _is_over(self, entries: Sequence[Entry]) -> bool:
        if any(entry.state == "running" for entry in entries):
            return False
        if self.trouble:
            return True
        if any(entry.state == "waiting" and entry.id not in self._aside for entry in entries):
            return False
        return bool(self._aside) or not self.search.more(entries)

    def look(self) -> list[Entry]:
        """Do one round: record jobs that have ended, stop hopeless runs, start jobs while there is room."""
        entries = self.queue.entries()
        for entry in entries:
            if entry.state == "running" and self._handles[entry.id].ended():
                self._book(entry)
        entries = self.queue.entries()
        self.search.tell(entries)
        self._stop_hopeless(entries)
        self._fill(entries)
        return self.queue.entries()

    def _adopt(self) -> None:
        """Take over from an earlier process: its runs that still run, and its jobs whose process died."""
        for entry in self.queue.entries():
            if entry.state == "running":
                handle = self.launcher.adopt(self.folder, entry.job.name, entry.remote)
                if handle.ended() and not has_ended(self.folder / entry.job.name):
                    self.queue.again(entry.id, "the sweep was cut off")
                else:
                    self._handles[entry.id] = handle

    def _fill(self, entries: Sequence[Entry]) -> None:
        if self.trouble:
            return
        taken = {entry.slot for entry in entries if entry.state == "running"}
        waiting = self._waiting(entries)
        free = [slot for slot in range(self.launcher.slots) if slot not in taken][: len(waiting) + 1]
        while len(waiting) < len(free) and self.search.more(entries):
            entries = self.queue.entries()
            waiting = self._waiting(entries)
        for entry, slot in zip(waiting, free, strict=False):
            self.queue.start(entry.id, slot)
            try:
                handle = self.launcher.start(self.folder, entry.job.name, self._command(entry), slot)
            except OSError as error:
                self._put_back(entry, Failure("machine", f"no process could be started: {error}"))
                return
            self._handles[entry.id] = handle
            if handle.remote is not None:
                self.queue.hand_over(entry.id, handle.remote)

    def _waiting(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the jobs to start, those that were never started first: one that ends in trouble holds up no other."""
        waiting = [entry for entry in entries if entry.state == "waiting" and entry.id not in self._aside]
        return sorted(waiting, key=lambda entry: entry.attempts)

    def _command(self, entry: Entry) -> list[str]:
        sets = [word for option in entry.job.sets for word in ("--set", option)]
        return [
            *self.command, str(self.folder / RECIPE), *sets, "--set", f"train.seed={entry.job.seed}",
            "--runs", str(self.folder), "--run-id", entry.job.name, *self.extra,
        ]  # fmt: skip

    # --- what became of a run ---------------------------------------------------------------------------------------

    def _book(self, entry: Entry) -> None:
        run_dir = self.folder / entry.job.name
        del self._handles[entry.id]
        score, mark = _read(run_dir / SCORE), _read(run_dir / STOPPED)
        words = last_words(output_path(self.folder, entry.job.name))
        if number(score.get("val_bpb")) is not None:
            broken = words if words.startswith("golfcore: ") else ""  # scored, but a rule of the track was broken
            self.queue.end(entry.id, "done", _result(run_dir, score), broken)
        elif mark:
            self.queue.end(entry.id, "stopped", mark, f"{mark.get('lag', 0):.1%} behind at {mark.get('share', 0):.0%}")
        else:
            self._book_failure(entry, classify(exit_status(self.folder, entry.job.name), words))

    def _book_failure(self, entry: Entry, failure: Failure) -> None:
        self._deaths[entry.id] += failure.kind in ("killed", "crash")
        last = self._deaths[entry.id] >= ATTEMPTS
        if failure.kind == "variant":
            self.queue.end(entry.id, "failed", None, failure.why)
        elif failure.kind == "crash" and last:
            self.queue.end(entry.id, "failed", None, f"its process died {ATTEMPTS} times; last: {failure.why}")
        else:
            self._put_back(entry, failure)
            if last:
                self._aside[entry.id] = f"{entry.job.name} died {ATTEMPTS} times: {failure.why}"

    def _put_back(self, entry: Entry, failure: Failure) -> None:
        """Put a job back into the queue; after trouble that others will meet too, start no more."""
        if failure.kind == "machine":
            self.trouble = self.trouble or f"{entry.job.name}: {failure.why}"
        self.queue.again(entry.id, failure.why)

    def _stop_hopeless(self, entries: Sequence[Entry]) -> None:
        reference = (self.reference or self._best_curve(entries)) if self.rule.margin else None
        for entry in entries:
            run_dir = self.folder / entry.job.name
            if entry.state != "running" or entry.id in self._told:
                continue
            if (run_dir / STOPPED).exists():  # an earlier process came as far as the mark
                self._stop(entry.id)
            elif reference is not None:
                found = self._watch.hopeless(entry.id, read_curve(run_dir, self.recipe), reference)
                if found is not None and is_running(self.folder, entry.job.name) is not None:
                    with atomic_write(run_dir / STOPPED, "w") as f:  # before the signal: it alone says why a run ended
                        json.dump({"share": found[0], "lag": found[1]}, f)
                    self._stop(entry.id)

    def _stop(self, job_id: int) -> None:
        self._told.add(job_id)
        self._handles[job_id].stop()

    def _best_curve(self, entries: Sequence[Entry]) -> Curve | None:
        done = [entry for entry in entries if entry.state == "done" and entry.result]
        if not done:
            return None
        best = min(done, key=lambda entry: (entry.result or {})["val_bpb"]).job.name
        if best not in self._curves:
            self._curves = {best: read_curve(self.folder / best, self.recipe)}
        return self._curves[best]

    def _interrupt(self) -> None:
        """End the runs and put their jobs back; the next process records those that ended by themselves meanwhile."""
        for handle in self._handles.values():
            handle.stop()
        until = time.monotonic() + 30
        while not all(handle.ended() for handle in self._handles.values()) and time.monotonic() < until:
            time.sleep(0.1)


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """Keep a second process from running the same sweep.

    Raises:
        InputError: another process runs it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise MachineError(write_failure(folder / LOCK, error)) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"the sweep in {folder} is being run by another process: wait for it, or end it") from None
    else:
        yield
    finally:
        os.close(fd)


def _read(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = read_json(path, dict)
    except FormatError:
        return {}
    return value


def _result(run_dir: Path, score: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {key: number(score.get(key)) for key in ("val_bpb", "val_loss", "eval_s")}
    size = number(score.get("artifact_bytes"))
    return found | {"artifact_bytes": None if size is None else int(size), "run": str(run_dir)}


def last_words(path: Path) -> str:
    """Return the last line that a run printed, or an empty string."""
    try:
        with path.open("rb") as f:
            f.seek(0, os.SEEK_END)
            f.seek(max(0, f.tell() - 8192))
            lines = f.read().decode("utf-8", "replace").split("\n")
    except FileNotFoundError:
        return ""
    return next((line.strip()[:LAST_WORDS] for line in reversed(lines) if line.strip()), "")
