"""Repeat an evaluation from its ``score.json``, and compare."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

from golfcore.artifact.model_io import LoadedModel
from golfcore.data.tokens import open_tokens
from golfcore.errors import FormatError, InputError
from golfcore.evaluate.scorer import ScoredText
from golfcore.paths import sha256_file
from golfcore.pipeline.score import own_text, score_artifact, validation_of
from golfcore.progress import Progress, no_progress
from golfcore.ranges import SOME_WINDOW, TOKENS
from golfcore.ranks.world import join_world

AGREE = 1e-9  # bits per byte by which a replay may differ where the losses are rounded otherwise
SAME_MACHINE = "same machine, versions and number of threads: every loss should be the same to the last bit"


@dataclasses.dataclass(frozen=True)
class Record:
    """The content of a ``score.json``, checked for a replay.

    Attributes:
        content: the file's content.
        artifact: the packed file that it names, or one of that name beside it.
        plan: first token and stride, for each stride that was taken.
    """

    content: Mapping[str, Any]
    artifact: Path
    plan: tuple[tuple[int, int], ...]


def read_record(path: Path) -> Record:
    """Read a ``score.json``.

    Raises:
        InputError: the file cannot be read, or an older golfcore wrote it, without what a replay needs.
        FormatError: it is damaged.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON: {error}") from error
    kinds = {
        "artifact": str, "artifact_sha256": str, "data_sha256": str, "ledger_sha256": str, "adapt": str,
        "precision": str, "context": int, "stride": int, "batch_tokens": int, "tokens": int, "bytes": int,
        "val_bpb": float, "ledger": list,
    }  # fmt: skip
    for key, kind in kinds.items():
        if not isinstance(found, dict) or not isinstance(found.get(key), kind):
            raise InputError(f"{path}: no {key} to replay; golfcore eval --json writes a file that can be replayed")
    SOME_WINDOW.check(f"{path}: context", found["context"], FormatError)
    TOKENS.check(f"{path}: batch_tokens", found["batch_tokens"], FormatError)
    if found["adapt"] not in ("none", "mix"):
        raise FormatError(f"{path}: adapt is {found['adapt'][:20]!r}; expected none or mix")
    named = Path(found["artifact"])
    return Record(found, named if _is_file(named) else path.parent / named.name, _plan(path, found))


def _is_file(path: Path) -> bool:
    """Return whether a file is there; a name that no file can have is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _plan(path: Path, found: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    pace = found.get("pace")
    strides: Any = pace.get("strides") if isinstance(pace, dict) else [[1, found["stride"]]]
    try:
        plan = tuple((first, stride) for first, stride in strides)
        if not all(type(number) is int for pair in plan for number in pair):
            raise ValueError("no whole numbers")
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: strides are no pairs of a token and a stride") from error
    firsts = [first for first, _ in plan]
    ascending = firsts[:1] == [1] and all(a < b for a, b in pairwise([*firsts, found["tokens"] + 1]))
    if not ascending or not all(1 <= stride <= found["context"] for _, stride in plan):
        raise FormatError(f"{path}: strides {str(plan)[:80]} do not cover {found['tokens']:,} tokens in order")
    return plan


def replay(
    score_json: Path,
    *,
    artifact: Path | None = None,
    data: Path | None = None,
    text: Sequence[Path] = (),
    tokenizer: Path | None = None,
    progress: Progress = no_progress,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Score again what a ``score.json`` scored, in the same windows, batches and adaptation, and compare.

    Args:
        score_json: the file.
        artifact: the packed file, if it has moved.
        data, text: the text, if it has moved; its hash must be the same.
        tokenizer: as for ``golfcore.score``.
        progress: shows how far the evaluation is.
        tell: called with notes on the machine.

    Returns:
        ``same``: "losses" (every loss to the last bit), "bits per byte" (to 1e-9) or "" (neither); ``difference`` in
        bits per byte; ``verdict`` in words; ``recorded`` and ``replayed``, the two scores. Empty on every rank but 0.

    Raises:
        InputError: another artifact or another text than those that were scored.
    """
    record = read_record(score_json)
    known = record.content
    packed = artifact or record.artifact
    if not _is_file(packed):
        raise InputError(f"{packed}: no such file; name the artifact: golfcore eval FILE --replay {score_json}")
    if (digest := sha256_file(packed)) != known["artifact_sha256"]:
        raise InputError(f"{packed} has sha256 {digest[:16]}, not {known['artifact_sha256'][:16]} that was scored")
    with join_world() as world, progress("replay", shown=world.primary) as tick:
        result = score_artifact(
            packed, _same_text(_source(known, data, text, tokenizer), known), world,
            batch_tokens=known["batch_tokens"], context=known["context"], plan=record.plan, tick=tick, tell=tell,
            adapt=cast(Literal["none", "mix"], known["adapt"]),
        )  # fmt: skip
        return compare(known, result) if world.primary else {}


def _source(
    known: Mapping[str, Any], data: Path | None, text: Sequence[Path], tokenizer: Path | None
) -> Callable[[LoadedModel, int], ScoredText]:
    """Return a function that gives the text: as given, else as the record says."""
    source = known.get("source")
    if data is None and not text and isinstance(source, dict):
        data = Path(source["data"]) if isinstance(source.get("data"), str) else None
        text = [Path(path) for path in _list(source.get("text")) if isinstance(path, str)]
    if data is not None:
        return validation_of(open_tokens(str(data), str(tokenizer or "")))
    if not text:
        raise InputError("the record does not say where its text is: give --data FOLDER or --text FILE...")
    return own_text(text)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _same_text(
    text_for: Callable[[LoadedModel, int], ScoredText], known: Mapping[str, Any]
) -> Callable[[LoadedModel, int], ScoredText]:
    def checked(loaded: LoadedModel, context: int) -> ScoredText:
        text = text_for(loaded, context)
        if text.sha256 != known["data_sha256"]:
            raise InputError(f"the text has hash {text.sha256[:16]}, not {known['data_sha256'][:16]} that was scored")
        return text

    return checked


def compare(known: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Compare a recorded score with its replay; returns what ``replay`` returns."""
    difference = abs(now["val_bpb"] - known["val_bpb"])
    odd = [f"{key} {now[key]:,} instead of {known[key]:,}" for key in ("tokens", "bytes") if now[key] != known[key]]
    if (token := _other_state(known["ledger"], now["ledger"])) is not None:
        odd.append(f"another adaptive state before token {token:,}")
    same = ""
    if not odd:
        same = "losses" if now["ledger_sha256"] == known["ledger_sha256"] else ""
        same = same or ("bits per byte" if difference <= AGREE else "")
    verdict = {
        "losses": "the same: every loss to the last bit",
        "bits per byte": f"the same to {AGREE:g} bits per byte, with losses that are rounded otherwise",
        "": "another score: " + ", ".join([*odd, f"bits per byte differ by {difference:.3g}"]),
    }[same]
    if same != "losses":
        verdict += f" ({_circumstances(known, now)})"
    return {"same": same, "difference": difference, "verdict": verdict, "recorded": dict(known), "replayed": dict(now)}


def _circumstances(known: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what may round losses otherwise."""
    then, today = (_flat({"precision": of.get("precision")} | _dict(of.get("made_by"))) for of in (known, now))
    return "; ".join(
        f"{key} {then.get(key)} then, {today[key]} now" for key in today if then.get(key) != today[key]
    ) or (SAME_MACHINE)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with those of the mappings among them, one level deep."""
    return {name: found for key, value in values.items() for name, found in (_dict(value) or {key: value}).items()}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _other_state(known: Sequence[Any], now: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the first token before which both ledgers hold a state, and not the same one."""
    states = {entry["tokens"][0]: (entry["learned"], entry["state"]) for entry in now}
    for entry in known:
        try:
            first, state = entry["tokens"][0], (entry["learned"], entry["state"])
            if states.get(first, state) != state:
                return int(first)
        except (TypeError, KeyError, IndexError) as error:
            raise FormatError("the record's ledger has an entry without tokens, learned or state") from error
    return None
