"""Run an exported script in a Python that cannot import golfcore, and score the same model with golfcore."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from golfcore.artifact.model_io import load_model
from golfcore.contest.logs import final_score, parse_log
from golfcore.data.tokens import Tokens
from golfcore.errors import RuleError
from golfcore.evaluate.booking import Booking, Ranks
from golfcore.evaluate.text import validation_text
from golfcore.ops.ngram import NgramMixture
from golfcore.progress import Tick, silent

TOLERANCE = 1e-6  # bits per byte
REFUSE = """\
import runpy, sys
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "golfcore":
            raise ImportError("golfcore is not here")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_alone(
    script: Path, tokens: Tokens, tokenizer: str, options: Sequence[str], folder: Path | None = None
) -> str:  # fmt: skip
    """Run a script in an isolated Python in which ``import golfcore`` fails; return what it printed.

    Args:
        script: the script.
        tokens: the tokens that it reads.
        tokenizer: path of their tokenizer; empty if the folder holds it.
        options: options of the script.
        folder: its working folder; default: a temporary one.

    Raises:
        RuleError: the script failed.
    """
    kept = {key: os.environ[key] for key in ("PATH", "OMP_NUM_THREADS", "LD_LIBRARY_PATH") if key in os.environ}
    environment = {**kept, "DATA_PATH": str(tokens.folder), "TOKENIZER_PATH": tokenizer}
    with tempfile.TemporaryDirectory() as own:
        done = subprocess.run(
            [sys.executable, "-I", "-c", REFUSE, str(script.absolute()), *options], cwd=folder or own, env=environment,
            capture_output=True, encoding="utf-8", errors="replace", check=False,
        )  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise RuleError(f"{script} failed without golfcore: {last[0]}")
    return done.stdout


def try_script(
    script: Path, artifact: Path, tokens: Tokens, tokenizer: str, score: dict[str, Any], batch_tokens: int
) -> dict[str, Any]:
    """Score ``artifact`` by the script without golfcore, and compare it with golfcore's own score, both in fp32.

    bf16 rounds differently in every implementation of an operation, so no two agree to six digits in it.

    Returns:
        ``val_bpb`` of the script and of golfcore, and the ``difference``.

    Raises:
        RuleError: they differ by more than ``TOLERANCE``, or the script failed.
    """
    printed = run_alone(script, tokens, tokenizer, ["--eval", str(artifact.absolute()), "--precision", "float32"])
    found = final_score(parse_log(printed))
    if found is None:
        raise RuleError(f"{script} printed no score")
    expected = fp32_score(artifact, tokens, score, batch_tokens)
    difference = abs(found["val_bpb"] - expected)
    if not difference <= TOLERANCE:
        raise RuleError(
            f"{script} scores {found['val_bpb']:.8f} bits per byte without golfcore, golfcore {expected:.8f}: they "
            f"differ by more than {TOLERANCE:g}; do not file it, and report the recipe"
        )
    return {"val_bpb": found["val_bpb"], "golfcore_val_bpb": expected, "difference": difference}


def fp32_score(
    artifact: Path, tokens: Tokens, score: dict[str, Any], batch_tokens: int, tick: Tick = silent
) -> float:  # fmt: skip
    """Score a packed model in fp32, in the windows that ``score`` took; return bits per byte."""
    if score["precision"] == "float32":
        return float(score["val_bpb"])
    loaded, text = load_model(artifact), validation_text(tokens, score["context"])
    mixture = NgramMixture(loaded.manifest["model"]["vocab_size"]) if score.get("adapt") == "mix" else None
    booking = Booking(loaded.module, text.tokens, score["context"], batch_tokens, Ranks(), tick, mixture)
    taken = strides_of(score)
    for (_, stride), end in zip(taken, [first - 1 for first, _ in taken[1:]] + [booking.targets], strict=True):
        booking.book_until(min(end, booking.targets), stride)
    return math.fsum(booking.close()) / math.log(2) / text.total_bytes


def strides_of(score: dict[str, Any]) -> list[list[int]]:
    """Return ``[first token, stride]`` of each stride that an evaluation took."""
    pace = score.get("pace")
    return [list(row) for row in pace["strides"]] if pace else [[1, int(score["stride"])]]
