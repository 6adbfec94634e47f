"""Prepare a run: resolve its recipe, prepare its tokens and name its folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from golfcore.config import RecipeConfig
from golfcore.data.tokens import prepare_data
from golfcore.errors import UsageError
from golfcore.pipeline.config import changed, read_config
from golfcore.pipeline.measure import measure_step
from golfcore.progress import Progress, no_progress
from golfcore.ranks.world import World
from golfcore.recipes import LoadedRecipe, load_recipe
from golfcore.recipes.sizing import AUTO, BASE, Size, size_for

SIZING_S = 2.0  # seconds of steps that are timed before a run is sized


@dataclass(frozen=True)
class Start:
    """A prepared run: its folder, its resolved recipe with tokens at hand, and whether it resumes."""

    run_dir: Path
    config: RecipeConfig
    overrides: tuple[str, ...] = ()
    size: Size | None = None  # of recipe auto on this machine
    resumed: bool = False
    echo: Callable[[str], None] | None = None  # gets every log line; without it a progress bar is shown


@dataclass(frozen=True)
class Wish:
    """A request for a run, before anything is measured or prepared.

    Attributes:
        recipe: a recipe's name or TOML file, ``auto``, or a resolved recipe.
        text: files or folders of the user's text; none for the default text.
        data: a folder of tokens to use instead of text.
        changes: values by ``section.key`` that replace those of the recipe.
        sets: ``section.key=value`` from the command line; they replace all others.
        environment: variables with the contest's names (``MATRIX_LR=0.03``); they replace ``changes``.
        runs: the folder in which the folder of the run is made.
        run_id: the name of the run's folder; if empty, the recipe's name and the time.
        resume: the folder of a run to continue instead.
    """

    recipe: str | RecipeConfig
    text: Sequence[Path] = ()
    data: Path | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    sets: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    runs: Path = Path("runs")
    run_id: str = ""
    resume: Path | None = None

    def all_sets(self) -> list[str]:
        """Return ``sets``, and ``data.path=...`` if ``data`` is given."""
        return [*self.sets, *([f"data.path={self.data}"] if self.data else [])]


def begin(wish: Wish, *, progress: Progress = no_progress, size: Size | None = None, ranks: int = 1) -> Start:
    """Resolve a recipe, name a run folder and prepare the tokens.

    Args:
        wish: the request.
        progress: shows how far the preparation is.
        size: size of recipe auto; default: measured on this machine.
        ranks: number of processes that share the work of recipe auto.

    Raises:
        UsageError: arguments that contradict each other, an unknown key, or a folder that exists.
    """
    if wish.resume is not None:
        if wish.text or wish.data or wish.sets or wish.changes:
            raise UsageError("--resume goes on with the run's own config: drop --text, --data and --set")
        return Start(wish.resume, read_config(wish.resume), resumed=True)
    if isinstance(wish.recipe, RecipeConfig):
        data = {"data.path": str(wish.data)} if wish.data else {}
        loaded = LoadedRecipe(changed(wish.recipe, {**wish.changes, **data}), ())
    elif wish.recipe == AUTO:
        size = size or measured_size(wish, ranks, progress)
        loaded = _loaded(BASE, wish, {**size.keys, **wish.changes})
        loaded = replace(loaded, config=replace(loaded.config, name=AUTO))
    else:
        loaded = _loaded(wish.recipe, wish, wish.changes)
    run_dir = new_run_dir(wish.runs, wish.run_id or wish.environment.get("RUN_ID", ""), loaded.config.name)
    with progress("data") as tick:
        config = prepare_data(loaded.config, wish.text, tick)
    return Start(run_dir, config, loaded.overrides, size)


def _loaded(name: str, wish: Wish, changes: Mapping[str, Any]) -> LoadedRecipe:
    return load_recipe(name, environment=wish.environment, sets=wish.all_sets(), changes=changes)


def measured_size(wish: Wish, ranks: int, progress: Progress = no_progress) -> Size:
    """Time a few steps of the base recipe with the user's keys, and return the size that fits the training time."""
    config = _loaded(BASE, wish, wish.changes).config
    with progress("this machine's speed"):
        found = measure_step(config, config.data.vocab_size, SIZING_S)
    return size_for(config.steps_s * 1000 / found.ms * ranks if config.steps_s else config.train.iterations)


def begin_together(world: World, wish: Wish, progress: Progress = no_progress) -> Start:
    """Call ``begin`` on rank 0, then on the others, so that text is prepared and the folder named only once.

    A rank on another machine has its own environment and its own tokens; ``require_alike`` compares them.
    """

    def start(wish: Wish, size: Size | None) -> Start:
        shown = progress if world.primary else no_progress
        return begin(wish, progress=shown, size=size, ranks=world.size)

    first = world.on_primary(lambda: start(wish, None))
    if world.primary or wish.resume is not None:
        return first
    return start(replace(wish, run_id=first.run_dir.name), first.size)


def new_run_dir(runs: Path, run_id: str, name: str) -> Path:
    """Return a run folder that does not exist yet, named by the user or by recipe and time; it is not created here."""
    run_dir = runs / (run_id or f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if Path(run_dir.name) != Path(run_id or run_dir.name):
        raise UsageError(f"run id {run_id!r}: expected a plain name without slashes")
    if run_dir.exists():
        raise UsageError(
            f"{run_dir} exists: choose another --run-id, or go on with it: golfcore run --resume {run_dir}"
        )
    return run_dir
