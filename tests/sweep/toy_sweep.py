"""A sweep of toy runs (``fake_run``) in a process of its own, so that a test can kill it.

python toy_sweep.py FOLDER "toy.loss=2,3;toy.steps=20" SEEDS SLOTS
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tiny import recipe

from golfcore.sweep.early_stopping import Curve, Rule
from golfcore.sweep.launch import Launcher, LocalLauncher
from golfcore.sweep.queue import Entry, Queue
from golfcore.sweep.runner import JOURNAL, Search, Sweep
from golfcore.sweep.spec import grid_jobs, parse_axis

FAKE = [sys.executable, str(Path(__file__).parent / "fake_run.py"), "run"]


def toy_sweep(
    folder: Path, axes: str, seeds: int, slots: int, *, rule: Rule | None = None, reference: Curve | None = None,
    launcher: Launcher | None = None, queue: Queue | None = None, search: Search | None = None,
) -> Sweep:  # fmt: skip
    queue = queue or Queue(folder / JOURNAL)
    if queue.meta("spec") is None:
        jobs = [] if search else grid_jobs([parse_axis(text) for text in axes.split(";") if text], range(seeds))
        queue.begin("{}", jobs)
    config = recipe(iterations=10**6)
    config = dataclasses.replace(config, track=dataclasses.replace(config.track, train_s=1.0))
    return Sweep(
        folder=folder, recipe=config, queue=queue, launcher=launcher or LocalLauncher(0, slots), command=FAKE,
        rule=rule or Rule(margin=0.0), reference=reference, search=search or Search(), poll_s=0.02,
    )  # fmt: skip


def silent(entries: list[Entry]) -> None:
    return


if __name__ == "__main__":
    toy_sweep(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])).run(silent)
