"""``golfcore sweep``: run many variants of one recipe, on local devices or a cluster, resumable at any point."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from golfcore.cli import output
from golfcore.cli.options import Size
from golfcore.cli.run import Texts
from golfcore.config import RecipeConfig, parse_value, to_toml, to_tree
from golfcore.errors import MachineError, UsageError
from golfcore.hints import command
from golfcore.paths import atomic_write, folder_name
from golfcore.processes import python_command
from golfcore.ranges import SEED, SHARE, Range, numbers_in
from golfcore.recipes import load_recipe

if TYPE_CHECKING:
    from rich.table import Table

    from golfcore.sweep.early_stopping import Curve, Rule
    from golfcore.sweep.launch import Launcher
    from golfcore.sweep.queue import Entry, Queue
    from golfcore.sweep.runner import Search, Sweep
    from golfcore.sweep.spec import Axis

MAX_TRIALS = 10_000
Axes = Annotated[
    Sequence[str], Parameter(name=["--set"], negative=(), help="section.key=a,b,c, or =low..high[:log] to search")
]
ClusterArgs = Annotated[Sequence[str], Parameter(name=["--cluster-arg"], negative=(), help="key=value for submitit")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Stopping:
    """Options that stop a run that falls behind.

    Attributes
    ----------
    reference
        A run of the same recipe with which all are compared; default: the best that has ended.
    stop_margin
        Share of the loss that a run may be behind at the same share of the clock before it is stopped; 0: never.
    stop_after
        Share of the run before which none is stopped.
    """

    reference: Path | None = None
    stop_margin: Annotated[float, Parameter(validator=Range(0, 10, whole=False))] = 0.05
    stop_after: Annotated[float, Parameter(validator=SHARE)] = 0.3


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Options that run the sweep elsewhere than on this machine.

    Attributes
    ----------
    cluster
        Hand the runs to Slurm through submitit, or to submitit's local executor.
    cluster_arg
        key=value for submitit; may be given several times.
    sky
        Write a SkyPilot task that runs this sweep, and run nothing.
    accelerators
        Accelerators that the SkyPilot task asks for.
    sky_hours
        Hours after which the SkyPilot task ends.
    """

    cluster: Literal["slurm", "local"] | None = None
    cluster_arg: ClusterArgs = ()
    sky: Path | None = None
    accelerators: str = "H100:8"
    sky_hours: Annotated[float, Parameter(validator=Range(0, 24 * 30, whole=False, above=True, unit="hours"))] = 4.0


def sweep(
    recipe: str = "pocket",
    *,
    set_: Axes = (),
    seeds: Annotated[int, Parameter(validator=Range(1, 1000))] = 1,
    first_seed: Annotated[int | None, Parameter(validator=SEED)] = None,
    trials: Annotated[int, Parameter(validator=Range(0, MAX_TRIALS))] = 0,
    folder: Path | None = None,
    text: Texts = (),
    data: Path | None = None,
    jobs: Size = 0,
    retry_failed: Annotated[bool, Parameter(negative="")] = False,
    stopping: Stopping | None = None,
    cluster: Cluster | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run every combination of values with every seed; the same command again runs those that are left.

    Parameters
    ----------
    recipe
        A recipe that comes with golfcore, or a .toml file.
    seeds
        Number of seeds per combination.
    first_seed
        The first seed; default: the recipe's.
    trials
        Number of combinations that Optuna draws if a value is a range.
    folder
        The folder of the journal and the runs; default: sweeps/RECIPE-HASH, the same for the same command.
    data
        A folder of tokens to use instead of text.
    jobs
        Number of runs at once; default: one per GPU, or one. On a CPU they share the cores.
    retry_failed
        Run those again that ended with an error of their own; what the machine ended is run again in any case.
    json
        Print one JSON document instead of a table.
    """
    from golfcore.sweep.runner import Sweep

    stopping, cluster = stopping or Stopping(), cluster or Cluster()
    if cluster.sky is not None:
        return _write_sky(cluster.sky, cluster)
    config, axes = _resolved(recipe, set_, data)
    seeds_list = _seeds(config, seeds, first_seed)
    rule = _rule(stopping, axes, trials)
    config, extra = _with_data(config, axes, text)
    folder, queue = _open(folder, config, axes, seeds_list, trials, rule)
    with closing(queue):
        if retry_failed:
            queue.retry_failed()
        running = Sweep(
            folder=folder, recipe=config, queue=queue, launcher=_launcher(folder, cluster, jobs),
            command=[*python_command("golfcore"), "run"], rule=rule, extra=extra,
            reference=_reference(stopping, config), search=_search(folder, queue, axes, seeds_list, trials),
        )  # fmt: skip
        entries = _run(running, folder)
    _report(folder, entries, json)
    return _exit_code(running.left(entries), entries)


# --- what is to be run ------------------------------------------------------------------------------------------------


def _resolved(recipe: str, options: Sequence[str], data: Path | None) -> tuple[RecipeConfig, list[Axis]]:
    """Return the recipe that all runs share and the keys that vary; every value is first tried on the recipe."""
    from golfcore.sweep.spec import parse_axis

    axes = [parse_axis(option) for option in options]
    fixed = [f"{axis.key}={axis.values[0]}" for axis in axes if len(axis.values) == 1]
    config = load_recipe(recipe, environment=os.environ, sets=fixed, data=data).config
    if config.eval.stride == "auto" and not any(axis.key == "eval.stride" for axis in axes):
        # Runs of a sweep are compared, so no clock may give one of them more context than another.
        stride = config.eval.fixed_stride(config.eval.context or config.train.seq_len)
        config = replace(config, eval=replace(config.eval, stride=stride))
    varied = [axis for axis in axes if len(axis.values) != 1]
    for axis in varied:
        ends = [int(axis.low), int(axis.high)] if axis.whole else [axis.low, axis.high]
        for value in axis.values or ends:
            load_recipe(recipe, environment=os.environ, sets=[*fixed, f"{axis.key}={value}"], data=data)
    return config, varied


def _seeds(config: RecipeConfig, count: int, first: int | None) -> list[int]:
    start = config.train.seed if first is None else first
    SEED.check("the last seed", start + count - 1)
    return list(range(start, start + count))


def _check(axes: Sequence[Axis], trials: int, rule: Any) -> None:
    searched = [axis.key for axis in axes if axis.searched]
    if searched and not trials:
        raise UsageError(f"{searched[0]} is a range: say how many combinations to try with --trials N")
    if trials and not searched:
        raise UsageError(f"--trials {trials}: no value is a range; give one as --set optim.matrix_lr=0.01..0.1:log")


def _with_data(config: RecipeConfig, axes: Sequence[Axis], text: Sequence[Path]) -> tuple[RecipeConfig, list[str]]:
    """Return the recipe with its tokens prepared once; if the tokens vary, each run prepares its own from the text."""
    from golfcore.data.tokens import open_run, prepare_data

    if any(axis.key.startswith("data.") for axis in axes):
        return config, [word for path in text for word in ("--text", str(path.resolve()))]
    with output.progress("data") as tick:
        return open_run(prepare_data(config, text, tick))[0], []


def _open(
    folder: Path | None, config: RecipeConfig, axes: Sequence[Axis], seeds: Sequence[int], trials: int, rule: Any
) -> tuple[Path, Queue]:
    """Open the folder and journal of the sweep, new or begun by the same command.

    Raises:
        UsageError: the folder holds another sweep; the message has the differences.
    """
    from golfcore.sweep.queue import Queue
    from golfcore.sweep.runner import JOURNAL, RECIPE
    from golfcore.sweep.spec import differences, grid_jobs, spec_text

    tree = to_tree(config)
    spec = spec_text(tree, axes, seeds, trials, {"margin": rule.margin, "after": rule.after})
    searched = any(axis.searched for axis in axes)
    new = [] if searched else grid_jobs(axes, seeds)
    folder = folder or Path("sweeps") / f"{folder_name(config.name)}-{hashlib.sha256(spec.encode()).hexdigest()[:8]}"
    queue = Queue(folder / JOURNAL)
    before = queue.meta("spec")
    if before is not None and before != spec:
        queue.close()
        raise UsageError(
            f"{folder} holds another sweep ({'; '.join(differences(before, spec)[:3])}): choose another --folder"
        )
    if before is None:
        with atomic_write(folder / RECIPE, "w") as f:
            f.write(to_toml(tree))
        queue.begin(spec, new)
    return folder, queue


def _launcher(folder: Path, cluster: Cluster, jobs: int) -> Launcher:
    from golfcore.machine import cuda_devices
    from golfcore.sweep.launch import LocalLauncher, SubmititLauncher

    if cluster.cluster is None:
        if cluster.cluster_arg:
            raise UsageError("--cluster-arg is for --cluster slurm or local")
        return LocalLauncher(len(cuda_devices()[0]), jobs)
    parameters = {}
    for option in cluster.cluster_arg:
        key, equals, value = option.partition("=")
        if not equals:
            raise UsageError(f"--cluster-arg {option}: expected key=value, for example timeout_min=60")
        parameters[key.strip()] = parse_value(value.strip())
        for allowed, name, number in numbers_in(Any, parameters[key.strip()], f"--cluster-arg {key.strip()}"):
            allowed.check(name, number)
    return SubmititLauncher(folder.resolve(), cluster.cluster, parameters, jobs)


def _rule(stopping: Stopping, axes: Sequence[Axis], trials: int) -> Rule:
    from golfcore.sweep.early_stopping import Rule

    rule = Rule(margin=stopping.stop_margin, after=stopping.stop_after)
    if rule.margin and any(axis.key.startswith("data.") for axis in axes):
        output.err.print("the tokens differ between runs, so their losses do not compare: none is stopped early")
        rule = replace(rule, margin=0.0)
    _check(axes, trials, rule)
    return rule


def _reference(stopping: Stopping, config: RecipeConfig) -> Curve | None:
    from golfcore.sweep.early_stopping import read_reference

    return read_reference(stopping.reference, config) if stopping.reference else None


def _search(folder: Path, queue: Queue, axes: Sequence[Axis], seeds: Sequence[int], trials: int) -> Search:
    from golfcore.sweep.runner import Search

    if not any(axis.searched for axis in axes):
        return Search()
    from golfcore.sweep.search import OptunaSearch

    return OptunaSearch(folder, queue, axes, seeds, trials)


def _write_sky(path: Path, cluster: Cluster) -> int:
    """Write a task with the words of this command, without the options about the task itself."""
    from golfcore.sweep.skypilot import sky_task

    hours = cluster.sky_hours
    words, skipped = [], False
    arguments = sys.argv[sys.argv.index("sweep") + 1 :] if "sweep" in sys.argv else []
    for word in arguments:
        if skipped:
            skipped = False
        elif word in ("--sky", "--accelerators", "--sky-hours"):
            skipped = True
        elif not word.startswith(("--sky=", "--accelerators=", "--sky-hours=")):
            words.append(word)
    with atomic_write(path, "w") as f:
        f.write(sky_task("golfcore-sweep", words, accelerators=cluster.accelerators, hours=hours))
    output.out.print(f"{path}: {shlex.join(['sky', 'launch', '-c', 'sweep', str(path)])}")
    return 0


# --- what is shown ----------------------------------------------------------------------------------------------------


def _run(running: Sweep, folder: Path) -> list[Entry]:
    try:
        with _live(folder) as show:
            return running.run(show)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on with the sweep in {folder}") from None
    except MachineError as error:
        raise MachineError(f"{error}; when that is mended, the same command goes on") from error


def _exit_code(left: str, entries: list[Entry]) -> int:
    """Return 1 if a run has failed by itself, else 0; raise MachineError if runs are left to do."""
    if left:
        raise MachineError(f"{left}; when that is mended, the same command goes on")
    return 1 if any(entry.state == "failed" for entry in entries) else 0


@contextmanager
def _live(folder: Path) -> Iterator[Callable[[list[Entry]], None]]:
    """Show a table that renews itself on a terminal; elsewhere print a line whenever a job ends."""
    if output.err.is_terminal:
        from rich.live import Live

        # Transient: in the end the table is printed as the result.
        with Live(console=output.err, refresh_per_second=2, transient=True) as live:
            yield lambda entries: live.update(_table(folder, entries))
        return
    told: set[int] = set()
    begun = time.monotonic()

    def lines(entries: list[Entry]) -> None:
        from golfcore.sweep.queue import ENDED

        for entry in entries:
            if entry.state in ENDED and entry.id not in told:
                told.add(entry.id)
                score = f"{entry.result['val_bpb']:.4f}" if entry.state == "done" and entry.result else ""
                text = f"{len(told)}/{len(entries)} {entry.job.name}: {entry.state} {score} {entry.note}"
                text = f"{' '.join(text.split())} ({time.monotonic() - begun:.0f} s)"
                output.err.print(text, markup=False, soft_wrap=True)

    yield lines


def _table(folder: Path, entries: Sequence[Entry]) -> Table:
    from golfcore.sweep.table import totals, variants

    right = ("bits per byte", "95 %", "best", "bytes", "runs")
    table = output.plain_table("variant", "runs", "bits per byte", "95 %", "best", "bytes", "", right=right)
    counts = ", ".join(f"{count} {state}" for state, count in totals(entries).items() if count)
    table.title, table.title_justify = f"{folder}: {counts}", "left"
    table.columns[0].no_wrap = False  # where a terminal is narrow this column alone gives way, and no number
    for row in variants(entries):
        states = [f"{row[state]} {state}" for state in ("running", "stopped", "failed") if row[state]]
        table.add_row(
            row["variant"], f"{row['done']}/{row['runs']}", "" if row["mean"] is None else f"{row['mean']:.4f}",
            "" if row["half_width"] is None else f"± {row['half_width']:.4f}",
            "" if row["best"] is None else f"{row['best']:.4f}", "" if row["bytes"] is None else f"{row['bytes']:,.0f}",
            ", ".join(states),
        )  # fmt: skip
    return table


def _report(folder: Path, entries: list[Entry], json: bool) -> None:
    from golfcore.sweep.table import totals, variants

    if json:
        runs = [
            {"name": e.job.name, "variant": e.job.variant, "seed": e.job.seed, "state": e.state, "note": e.note}
            | {"attempts": e.attempts, **(e.result or {})}
            for e in entries
        ]
        output.print_json(
            {"folder": str(folder), "totals": totals(entries), "variants": variants(entries), "runs": runs}
        )
        return
    output.print_table(_table(folder, entries))
    for row in variants(entries):
        for note in row["notes"]:
            output.out.print(f"{row['variant']}, {note}", style="dim", markup=False)
    best = next((row for row in variants(entries) if row["mean"] is not None), None)
    if best:
        output.out.print(f"next: {command('report', folder, '--compare', _base(entries))}", markup=False)


def _base(entries: Sequence[Entry]) -> str:
    """Return the first run that was scored, with which the others are compared."""
    return next(entry.job.name for entry in entries if entry.state == "done")
