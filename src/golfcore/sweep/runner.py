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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from golfcore.config import RecipeConfig
from golfcore.errors import FormatError, InputError
from golfcore.paths import atomic_write
from golfcore.report.load import number
from golfcore.run_folder import SCORE, STOPPED
from golfcore.sweep.early_stopping import Curve, Rule, Watch, read_curve
from golfcore.sweep.launch import Handle, Launcher
from golfcore.sweep.queue import ENDED, Entry, Queue
from golfcore.sweep.worker import has_ended, is_running, output_path
from golfcore.training.runlog import read_json

JOURNAL, LOCK, RECIPE = "sweep.db", "sweep.lock", "recipe.toml"
ATTEMPTS = 3  # a run whose process was killed is started again so often; one that ends by itself is not
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
    _handles: dict[int, Handle] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._watch = Watch(self.rule)
        self._curves: dict[str, Curve] = {}
        self._told: set[int] = set()  # jobs whose process was asked to end

    def run(self, show: Callable[[list[Entry]], None]) -> list[Entry]:
        """Run every job to its end and return all entries of the journal; ``show`` is called after each round.

        An interrupt asks the runs to end, waits for them, and leaves their jobs to a later process.
        """
        with one_process(self.folder):
            self._adopt()
            try:
                while True:
                    entries = self.look()
                    show(entries)
                    if all(entry.state in ENDED for entry in entries) and not self.search.more(entries):
                        return self.queue.entries()
                    time.sleep(self.poll_s)
            except KeyboardInterrupt:
                self._interrupt()
                raise

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
        taken = {entry.slot for entry in entries if entry.state == "running"}
        waiting = [entry for entry in entries if entry.state == "waiting"]
        free = [slot for slot in range(self.launcher.slots) if slot not in taken][: len(waiting) + 1]
        while len(waiting) < len(free) and self.search.more(entries):
            entries = self.queue.entries()
            waiting = [entry for entry in entries if entry.state == "waiting"]
        for entry, slot in zip(waiting, free, strict=False):
            self.queue.start(entry.id, slot)
            handle = self.launcher.start(self.folder, entry.job.name, self._command(entry), slot)
            self._handles[entry.id] = handle
            if handle.remote is not None:
                self.queue.hand_over(entry.id, handle.remote)

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
        elif words.startswith("golfcore: ") and "interrupted" not in words:
            self.queue.end(entry.id, "failed", None, words.removeprefix("golfcore: "))
        elif entry.attempts >= ATTEMPTS:
            self.queue.end(entry.id, "failed", None, f"its process died {ATTEMPTS} times; last: {words or 'nothing'}")
        else:
            self.queue.again(entry.id, f"its process died: {words or 'without a word'}")

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
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
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
