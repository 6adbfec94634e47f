"""Print the output of commands: tables and progress for people, JSON for programs, one line for an error.

Standard output carries results (a table, or with ``--json`` one JSON object and nothing else); progress goes to
standard error, as bars on a terminal and as plain lines elsewhere. Text is shown as it is: nothing is read as markup or
as the name of an emoji, and a style is given beside the text, by ``styled``.
"""

from __future__ import annotations

import codecs
import json
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from golfcore.printing import printable
from golfcore.progress import Tick, silent

if TYPE_CHECKING:
    from rich.table import Table


class PlainConsole(Console):
    """A console that reads nothing in a text: no markup, no emoji, no control character."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text, or a table's cell or title, for the terminal; a newline stays."""
        return super().render_str(printable(text, keep="\n\t"), **{**options, "markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the pieces of anything that is printed; the console's own codes are marked as such, and stay."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else Segment(printable(piece.text, keep="\n\t"), piece.style)


out = PlainConsole(soft_wrap=True)
err = PlainConsole(stderr=True)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Return a line of plain parts and of ``(text, style)``: ``styled(("ok", "green"), ": all rows")``."""
    return Text.assemble(
        *((printable(part), "") if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts)
    )


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """Print one JSON document on one line of standard output, in UTF-8, or in ASCII where the locale is another one."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        if codecs.lookup(sys.stdout.encoding).name != "utf-8":
            raise UnicodeError
        text.encode()
    except (UnicodeError, LookupError, TypeError):  # bytes of a file name that are not UTF-8, for one
        text = json.dumps(value)
    sys.stdout.write(text + "\n")
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
        PlainConsole(file=out.file, width=10_000).print(table)


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
            TextColumn("{task.description:<10}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )  # fmt: skip
        with Progress(*columns, console=err) as bar:
            task = bar.add_task(printable(label), total=None, note="")
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
            err.print(f"{label}: {share:4.0%}{left} {note}".rstrip())

    yield line
    err.print(f"{label}: done in {time.monotonic() - start:.1f} s")
