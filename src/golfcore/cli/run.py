"""``golfcore run``: from text to a proven score."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.panel import Panel
from rich.table import Table

from golfcore.cli import pipeline
from golfcore.cli.output import out, print_json, progress
from golfcore.cli.quantising import Calibration, calibrate, quantise_stage, quantised_line
from golfcore.cli.tokens import Tokens, open_tokens, prepare_data
from golfcore.config import RecipeConfig
from golfcore.errors import InputError, RuleError, UsageError
from golfcore.model import get_family
from golfcore.progress import silent
from golfcore.recipes import load_recipe
from golfcore.recipes.sizing import AUTO, BASE, Size, size_for

if TYPE_CHECKING:
    from golfcore.model.base import LanguageModel
    from golfcore.train.runlog import RunLog
    from golfcore.train.world import World

SIZING_S = 2.0  # of steps that are timed before a run is sized

Sets = Annotated[Sequence[str], Parameter(name=["--set"], negative=(), help="section.key=value, over the recipe's")]
Texts = Annotated[Sequence[Path], Parameter(name=["--text"], negative=(), help="own text: txt, jsonl, gz, zst, folder")]


def run(
    recipe: str = AUTO,
    *,
    text: Texts = (),
    data: Path | None = None,
    set_: Sets = (),
    runs: Path = Path("runs"),
    run_id: str = "",
    resume: Path | None = None,
) -> int:
    """Text -> tokens -> training -> quantised weights -> model.golf -> its score, read in a new process -> report.

    Parameters
    ----------
    recipe
        A recipe that comes with golfcore, or a .toml file; auto sizes pocket_frontier to this machine.
    data
        A folder of tokens (golfcore data prepare, or contest shards) instead of text.
    runs
        Where run folders are made.
    run_id
        The run folder's name; default: recipe and time.
    resume
        A run folder that was cut off; goes on from its last checkpoint.
    """
    from golfcore.train.world import join_world

    with join_world() as world:
        start = begin_together(
            world, recipe, text=text, data=data, sets=set_, runs=runs, run_id=run_id, resume=resume
        )  # fmt: skip
        with resumable(start.run_dir):
            result = run_stages(
                start, world, lambda artifact: evaluate_in_new_process(artifact, start.config, ranks=world.size)
            )
    if world.primary:
        print_json(result)
        judge(start.config, result)
    return 0


@contextmanager
def resumable(run_dir: Path) -> Iterator[None]:
    """Says at an interrupt how to go on, where there is a checkpoint to go on from."""
    try:
        yield
    except KeyboardInterrupt:
        # Named here, not imported: an interrupt must not wait for torch.
        if (run_dir / "checkpoint.pt").exists():
            raise KeyboardInterrupt(f"go on with: golfcore run --resume {run_dir}") from None
        raise


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
    resume: Path | None, shown: bool = True, size: Size | None = None, ranks: int = 1,
) -> Start:  # fmt: skip
    """Resolves a recipe, names a run folder and prepares the tokens; arguments as of ``run``.

    Recipe auto measures this machine, on which ``ranks`` will share the work, unless a ``size`` is given.
    """
    if resume is not None:
        if text or data or sets:
            raise UsageError("--resume goes on with the run's own config: drop --text, --data and --set")
        return Start(resume, pipeline.read_config(resume), resumed=True)
    sets = [*sets, *([f"data.path={data}"] if data else [])]
    if recipe == AUTO:
        size = size or measured_size(sets, ranks, shown=shown)
        loaded = load_recipe(BASE, environment=os.environ, sets=sets, sizes=size.keys)
        loaded = replace(loaded, config=replace(loaded.config, name=AUTO))
    else:
        loaded = load_recipe(recipe, environment=os.environ, sets=sets)
    run_dir = new_run_dir(runs, run_id or os.environ.get("RUN_ID", ""), loaded.config.name)
    with progress("data", shown=shown) as tick:
        config = prepare_data(loaded.config, text, tick)
    return Start(run_dir, config, loaded.overrides, size)


def measured_size(sets: Sequence[str], ranks: int, *, shown: bool) -> Size:
    """Times a few steps of the base recipe, with the user's own keys, and sizes it to what the clock allows."""
    from golfcore.plan.cost import stage_costs
    from golfcore.plan.measure import measure_step

    config = load_recipe(BASE, environment=os.environ, sets=sets).config
    family = get_family(config.model_family)
    first = stage_costs(config, family, config.data.vocab_size)[0]
    with progress("this machine's speed", shown=shown):
        found = measure_step(config, family, config.data.vocab_size, first, SIZING_S)
    return size_for(config.steps_s * 1000 / found.ms * ranks if config.steps_s else config.train.iterations)


def begin_together(
    world: World, recipe: str, *, text: Sequence[Path], data: Path | None, sets: Sequence[str] = (), runs: Path,
    run_id: str, resume: Path | None,
) -> Start:  # fmt: skip
    """``begin`` on rank 0 first, so that text is prepared and the run folder named once; then on the other ranks.

    A rank on another machine has its own environment and its own tokens; ``pipeline.require_alike`` compares them.
    """

    def start(name: str, size: Size | None) -> Start:
        return begin(
            recipe, text=text, data=data, sets=sets, runs=runs, run_id=name, resume=resume, shown=world.primary,
            size=size, ranks=world.size,
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


def run_stages(start: Start, world: World, evaluate: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Everything after the text is tokens.

    Every rank calls this; rank 0 alone quantises, packs and writes.

    Args:
        start: from ``begin``.
        world: the ranks.
        evaluate: scores the packed file.

    Returns:
        What the last line of ``golfcore run`` prints.
    """
    from golfcore.report import build_report
    from golfcore.train.runlog import LEDGER, RunLog, budget_use, read_ledger

    run_dir, config = start.run_dir, start.config
    tokens = open_tokens(config.data.path, config.data.tokenizer)
    predicted = pipeline.check_fits(config, tokens.vocab_size)
    pipeline.require_alike(config, tokens, world)
    saved, note = pipeline.resume_point(run_dir, world) if start.resumed else (None, "")
    if world.primary:
        pipeline.write_config(run_dir, config)
    artifact = run_dir / pipeline.ARTIFACT
    packed: dict[str, Any] = {}
    with RunLog(run_dir, primary=world.primary, echo=start.echo, resume_step=saved["step"] if saved else None) as log:
        world.before_end(lambda reason: log.line(f"error: {reason}"))
        if note:
            log.line(f"warning: {note}")
        for line in start.size.lines() if start.size else []:
            log.line(line)
        for override in start.overrides:
            log.line(f"override: {override}")
        log.line(f"predicted_weights:{predicted} cap:{config.track.cap_bytes}")
        module = _trained(start, saved, tokens, world, log)
        with world.watched(pipeline.LONG_CALL_S):
            calibration = _calibrated(module, config, tokens, world, log)
            if world.primary:
                packed = _packed(run_dir, config, module, tokens, calibration, world, log)
            del module
            world.barrier()
        with log.phase("evaluate", config.track.eval_s):
            score = evaluate(artifact)
        if not world.primary:
            return {}
        pipeline.write_score(run_dir, score)
        for line in pipeline.closing_lines(config, packed, score):
            log.line(line)
    ledger = read_ledger(run_dir / LEDGER)
    train_s, eval_s = budget_use(ledger)
    result = {
        "run": run_dir.name,
        "val_bpb": score["val_bpb"],
        "val_loss": score["val_loss"],
        "bytes_total": packed["bytes"]["file"],
        "bytes_cap": config.track.cap_bytes,
        "train_s": train_s,
        "eval_s": eval_s,
        "artifact": str(artifact),
        "report": str(build_report(run_dir)),
    }
    out.print(closing_panel(config, run_dir, packed, result, ledger))
    return result


def _trained(start: Start, saved: dict[str, Any] | None, tokens: Tokens, world: World, log: RunLog) -> LanguageModel:
    """The trained module; a resumed run whose training had ended does not train again."""
    if saved is not None and saved["final"]:
        return pipeline.load_weights(start.run_dir, start.config, tokens.vocab_size, saved)
    with progress("train", shown=world.primary and start.echo is None) as tick:
        return pipeline.train_stage(
            start.config, tokens, world, log, resume=saved, tick=lambda share, note: tick(share, 1.0, note)
        )


def _calibrated(
    module: LanguageModel, config: RecipeConfig, tokens: Tokens, world: World, log: RunLog
) -> Calibration:  # fmt: skip
    """Hessians over all ranks; those of training text are training, and counted as such."""
    if config.quant.calibration == "generated":
        with log.phase("calibrate"), progress("calibrate", shown=world.primary) as tick:
            return calibrate(module, config, tokens, world, tick=pipeline.telling(world, tick, "calibration"))
    with log.phase("train", config.track.train_s or None) as phase:
        left = config.track.train_s - phase.seconds if config.track.train_s else math.inf
        tick = pipeline.telling(world, silent, "calibration")
        return calibrate(module, config, tokens, world, seconds=max(left, 0.0), tick=tick)


def _packed(
    run_dir: Path, config: RecipeConfig, module: LanguageModel, tokens: Tokens, calibration: Calibration, world: World,
    log: RunLog,
) -> dict[str, Any]:  # fmt: skip
    """Quantises and packs, while the other ranks wait; the inspection of the file."""
    with log.phase("quantise"), progress("quantise") as tick:
        told = pipeline.telling(world, tick, "quantising")
        quantised = quantise_stage(run_dir, module, config, tokens, calibration, tick=told)
    log.line(quantised_line(quantised))
    with log.phase("pack"), progress("pack") as tick:
        artifact = run_dir / pipeline.ARTIFACT
        return pipeline.pack_stage(run_dir, config, tokens, artifact, pipeline.telling(world, tick, "packing"))


def evaluate_in_new_process(artifact: Path, config: RecipeConfig, *, ranks: int = 1) -> dict[str, Any]:
    """Scores ``artifact`` with a fresh interpreter that sees nothing but the file and the tokens.

    Of several ranks each calls this; their new processes meet and share the work. Rank 0 alone gets the score. The
    new process's start is on the evaluation's clock, so it is told when that began.
    """
    from golfcore.train.rendezvous import environment_of_children

    command = [
        sys.executable, "-m", "golfcore", "eval", str(artifact), "--data", config.data.path, "--json",
        "--batch-tokens", str(config.eval.batch_tokens), "--budget", str(config.track.eval_s),
        "--began", repr(time.time()),
    ]  # fmt: skip
    if config.data.tokenizer:
        command += ["--tokenizer", config.data.tokenizer]
    environment = environment_of_children(os.environ) if ranks > 1 else None
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode:
        raise InputError(
            f"the evaluation ended with exit code {done.returncode}; try it alone: {' '.join(command[1:])}"
        )
    result: dict[str, Any] = json.loads(done.stdout or "{}")
    return result


def judge(config: RecipeConfig, result: dict[str, Any]) -> None:
    """Raises RuleError where the run broke its track's limits; everything it made stays."""
    track = config.track
    for what, value, limit, unit in (
        ("the artifact", result["bytes_total"], track.cap_bytes, "bytes"),
        ("training", result["train_s"], track.train_s, "s"),
        ("evaluation", result["eval_s"], track.eval_s, "s"),
    ):
        if limit and value > limit:
            digits = 0 if unit == "bytes" else 2
            raise RuleError(
                f"{what} took {value:,.{digits}f} {unit}, track {track.name} allows {limit:,.{digits}f}; "
                f"{result['run']} is kept, but its score does not count"
            )


def closing_panel(
    config: RecipeConfig, run_dir: Path, packed: dict[str, Any], result: dict[str, Any], ledger: list[dict[str, Any]]
) -> Panel:
    """The score, the bytes, the seconds, where things are, and what to do next."""
    size = packed["bytes"]
    code = pipeline.packed_bytes(packed, "code", "tokenizer")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    grid.add_row("bits per byte", f"[bold]{result['val_bpb']:.4f}[/]   loss {result['val_loss']:.4f} nats/token")
    grid.add_row(
        "bytes",
        f"[bold]{size['file']:,}[/] of {size['cap']:,}   weights {size['file'] - code:,}   "
        f"code and tokenizer {code:,}   free {size['free']:,}",
    )
    grid.add_row("seconds", "   ".join(_phase_text(row) for row in ledger))
    for name in (pipeline.ARTIFACT, "report.html", "log.txt"):
        grid.add_row(name, str(run_dir / name))
    grid.add_row("next", f"golfcore inspect {run_dir / pipeline.ARTIFACT}")
    grid.add_row("", f"golfcore run {config.name} --set train.seed={config.train.seed + 1}")
    grid.add_row("", f"golfcore run {config.name} --text YOUR_TEXT.jsonl")
    return Panel(grid, title=f"{result['run']}", expand=False)


def _phase_text(row: dict[str, Any]) -> str:
    budget = f"/{row['budget_s']:.0f}" if row["budget_s"] else ""
    return f"{row['phase']} {row['seconds']:.1f}{budget}"
