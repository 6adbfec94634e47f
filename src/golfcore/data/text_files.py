"""Find the files of text that a user named, and count what is left out of a folder."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from golfcore.errors import InputError

KINDS = (".txt", ".jsonl")
PACKED = (".gz", ".zst")
_SHOWN = 12  # kinds that were left out, in one line


@dataclass(slots=True, kw_only=True)
class Reading:
    """Counts of what was read of a text and of what was left out.

    ``left_out`` counts files and folders by their suffix, or by the reason: hidden, empty, links, unreadable.
    """

    files: int = 0  # with at least one document
    documents: int = 0
    empty: int = 0  # documents without a character
    invalid: int = 0  # documents that are no text, left out on request
    first_invalid: str = ""
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, what: str) -> None:
        self.left_out[what] = self.left_out.get(what, 0) + 1

    def line(self) -> str:
        """Return the counts in one line."""
        parts = [f"{_count(self.documents, 'document')} in {_count(self.files, 'file')}"]
        if self.empty:
            parts.append(f"{self.empty:,} empty left out")
        if self.invalid:
            first = f", the first {self.first_invalid}" if self.first_invalid else ""
            parts.append(f"{self.invalid:,} that are no text left out{first}")
        if self.left_out:
            parts.append(f"files left out: {_listed(self.left_out)}")
        return "; ".join(parts).encode("utf-8", "backslashreplace").decode()  # names of files are bytes


def _listed(left_out: Mapping[str, int]) -> str:
    """Return the kinds of files that were left out with their counts, the most frequent first."""
    names = [f"{count:,} {what}" for what, count in sorted(left_out.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more kinds" if len(names) > _SHOWN else "")


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def kind_of(path: Path) -> str:
    """Return ``.txt`` or ``.jsonl``, whatever case and compression, or an empty string for other kinds."""
    suffix = (path.with_suffix("") if path.suffix.lower() in PACKED else path).suffix.lower()
    return suffix if suffix in KINDS else ""


def find_texts(paths: Sequence[Path]) -> tuple[list[Path], set[Path], Counter[str]]:
    """Find the files of text under ``paths``.

    Returns:
        The files in order, those of them that were named themselves, and the counts of what is left out.

    Raises:
        InputError: a missing path, an unknown kind of file, or nothing to read.
    """
    files: list[Path] = []
    named: set[Path] = set()
    left_out: Counter[str] = Counter()
    for path in paths:
        if path.is_dir():
            inside = sorted(_walk(path, left_out))
            if not inside:
                others = f"; left out: {_listed(left_out)}" if left_out else ""
                raise InputError(f"{path}: no .txt or .jsonl file (plain, .gz or .zst) in this folder{others}")
            files += inside
        elif not path.exists():
            raise InputError(f"{path}: no such file or folder; check the path given as text")
        elif not kind_of(path):
            raise InputError(f"{path}: unknown kind of text; expected .txt or .jsonl, plain or with .gz or .zst")
        else:
            files.append(path)
            named.add(path)
    if not files:
        raise InputError("no text was given; name at least one .txt or .jsonl file or a folder of them")
    return files, named, left_out


def _walk(folder: Path, left_out: Counter[str]) -> list[Path]:
    """Return the files of text in a folder and below it; links to folders are not followed, so that none is endless."""

    def unreadable(error: OSError) -> None:
        left_out["folder that cannot be read"] += 1

    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=unreadable):
        for name in [name for name in folders if name.startswith(".") or Path(place, name).is_symlink()]:
            folders.remove(name)
            left_out["hidden folder" if name.startswith(".") else "link to a folder"] += 1
        for path in (Path(place, name) for name in names):
            if reason := _reason_to_leave_out(path):
                left_out[reason] += 1
            else:
                found.append(path)
    return found


def _reason_to_leave_out(path: Path) -> str:
    """Return why a file in a folder is not read: its suffix if that is no kind of text; an empty string if it is."""
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        return f"hidden {suffix}".strip()
    if not kind_of(path):
        inner = path.with_suffix("").suffix.lower() if suffix in PACKED else ""
        return f"{inner}{suffix}" or "without a suffix"
    try:
        found = path.stat()
    except OSError:
        return f"broken link {suffix}"
    if not stat.S_ISREG(found.st_mode):
        return f"device or pipe {suffix}"
    return "" if found.st_size else f"empty {suffix}"
