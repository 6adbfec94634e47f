"""Check that an entry is complete, and that its files can be read."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from golfcore.contest.checks.context import Context
from golfcore.contest.folder import README, REQUIREMENTS, SCRIPT, SUBMISSION

WANTED = ("name", "author", "date", "val_bpb")
_FOLDER = re.compile(r"\d{4}-\d{2}-\d{2}[_-].+")


def check_package(context: Context) -> None:
    """Check files, folder name and the fields of submission.json."""
    _files(context)
    _submission(context)
    _names(context)


def _files(context: Context) -> None:
    entry = context.entry
    missing = [
        (SCRIPT, "the script that trains and scores"),
        (SUBMISSION, "what is claimed"),
        (README, "what was done and how to run it"),
    ]
    for name, what in missing:
        if entry.named(name) is None:
            elsewhere = [file for file in entry.files if PurePosixPath(file).name.lower() == name.lower()]
            hint = f"Move {elsewhere[0]} to the top of the folder." if elsewhere else f"Add {name}."
            context.flag("package", "FORMAT", f"{name} is missing: {what}.", hint, kind="meta")
        elif entry.named(name) is not entry.files.get(name):
            context.flag("package", "FORMAT", f"{name} is spelled otherwise.", f"Rename it to {name}.", kind="meta")
    if not context.logs:
        context.flag("package", "FORMAT", "There is no training log.", "Add the log of each seed.", kind="meta")
    elif context.record and len(context.logs) < context.rules.limits.min_seeds:
        context.flag(
            "R14",
            "INFO",
            f"{len(context.logs)} training logs; a record usually has {context.rules.limits.min_seeds}.",
            "Add the logs of more seeds.",
            kind="meta",
        )
    if context.script is not None and entry.named(REQUIREMENTS) is None:
        context.flag("package", "INFO", f"There is no {REQUIREMENTS}.", "List what the script imports.", kind="meta")
    if context.script is not None and context.script.text is None:
        context.flag("package", "FORMAT", f"{SCRIPT} cannot be read as text.", "Ship it as UTF-8.", kind="meta")


def _submission(context: Context) -> None:
    file = context.submission_file
    if file is None:
        return
    for problem in context.submission.problems[:5]:
        context.flag(
            "package",
            "FORMAT",
            f"submission.json: {problem}.",
            "Write one JSON object of plain values.",
            file=file.name,
            kind="meta",
        )
    if context.submission.raw:
        lacking = [name for name in WANTED if name not in context.submission.values]
        if lacking:
            context.flag(
                "package",
                "FORMAT",
                f"submission.json has no {', '.join(lacking)}, in no known spelling.",
                "Add the fields.",
                file=file.name,
                kind="meta",
            )
    value = context.submission.values.get("val_bpb")
    if value is not None and not isinstance(value, (int, float)):
        context.flag(
            "package",
            "FORMAT",
            f"val_bpb is {type(value).__name__}; expected a number.",
            "Write the mean of the seeds.",
            file=file.name,
            kind="meta",
        )


def _names(context: Context) -> None:
    name = context.entry.folder.resolve().name
    if context.rules.tracks and not _FOLDER.fullmatch(name):
        context.flag(
            "package",
            "INFO",
            f"The folder is called {name!r}.",
            "Call it YYYY-MM-DD_Name.",
            kind="meta",
        )
    marks = [file.name for file in context.entry.files.values() if file.text and "TODO: fill in" in file.text]
    if marks:
        context.flag(
            "package",
            "FORMAT",
            "A placeholder was not filled in.",
            "Fill it in.",
            file=marks[0],
            kind="meta",
        )
