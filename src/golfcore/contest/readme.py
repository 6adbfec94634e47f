"""Read the scores that a README claims: in tables, in its title, and in lines such as ``val_bpb: 1.0811``."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_CELLS = 40
MAX_ROWS = 2_000
_BPB = re.compile(r"(?<![\d.])([01]\.\d{3,10}|2\.\d{3,10})(?![\d.])")
_NAMED = re.compile(r"(?:val[_ ]?bpb|bpb|bits per byte)[\s*`:=~|-]{1,6}([012]\.\d{3,10})", re.IGNORECASE)
_COLUMN = re.compile(
    r"(?:val|final|ttt|post.?ttt|sliding|quant\w*|score)?[\s_*`-]{0,4}bpb|bits per byte", re.IGNORECASE
)
_SEED = re.compile(r"seed", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ReadmeScore:
    """A score that a README claims; ``seed`` is the row's seed, ``column`` the heading above it."""

    bpb: float
    line: int
    seed: int | None = None
    column: str = ""
    title: bool = False


def read_readme(text: str) -> list[ReadmeScore]:
    """Return the scores in bits per byte of a README, in its order."""
    found: list[ReadmeScore] = []
    lines = [line[:4_000] for line in text.split("\n")[: MAX_ROWS * 10]]
    header: list[str] = []
    for number, line in enumerate(lines, 1):
        cells = _cells(line)
        if not cells:
            header = []
            found += [ReadmeScore(float(v), number, title=line.startswith("# ")) for v in _scores(line)]
        elif number < len(lines) and re.fullmatch(r"[\s|:-]+", lines[number]) and "-" in lines[number]:
            header = cells
        elif header and not re.fullmatch(r"[\s|:-]+", line):
            found += _row(header, cells, number)
    return found


def _scores(line: str) -> list[str]:
    if line.startswith("# "):
        return _BPB.findall(line)[:1] if "bpb" in line.lower() else []
    return _NAMED.findall(line)


def _cells(line: str) -> list[str]:
    stripped = line.strip()
    if not stripped.startswith("|"):
        return []
    return [cell.strip(" *`~_") for cell in stripped.strip("|").split("|")[:MAX_CELLS]]


def _row(header: list[str], cells: list[str], number: int) -> list[ReadmeScore]:
    seed = None
    for title, cell in zip(header, cells, strict=False):
        if _SEED.search(title) and re.fullmatch(r"\d{1,12}", cell):
            seed = int(cell)
    result = []
    for title, cell in zip(header, cells, strict=False):
        value = _BPB.search(cell)
        if value and _COLUMN.search(title) and not re.search(r"delta|Δ|std|±|gain|vs", title, re.IGNORECASE):
            result.append(ReadmeScore(float(value[1]), number, seed, title))
    return result
