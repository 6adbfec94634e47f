"""Print the output of commands: tables and progress for people, JSON for programs, one line for an error.

Standard output carries results (a table, or with ``--json`` one JSON object and nothing else); progress goes to
standard error, as bars on a terminal and as plain lines elsewhere.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

from golfcore.progress import Tick, silent

if TYPE_CHECKING:
    from rich.table import Table

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """Print one JSON document on one line of standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def plain_table(*headings: str, right: Collection[str] = ()) -> Table:
    """Return a table without borders; columns named in ``right`` are right-aligned, and cells never wrap."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", no_wrap=True)
    return table


def print_table(table: Table) -> None:
    """Print a table; at full width if standard output is no terminal, since a file has no edge to wrap at."""
    if out.is_terminal:
        out.print(table)
    else:
        Console(file=sys.stdout, width=10_000, highlight=False).print(table)


@contextmanager
def progress(label: str, *, shown: bool = True) -> Iterator[Tick]:
    """Show progress: a bar with the time left on a terminal, elsewhere a plain line at most every ten seconds.

    Ranks other than the first pass ``shown=False``.
    """
    if not shown:
        yield silent
        return
    if err.is_terminal:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description:<10}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        with Progress(*columns, console=err) as bar:
            task = bar.add_task(label, total=None, note="")
            yield lambda done, total, note: bar.update(task, completed=done, total=total, note=note)
            bar.update(task, completed=1, total=1, note="")  # what ended well is whole, whatever it last told
        return

    start = last = time.monotonic()

    def line(done: float, total: float, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 10:
            last = now
            share = done / total if total else 0.0
            left = f", {(now - start) * (1 - share) / share:.0f} s left" if share > 0 else ""
            err.print(f"{label}: {share:4.0%}{left} {note}".rstrip(), markup=False)

    yield line
    err.print(f"{label}: done in {time.monotonic() - start:.1f} s", markup=False)
