"""Draw the jobs of a sweep by Optuna: a trial is a combination of values, run with every seed.

Optuna keeps its own journal, a file of its JournalFileBackend; the sweep's journal has the trial of each job. A process
may die between writing the two: a trial without jobs is given up, and a trial whose jobs have all ended is reported
again.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from golfcore.errors import UsageError
from golfcore.sweep.queue import ENDED, Entry, Queue
from golfcore.sweep.runner import Search
from golfcore.sweep.spec import Axis, variant_jobs

JOURNAL = "optuna.journal"


class OptunaSearch(Search):
    """A search for the least bits per byte: ``trials`` draws of ``axes`` by Optuna's Parzen-tree estimator (TPE)."""

    def __init__(self, folder: Path, queue: Queue, axes: Sequence[Axis], seeds: Sequence[int], trials: int) -> None:
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        except ImportError as error:
            raise UsageError("a range to search needs Optuna: pip install 'golfcore[sweep]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        self._optuna, self._queue, self._axes, self._seeds, self._trials = optuna, queue, axes, seeds, trials
        storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
        self._study = optuna.create_study(
            storage=storage, study_name="sweep", direction="minimize", load_if_exists=True
        )
        drawn = len(self._study.trials)
        # Seeded by how many there are: the same sweep draws the same, and goes on without drawing them again.
        self._study.sampler = optuna.samplers.TPESampler(seed=drawn, n_startup_trials=min(10, max(2, trials // 3)))
        self._told = {trial.number for trial in self._study.trials if trial.state.is_finished()}
        known = {entry.trial for entry in queue.entries()}
        for trial in self._study.trials:
            if trial.number not in self._told and trial.number not in known:
                self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                self._told.add(trial.number)

    def more(self, entries: Sequence[Entry]) -> bool:
        """Draw one more trial, unless all have been drawn."""
        drawn = {entry.trial for entry in entries if entry.trial is not None}
        if len(drawn) >= self._trials:
            return False
        trial = self._study.ask()
        values = {axis.key: self._draw(trial, axis) for axis in self._axes}
        self._queue.add(variant_jobs(trial.number, values, self._seeds), trial.number)
        return True

    def _draw(self, trial: Any, axis: Axis) -> Any:
        if not axis.searched:
            return trial.suggest_categorical(axis.key, axis.values)
        if axis.whole:
            return trial.suggest_int(axis.key, int(axis.low), int(axis.high), log=axis.log)
        return float(f"{trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log):.4g}")

    def tell(self, entries: Sequence[Entry]) -> None:
        """Tell Optuna the mean score of every trial whose seeds have all ended; a trial without a score has failed."""
        for number in sorted({e.trial for e in entries if e.trial is not None} - self._told):
            own = [entry for entry in entries if entry.trial == number]
            if not all(entry.state in ENDED for entry in own):
                continue
            scores = [entry.result["val_bpb"] for entry in own if entry.state == "done" and entry.result]
            failed = self._optuna.trial.TrialState.FAIL
            if scores and len(scores) == len(own):
                self._study.tell(number, statistics.fmean(scores), skip_if_finished=True)
            else:
                self._study.tell(number, state=failed, skip_if_finished=True)
            self._told.add(number)
