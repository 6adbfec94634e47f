"""Where a run begins: a resolved recipe, its prepared tokens, and the name of its folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from golfcore.config import RecipeConfig
from golfcore.data.tokens import prepare_data
from golfcore.errors import UsageError
from golfcore.pipeline.config import read_config
from golfcore.pipeline.measure import measure_step
from golfcore.progress import Progress, no_progress
from golfcore.ranks.world import World
from golfcore.recipes import load_recipe
from golfcore.recipes.sizing import AUTO, BASE, Size, size_for

SIZING_S = 2.0  # of steps that are timed before a run is sized


@dataclass(frozen=True)
class Start:
    """Where a run begins: its folder, its resolved recipe with tokens at hand, and a checkpoint to go on from."""

    run_dir: Path
    config: RecipeConfig
    overrides: tuple[str, ...] = ()
    size: Size | None = None  # what recipe auto came to on this machine
    resumed: bool = False
    echo: Callable[[str], None] | None = None  # gets every log line; without it a progress bar is shown


def begin(
    recipe: str, *, text: Sequence[Path], data: Path | None, sets: Sequence[str], runs: Path, run_id: str,
    resume: Path | None, progress: Progress = no_progress, size: Size | None = None, ranks: int = 1,
) -> Start:  # fmt: skip
    """Resolves a recipe, names a run folder and prepares the tokens; arguments as of ``run``.

    Recipe auto measures this machine, on which ``ranks`` will share the work, unless a ``size`` is given.
    """
    if resume is not None:
        if text or data or sets:
            raise UsageError("--resume goes on with the run's own config: drop --text, --data and --set")
        return Start(resume, read_config(resume), resumed=True)
    sets = [*sets, *([f"data.path={data}"] if data else [])]
    if recipe == AUTO:
        size = size or measured_size(sets, ranks, progress)
        loaded = load_recipe(BASE, environment=os.environ, sets=sets, sizes=size.keys)
        loaded = replace(loaded, config=replace(loaded.config, name=AUTO))
    else:
        loaded = load_recipe(recipe, environment=os.environ, sets=sets)
    run_dir = new_run_dir(runs, run_id or os.environ.get("RUN_ID", ""), loaded.config.name)
    with progress("data") as tick:
        config = prepare_data(loaded.config, text, tick)
    return Start(run_dir, config, loaded.overrides, size)


def measured_size(sets: Sequence[str], ranks: int, progress: Progress = no_progress) -> Size:
    """Times a few steps of the base recipe, with the user's own keys, and sizes it to what the clock allows."""
    config = load_recipe(BASE, environment=os.environ, sets=sets).config
    with progress("this machine's speed"):
        found = measure_step(config, config.data.vocab_size, SIZING_S)
    return size_for(config.steps_s * 1000 / found.ms * ranks if config.steps_s else config.train.iterations)


def begin_together(
    world: World, recipe: str, *, text: Sequence[Path], data: Path | None, sets: Sequence[str] = (), runs: Path,
    run_id: str, resume: Path | None, progress: Progress = no_progress,
) -> Start:  # fmt: skip
    """``begin`` on rank 0 first, so that text is prepared and the run folder named once; then on the other ranks.

    A rank on another machine has its own environment and its own tokens; ``require_alike`` compares them.
    """

    def start(name: str, size: Size | None) -> Start:
        return begin(
            recipe, text=text, data=data, sets=sets, runs=runs, run_id=name, resume=resume,
            progress=progress if world.primary else no_progress, size=size, ranks=world.size,
        )  # fmt: skip

    first = world.on_primary(lambda: start(run_id, None))
    if world.primary or resume is not None:
        return first
    return start(first.run_dir.name, first.size)


def new_run_dir(runs: Path, run_id: str, name: str) -> Path:
    """A run folder that is not there yet, named by the user or by recipe and time; not created here."""
    run_dir = runs / (run_id or f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if Path(run_dir.name) != Path(run_id or run_dir.name):
        raise UsageError(f"run id {run_id!r}: expected a plain name without slashes")
    if run_dir.exists():
        raise UsageError(
            f"{run_dir} exists: choose another --run-id, or go on with it: golfcore run --resume {run_dir}"
        )
    return run_dir
