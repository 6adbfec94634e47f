"""``golfcore run``: train, quantize, pack and score a model from text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.panel import Panel
from rich.table import Table

from golfcore.cli.output import out, print_json, progress, styled
from golfcore.errors import RuleError
from golfcore.recipes.sizing import AUTO
from golfcore.run_folder import ARTIFACT, CHECKPOINT, LOG, REPORT

if TYPE_CHECKING:
    from golfcore.pipeline.whole import RunResult

Sets = Annotated[
    Sequence[str], Parameter(name=["--set"], negative=(), help="a key of the recipe, as section.key=value")
]
Texts = Annotated[
    Sequence[Path], Parameter(name=["--text"], negative=(), help="your own text: txt, jsonl, gz, zst, folder")
]


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

    wish = Wish(recipe, text, data, {}, set_, os.environ, runs, run_id, resume)
    result = run_wish(wish, progress, resumable)
    if result is not None:
        out.print(closing_panel(result))
        print_json(result.summary())
        if broken := result.broken_limit():
            raise RuleError(broken)
    return 0


@contextmanager
def resumable(run_dir: Path) -> Iterator[None]:
    """Add to an interrupt how to go on, if there is a checkpoint to go on from."""
    try:
        yield
    except KeyboardInterrupt:
        if (run_dir / CHECKPOINT).exists():
            raise KeyboardInterrupt(f"go on with: golfcore run --resume {quote(str(run_dir))}") from None
        raise


def closing_panel(result: RunResult) -> Panel:
    """Return a panel with the score, the bytes, the seconds, the paths of the files, and commands to try next."""
    from golfcore.pipeline.pack import packed_bytes

    config, size = result.config, result.packed["bytes"]
    code = packed_bytes(result.packed, "code", "tokenizer")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    score = result.score
    grid.add_row(
        "bits per byte", styled((f"{score['val_bpb']:.4f}", "bold"), f"   loss {score['val_loss']:.4f} nats/token")
    )
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
    grid.add_row("next", f"golfcore inspect {quote(str(result.artifact))}")
    grid.add_row("", f"golfcore run {config.name} --set train.seed={config.train.seed + 1}")
    grid.add_row("", f"golfcore run {config.name} --text YOUR_TEXT.jsonl")
    return Panel(grid, title=styled(result.run_dir.name), expand=False)


def _phase_text(row: dict[str, Any]) -> str:
    budget = f"/{row['budget_s']:.0f}" if row["budget_s"] else ""
    return f"{row['phase']} {row['seconds']:.1f}{budget}"
