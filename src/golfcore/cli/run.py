"""``golfcore run``: train, quantize, pack and score a model from text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.panel import Panel
from rich.table import Table

from golfcore.cli.output import out, print_json, progress, styled
from golfcore.errors import GolfError, MachineError, RuleError, is_of_machine
from golfcore.recipes.sizing import AUTO
from golfcore.run_folder import ARTIFACT, LOG, REPORT
from golfcore.training.next_step import next_step

if TYPE_CHECKING:
    from golfcore.pipeline.whole import RunResult

Sets = Annotated[
    Sequence[str], Parameter(name=["--set"], negative=(), help="a key of the recipe, as section.key=value")
]
Texts = Annotated[
    Sequence[Path], Parameter(name=["--text"], negative=(), help="your own text: txt, jsonl, gz, zst, folder")
]

SkipInvalid = Annotated[
    bool, Parameter(negative="", help="leave out documents that are no text and count them (data.skip_invalid)")
]


def run(
    recipe: str = AUTO,
    *,
    text: Texts = (),
    skip_invalid: SkipInvalid = False,
    data: Path | None = None,
    set_: Sets = (),
    runs: Path = Path("runs"),
    run_id: str = "",
    resume: Path | None = None,
) -> int:
    """Prepare text, train, quantize, pack into model.golf, score that file in a new process, and write a report.

    Parameters
    ----------
    recipe
        A recipe that comes with golfcore, or a .toml file; auto sizes pocket_frontier to this machine.
    data
        A folder of tokens (golfcore data prepare, or contest shards) to use instead of text.
    runs
        The folder in which the run's folder is made.
    run_id
        The name of the run's folder; default: recipe and time.
    resume
        The folder of an interrupted run, which goes on from its last checkpoint.
    """
    from golfcore.api import run_wish
    from golfcore.pipeline.start import Wish

    sets = with_skip_invalid(set_, skip_invalid)
    wish = Wish(recipe, text, data, {}, sets, os.environ, runs, run_id, resume)
    result = run_wish(wish, progress, resumable)
    if result is not None:
        out.print(closing_panel(result))
        for line in result.next:  # outside of the panel, whose frame would be copied with a line that it wraps
            out.print(f"next: {line}", markup=False)
        print_json(result.summary())
        if broken := result.broken_limit():
            raise RuleError(broken)
    return 0


def with_skip_invalid(sets: Sequence[str], skip_invalid: bool) -> list[str]:
    """Return the keys that are set, and that of ``--skip-invalid`` if it was given."""
    return [*sets, *(["data.skip_invalid=true"] if skip_invalid else [])]


@contextmanager
def resumable(run_dir: Path) -> Iterator[None]:
    """Add to an interrupt, and to trouble of the machine, how to go on from what the run has left."""
    try:
        yield
    except KeyboardInterrupt:
        if step := _after_trouble(run_dir):
            raise KeyboardInterrupt(step) from None
        raise
    except GolfError as error:
        if is_of_machine(error) and "golfcore " not in str(error) and (step := _after_trouble(run_dir)):
            raise MachineError(f"{error}; then {step}") from error
        raise


def _after_trouble(run_dir: Path) -> str:
    step = next_step(run_dir)
    return "" if step.state in ("absent", "owned") else str(step)


def closing_panel(result: RunResult) -> Panel:
    """Return a panel with the score, the bytes, the seconds and the paths of the files."""
    from golfcore.pipeline.pack import packed_bytes

    size = result.packed["bytes"]
    code = packed_bytes(result.packed, "code", "tokenizer")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    score = result.score
    grid.add_row(
        "bits per byte", styled((f"{score['val_bpb']:.4f}", "bold"), f"   loss {score['val_loss']:.4f} nats/token")
    )
    if score["adapt"] == "mix":
        grid.add_row("", "counts of tokens that were scored before are mixed in")
    grid.add_row(
        "bytes",
        styled(
            (f"{size['file']:,}", "bold"),
            f" of {size['cap']:,}   weights {size['file'] - code:,}   code and tokenizer {code:,}   "
            f"free {size['free']:,}",
        ),
    )
    grid.add_row("seconds", "   ".join(_phase_text(row) for row in result.ledger))
    for name in (ARTIFACT, REPORT, LOG):
        grid.add_row(name, str(result.run_dir / name))
    return Panel(grid, title=styled(result.run_dir.name), expand=False)


def _phase_text(row: dict[str, Any]) -> str:
    budget = f"/{row['budget_s']:.0f}" if row["budget_s"] else ""
    return f"{row['phase']} {row['seconds']:.1f}{budget}"
