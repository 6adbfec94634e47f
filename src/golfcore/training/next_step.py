"""Find the state of a run's folder and the one command that goes on from it; every message that advises asks here."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from golfcore.config import from_toml
from golfcore.hints import command
from golfcore.paths import sha256_file
from golfcore.run_folder import ARTIFACT, CHECKPOINT, CONFIG, PREVIOUS_CHECKPOINT, QUANTIZED, SCORE, STOPPED, owner

State = Literal["absent", "owned", "begun", "cut off", "stopped", "trained", "quantized", "packed", "scored"]


@dataclass(frozen=True)
class Step:
    """The next step from a run's folder; as a string it is a clause that ends with the command."""

    state: State
    why: str
    command: str

    def __str__(self) -> str:
        return f"{self.why}: {self.command}"


def next_step(run_dir: Path) -> Step:
    """Return the state of a run's folder and what to do next; the folder need not exist."""
    if not (run_dir / CONFIG).is_file():
        return Step("absent", "begin a run", command("run"))
    if process := owner(run_dir):
        return Step("owned", f"{process} is writing to it; see how far it is", command("report", run_dir))
    final, artifact, quantized = _is_final(run_dir), run_dir / ARTIFACT, run_dir / QUANTIZED
    if final is False:
        if (run_dir / STOPPED).is_file():
            why = "a sweep stopped it, since it fell behind; finish it all the same with"
            return Step("stopped", why, command("run", "--resume", run_dir))
        return Step("cut off", "go on with", command("run", "--resume", run_dir))
    if artifact.is_file() and _modified(artifact) >= _modified(quantized):
        if _scored(run_dir) == sha256_file(artifact):
            return Step("scored", "it is finished; write its report again with", command("report", run_dir))
        return Step("packed", "it is packed; score it with", command("eval", artifact, *data_words(run_dir)))
    if quantized.is_file():
        return Step("quantized", "it is quantized; pack it with", command("pack", run_dir))
    if final:
        return Step("trained", "it is trained; quantize it with", command("quantize", run_dir))
    why = "it holds no checkpoint to go on from; begin it again with"
    return Step("begun", why, command(*begin_again(run_dir)))


def begin_again(run_dir: Path) -> list[str | Path]:
    """Return the words of the command that begins a run with the same recipe and tokens in a folder of its own."""
    runs: list[str | Path] = [] if run_dir.parent == Path("runs") else ["--runs", run_dir.parent]
    return ["run", run_dir / CONFIG, *runs]


def _is_final(run_dir: Path) -> bool | None:
    """Return whether the newest readable checkpoint ended its training; None if there is none.

    A checkpoint is a zip archive, whose ``data.pkl`` holds all but the tensors. It is read without torch, since a
    report needs none, and nothing in it is executed: every class stands for an inert one.
    """
    for path in (run_dir / CHECKPOINT, run_dir / PREVIOUS_CHECKPOINT):
        try:
            with zipfile.ZipFile(path) as archive:
                (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
                return bool(_Reader(io.BytesIO(archive.read(name))).load()["final"])
        except Exception:  # damaged in any way: it is none, and what reads the tensors says why
            continue
    return None


class _Inert:
    """Takes the place of every object but plain values."""

    def __init__(self, *_: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _Inert

    def persistent_load(self, pid: Any) -> None:
        return None


def _modified(path: Path) -> float:
    return path.stat().st_mtime if path.is_file() else 0.0


def _scored(run_dir: Path) -> str:
    """Return the hash of the file that the run's score is of; an empty string without a score."""
    try:
        return str(json.loads((run_dir / SCORE).read_bytes())["artifact_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def data_words(run_dir: Path) -> list[str | Path]:
    """Return the options of ``golfcore eval`` that name a run's tokens; none if its config cannot be read."""
    try:
        data: Any = from_toml((run_dir / CONFIG).read_text(encoding="utf-8-sig"))["data"]
        path, tokenizer = str(data["path"]), str(data.get("tokenizer", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    words: list[str | Path] = ["--data", Path(path)]
    return [*words, "--tokenizer", Path(tokenizer)] if tokenizer else words
