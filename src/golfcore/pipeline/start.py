"""Prepare a run: resolve its recipe, prepare its tokens and create its folder."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from golfcore.config import CONTEST_ENV, RecipeConfig
from golfcore.data.tokens import prepare_data
from golfcore.errors import UsageError
from golfcore.hints import command
from golfcore.paths import folder_name
from golfcore.pipeline.config import changed, read_config
from golfcore.pipeline.measure import measure_step
from golfcore.pipeline.requirements import check_place
from golfcore.progress import Progress, no_progress
from golfcore.ranks.world import World
from golfcore.recipes import LoadedRecipe, load_recipe
from golfcore.recipes.sizing import AUTO, BASE, Size, size_for
from golfcore.run_folder import ARTIFACT, create, is_empty
from golfcore.training.next_step import begin_again, next_step

SIZING_S = 2.0  # seconds of steps that are timed before a run is sized


@dataclass(frozen=True)
class Start:
    """A prepared run: its folder, its resolved recipe with tokens at hand, and whether it resumes."""

    run_dir: Path
    config: RecipeConfig
    overrides: tuple[str, ...] = ()
    size: Size | None = None  # of recipe auto on this machine
    resumed: bool = False
    again: tuple[str | Path, ...] = ()  # the words of a command that does the same, without its seed
    own_text: bool = False  # whether the user's text or tokens were given
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

    def words(self, run_dir: Path) -> list[str | Path]:
        """Return the words of a command that begins such a run in another folder, as they were given; without a seed.

        If they do not say all that the user asked for, the recipe is the config in ``run_dir``.
        """
        hidden = self.resume or self.changes or not self.environment.keys().isdisjoint(CONTEST_ENV)
        if hidden or isinstance(self.recipe, RecipeConfig):
            return begin_again(run_dir)
        words: list[str | Path] = ["run", self.recipe]
        for path in self.text:
            words += ["--text", path]
        words += ["--data", self.data] if self.data else []
        for option in self.sets:
            words += [] if option.split("=")[0].strip() == "train.seed" else ["--set", option]
        return words + ([] if self.runs == Path("runs") else ["--runs", self.runs])


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
        own = read_config(wish.resume)
        return Start(wish.resume, own, resumed=True, again=tuple(wish.words(wish.resume)), own_text=True)
    if follow is None:
        check_place(wish.runs)
    if isinstance(wish.recipe, RecipeConfig):
        changes = {**wish.changes, **({"data.path": str(wish.data)} if wish.data else {})}
        recipe = wish.recipe
        if "data.path" in changes:  # other data
            recipe = replace(recipe, data=recipe.data.with_identity({}))
        loaded = LoadedRecipe(changed(recipe, changes), ())
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
    own_text = bool(wish.text or loaded.config.data.path)
    return Start(run_dir, config, loaded.overrides, size, again=tuple(wish.words(run_dir)), own_text=own_text)


def commands_after(start: Start) -> tuple[str, ...]:
    """Return commands to try after a run: look into its file, repeat it with another seed, use another text."""
    seed = f"train.seed={start.config.train.seed + 1}"
    found = [command("inspect", start.run_dir / ARTIFACT), command(*start.again, "--set", seed)]
    return (*found, *([] if start.own_text else [command(*start.again, "--text", "YOUR_TEXT.jsonl")]))


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
    step = next_step(run_dir)
    more = "" if step.state == "absent" else f"; {step}"
    raise UsageError(f"{run_dir} exists: choose another --run-id{more}")


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
