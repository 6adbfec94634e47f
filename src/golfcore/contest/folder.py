"""Read the folder of an entry without trusting it: sizes are bounded, links are not followed, nothing is executed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from golfcore.contest.findings import Finding, clean
from golfcore.errors import InputError, UsageError

MAX_FILES = 2_000
MAX_DEPTH = 8
MAX_TEXT = 8_000_000  # bytes of one text file that are read
MAX_ALL = 64_000_000  # bytes of all of them
MAX_ENTRIES = 50  # folders that are named if there are several entries
SCRIPT, SUBMISSION, README, REQUIREMENTS = "train_gpt.py", "submission.json", "README.md", "requirements.txt"
PYTHON, NATIVE, SHELL = (".py",), (".c", ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h", ".hpp"), (".sh", ".bash", ".slurm")
LOGS = (".log", ".txt", ".out", ".jsonl", ".tsv")
TEXT = (*PYTHON, *NATIVE, *SHELL, *LOGS, ".json", ".md", ".rst", ".toml", ".yml", ".yaml", ".cfg", ".ini", ".patch")


@dataclass(frozen=True, slots=True)
class EntryFile:
    """A file of an entry: ``name`` is its path within the folder; ``text`` is None if it is no text or too large."""

    name: str
    size: int
    text: str | None = None

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()

    def lines(self, *numbers: int) -> tuple[str, ...]:
        """Return the lines with these numbers, from 1; a number outside the file is left out."""
        every = (self.text or "").split("\n")
        return tuple(every[n - 1] for n in numbers if 0 < n <= len(every))


@dataclass
class Entry:
    """The folder of an entry: its files by their path within it, and what was wrong with the folder itself."""

    folder: Path
    files: dict[str, EntryFile] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    def named(self, name: str) -> EntryFile | None:
        """Return the file of this name at the top of the folder, in any spelling of case."""
        exact = self.files.get(name)
        return exact or next((file for key, file in self.files.items() if key.lower() == name.lower()), None)

    def with_suffix(self, suffixes: tuple[str, ...]) -> list[EntryFile]:
        """Return the text files with one of these suffixes, by name."""
        found = [file for file in self.files.values() if file.suffix in suffixes and file.text is not None]
        return sorted(found, key=lambda file: file.name)

    def logs(self) -> list[EntryFile]:
        """Return the training logs: text files that are neither requirements nor notes."""
        stems = ("requirements", "readme", "license", "notes", "constraints", "environment")
        found = self.with_suffix((".log", ".txt", ".out"))
        return [file for file in found if not Path(file.name).name.lower().startswith(stems)]


def read_entry(folder: Path) -> Entry:
    """Read an entry: a folder with train_gpt.py or submission.json, or one that has exactly one such folder within it.

    Raises:
        InputError: there is no such folder, or no entry in it.
        UsageError: there are several entries in it.
    """
    if not folder.is_dir():
        raise InputError(f"{clean(str(folder))} is no folder; expected the folder of an entry, with {SCRIPT} in it")
    found = _entries(folder)
    if not found:
        raise InputError(f"no {SCRIPT} and no {SUBMISSION} in {clean(str(folder))}; name the folder of an entry")
    if len(found) > 1:
        names = ", ".join(clean(str(path)) for path in found[:5])
        raise UsageError(f"{len(found)} entries in {clean(str(folder))}: name one of them, such as {names}")
    entry = Entry(found[0])
    total = 0
    for path in _walk(entry, entry.folder, 0):
        total = _add(entry, path, total)
    return entry


def _entries(folder: Path) -> list[Path]:
    """Return the folder itself if it is an entry, else the entries at most five folders below it."""
    level = [folder]
    for _ in range(6):
        found = [path for path in level if any((path / name).is_file() for name in (SCRIPT, SUBMISSION))]
        if found:
            return found
        below: list[Path] = []
        for path in level:
            try:
                below += [Path(item.path) for item in os.scandir(path) if item.is_dir(follow_symlinks=False)]
            except OSError:
                continue
        level = sorted(below)[:MAX_FILES]
    logs = any(path.suffix in (".log", ".txt", ".py", ".md") for path in folder.iterdir())
    return [folder] if logs else []  # an entry without its two main files is one whose files are missing


def _walk(entry: Entry, folder: Path, depth: int) -> Iterator[Path]:
    """Yield regular files below a folder by name; links, devices and what is too deep become findings."""
    try:
        with os.scandir(folder) as items:
            listed = [item for item, _ in zip(items, range(MAX_FILES + 1), strict=False)]
    except OSError as error:
        _odd(entry, folder, f"cannot be listed: {error.strerror}", "make it readable")
        return
    if len(listed) > MAX_FILES:
        entry.not_checked.append(f"files beyond the first {MAX_FILES:,} of a folder")
    for item in sorted(listed[:MAX_FILES], key=lambda item: item.name):
        path = Path(item.path)
        if item.is_symlink():
            inside = path.resolve().is_relative_to(entry.folder.resolve())
            what = "is a link" if inside else "is a link that leads out of the folder"
            _odd(entry, path, f"{what}; it was not followed", "put the file itself in its place")
        elif item.is_dir(follow_symlinks=False):
            if depth >= MAX_DEPTH:
                _odd(entry, path, f"is over {MAX_DEPTH} folders deep and was not read", "put its files higher up")
            elif item.name not in ("__pycache__", ".git"):
                yield from _walk(entry, path, depth + 1)
        elif item.is_file(follow_symlinks=False):
            yield path
        else:
            _odd(entry, path, "is neither a file nor a folder and was not opened", "remove it")


def _add(entry: Entry, path: Path, total: int) -> int:
    """Add a file to the entry and return how many bytes of text were read by now."""
    name = path.relative_to(entry.folder).as_posix()
    if len(entry.files) >= MAX_FILES:
        entry.not_checked.append(f"files beyond the first {MAX_FILES:,}")
        return total
    text = None
    try:
        size = path.stat(follow_symlinks=False).st_size
        if path.suffix.lower() in TEXT or path.suffix == "":
            if size > MAX_TEXT or total + size > MAX_ALL:
                entry.not_checked.append(f"{clean(name)}: {size:,} bytes are more than is read of a text file")
            else:
                text = _text(entry, path, name)
                total += size
    except OSError as error:
        _odd(entry, path, f"cannot be read: {error.strerror}", "make it readable")
        return total
    entry.files[name] = EntryFile(name, size, text)
    return total


def _text(entry: Entry, path: Path, name: str) -> str | None:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = file.read(MAX_TEXT)
    if b"\0" in data[:4096] and data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        _odd(entry, path, "is UTF-16", "save it as UTF-8")
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        if path.suffix == "":
            return None
        _odd(entry, path, f"is not UTF-8: byte {error.start:,}", "save it as UTF-8")
        return data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def _odd(entry: Entry, path: Path, what: str, fix: str) -> None:
    name = clean(path.relative_to(entry.folder).as_posix()) or "."
    entry.findings.append(Finding("package", "FORMAT", f"{name} {what}.", f"{fix[0].upper()}{fix[1:]}.", file=name))
