"""Find runs that are not worth finishing: their loss stays behind a reference's at the same share of the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from golfcore.config import RecipeConfig
from golfcore.errors import GolfError, InputError
from golfcore.report.load import number
from golfcore.run_folder import METRICS
from golfcore.training.runlog import read_metrics

WINDOW = 0.05  # share of the run that a comparison averages over
LOOKS = 2  # comparisons in a row that must find a run behind


@dataclass(frozen=True)
class Curve:
    """Training loss over the share of the run that is over; both fp64 [N], shares rising."""

    share_N: NDArray[np.float64]
    loss_N: NDArray[np.float64]

    @property
    def spent(self) -> float:
        return float(self.share_N[-1]) if len(self.share_N) else 0.0

    def mean(self, low: float, high: float) -> float | None:
        """Return the mean loss of the points in ``(low, high]``; None if there is none."""
        inside = (self.share_N > low) & (self.share_N <= high)
        return float(self.loss_N[inside].mean()) if inside.any() else None


@dataclass(frozen=True)
class Rule:
    """The rule to stop a run that is ``margin`` (share of the loss) behind, from ``after`` (share of the run) on."""

    margin: float = 0.05
    after: float = 0.3

    def behind(self, run: Curve, reference: Curve) -> tuple[float, float] | None:
        """Return ``(share, lag)`` if ``run`` is behind by more than the margin at its latest point, else None."""
        share = run.spent
        if not self.margin or share < self.after:
            return None
        own, other = (curve.mean(share - WINDOW, share) for curve in (run, reference))
        if own is None or other is None or other <= 0 or own <= other * (1 + self.margin):
            return None
        return share, own / other - 1


def read_curve(run_dir: Path, recipe: RecipeConfig) -> Curve:
    """Read the training curve of a run folder so far; it is empty if the file is damaged or absent."""
    points = []
    try:
        rows = read_metrics(run_dir / METRICS)
    except GolfError:
        rows = []
    budget = recipe.track.train_s
    for row in rows:
        loss, clock, step = number(row.get("train_loss")), number(row.get("train_s")), number(row["step"])
        if row["kind"] == "train" and loss is not None and step is not None:
            by_clock = (clock or 0.0) / budget if budget else 0.0
            points.append((max(by_clock, step / recipe.train.iterations), loss))
    table = np.array(sorted(points), dtype=np.float64).reshape(-1, 2)
    return Curve(table[:, 0], table[:, 1])


def read_reference(run_dir: Path, recipe: RecipeConfig) -> Curve:
    """Read the curve of the run with which others are compared.

    Raises:
        InputError: the run has no training curve.
    """
    curve = read_curve(run_dir, recipe)
    if not len(curve.share_N):
        raise InputError(f"{run_dir}: no training curve in {METRICS}; expected a run folder of the same recipe")
    return curve


class Watch:
    """Compares running jobs with the reference, to find those that were behind at ``LOOKS`` points in a row."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._found: dict[int, tuple[int, float]] = {}  # job -> (times behind, share of the last look)

    def hopeless(self, job_id: int, run: Curve, reference: Curve) -> tuple[float, float] | None:
        """Return ``(share, lag)`` if a run is to be stopped, else None; a run is checked once per logged point."""
        times, last = self._found.get(job_id, (0, -1.0))
        if run.spent <= last:
            return None
        found = self.rule.behind(run, reference)
        times = times + 1 if found else 0
        self._found[job_id] = (times, run.spent)
        return found if times >= LOOKS else None
