"""Prepare a run: resolve its recipe, prepare its tokens and name its folder."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from golfcore.config import RecipeConfig
from golfcore.data.tokens import prepare_data
from golfcore.errors import UsageError
from golfcore.paths import folder_name
from golfcore.pipeline.config import changed, read_config
from golfcore.pipeline.measure import measure_step
from golfcore.progress import Progress, no_progress
from golfcore.ranks.world import World
from golfcore.recipes import LoadedRecipe, load_recipe
from golfcore.recipes.sizing import AUTO, BASE, Size, size_for
from golfcore.run_folder import CHECKPOINT, CONFIG, create, is_empty

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


def begin(
    wish: Wish, *, progress: Progress = no_progress, size: Size | None = None, ranks: int = 1,
    follow: Path | None = None,
) -> Start:  # fmt: skip
    """Resolve a recipe, prepare the tokens and create the run's folder.

    Args:
        wish: the request.
        progress: shows how far the preparation is.
        size: size of recipe auto; default: measured on this machine.
        ranks: number of processes that share the work of recipe auto.
        follow: the folder that rank 0 has created; None on rank 0.

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
    run_id = wish.run_id or wish.environment.get("RUN_ID", "")
    if follow is None:
        check_run_id(wish.runs, run_id)  # before anything takes long
    with progress("data") as tick:
        config = prepare_data(loaded.config, wish.text, tick)
    run_dir = follow or claim_run_dir(wish.runs, run_id, loaded.config.name)
    return Start(run_dir, config, loaded.overrides, size)


def _loaded(name: str, wish: Wish, changes: Mapping[str, Any]) -> LoadedRecipe:
    return load_recipe(name, environment=wish.environment, sets=wish.sets, data=wish.data, changes=changes)


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

    first = world.on_primary(lambda: begin(wish, progress=progress, ranks=world.size))
    if world.primary or wish.resume is not None:
        return first
    return begin(wish, size=first.size, ranks=world.size, follow=wish.runs / first.run_dir.name)


def check_run_id(runs: Path, run_id: str) -> None:
    """Raise UsageError unless a new run may have this name; every name of its own choice may be empty.

    The folder of a run that ended before it wrote anything may be taken.
    """
    run_dir = runs / run_id
    if run_id and run_id != folder_name(run_id):
        raise UsageError(f"run id {run_id!a}: expected a plain name without slashes or control characters")
    if not run_id or not run_dir.exists() or (run_dir.is_dir() and is_empty(run_dir)):
        return
    choose = f"{run_dir} exists: choose another --run-id"
    if (run_dir / CONFIG).exists() and (run_dir / CHECKPOINT).exists():
        raise UsageError(f"{choose}, or go on with it: golfcore run --resume {shlex.quote(str(run_dir))}")
    raise UsageError(f"{choose}, or remove it: it holds no checkpoint to go on from")


def claim_run_dir(runs: Path, run_id: str, name: str) -> Path:
    """Create the folder of a new run, named by the user or by recipe and time, and return it.

    Raises:
        UsageError: the user's name is taken, be it since a moment ago.
        InputError: the folder cannot be created.
    """
    check_run_id(runs, run_id)
    if run_id:
        with contextlib.suppress(FileExistsError):  # an empty one, which the lock gives to one process
            create(runs / run_id)
        return runs / run_id
    stamp = f"{folder_name(name)}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        run_dir = runs / (stamp if number == 1 else f"{stamp}-{number}")
        with contextlib.suppress(FileExistsError):
            create(run_dir)
            break
    return run_dir
