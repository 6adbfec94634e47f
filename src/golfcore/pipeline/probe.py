"""Probe a packed model, or a stranger's scorer file, on the beginning of a text."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from golfcore.artifact.model_io import load_model
from golfcore.data.contracts import BOS, SPECIAL_IDS
from golfcore.data.text import read_documents
from golfcore.errors import InputError
from golfcore.evaluate.probes.packed import packed_scorer
from golfcore.evaluate.probes.process import ScorerProcess, scorer_process
from golfcore.evaluate.probes.scorer import Numbers, Scorer, Tokens
from golfcore.evaluate.probes.suite import Excerpt, run_probes
from golfcore.ops import products
from golfcore.ops.ngram import NgramMixture
from golfcore.ops.threads import fit_threads
from golfcore.pipeline.score import adaptation_of, windows_of
from golfcore.progress import Tick, silent
from golfcore.tokenizer import Tokenizer
from golfcore.training.precision import choose_precision

TOKENS = 512  # of the excerpt, if the scorer is a stranger's; ours reads two windows
BUDGET_S = 600.0  # of a stranger's evaluation: the contest's
LEAST = 16  # tokens of an excerpt
BYTES_PER_TOKEN = 6  # more than a token of the text stands for, so that the excerpt is long enough
BYTE_IDS = 260  # the vocabulary of bytes behind four special ids


def probe_artifact(
    artifact: Path,
    text: Sequence[Path],
    *,
    tokens: int = 0,
    budget_s: float | None = None,
    adapt: Literal["none", "mix"] | None = None,
    device: torch.device,
    tick: Tick = silent,
) -> dict[str, Any]:
    """Probe a packed model of ours as it would be scored.

    Args:
        artifact: a ``model.golf`` with a tokenizer of its own.
        text: files or folders of text.
        tokens: tokens of the excerpt; 0 for two windows.
        budget_s: seconds that the evaluation of the whole text may take, 0 for no limit; default: as the artifact says.
        adapt: replaces the artifact's ``eval.adapt`` if given.
        device: the device of the model.
        tick: called with the progress so far.

    Returns:
        What ``golfcore probe --json`` prints.
    """
    began = time.perf_counter()
    fit_threads()
    loaded = load_model(artifact)
    if not loaded.tokenizer:
        raise InputError(f"{artifact} carries no tokenizer of its own, so no text can be probed: wrap it in a --scorer")
    tokenizer = Tokenizer.from_bytes(loaded.tokenizer)
    windows = windows_of(loaded.manifest, 0, None, None)
    stride = min(windows.possible_strides())
    adapt = adaptation_of(loaded.manifest) if adapt is None else adapt
    route = products.route()
    precision, _ = choose_precision("auto", device)
    how: dict[str, Any] = {
        "context": windows.context, "stride": stride, "adapt": adapt, "device": str(device),
        "precision": str(precision).removeprefix("torch."), "route": tuple(route),
    }  # fmt: skip
    ours = dataclasses.replace(
        subject(artifact, **how), decode=lambda ids: tokenizer.decode(ids.astype(np.uint16)),
        byte_counts=lambda ids: tokenizer.token_bytes[ids[1:]].tolist(),
    )  # fmt: skip
    load_s = time.perf_counter() - began
    excerpt = _excerpt(
        text, tokens or 2 * windows.context + 1, lambda doc: [BOS, *tokenizer.encode(doc).tolist()]
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scorer.py"
        file.write_text(OWN_FILE.format(name=artifact.name, how=how), encoding="utf-8")
        results = run_probes(
            ours, excerpt, _in_new_process(file, [artifact]), load_s=load_s,
            budget_s=windows.budget_s if budget_s is None else budget_s, tick=tick,
        )  # fmt: skip
    return _found(str(artifact), excerpt, results) | {"windows": [windows.context, stride], "adapt": adapt}


OWN_FILE = """\
from golfcore.pipeline.probe import subject

scorer = subject({name!r}, **{how!r})
vocab_size, score, predict = scorer.vocab_size, scorer.score, scorer.predict
"""


def subject(
    artifact: Path | str, *, context: int, stride: int, adapt: str, device: str, precision: str,
    route: tuple[Any, ...],
) -> Scorer:  # fmt: skip
    """Load a packed model as a scorer, with nothing left to choose: a new process computes as the first one did.

    Args:
        artifact: a ``model.golf``.
        context, stride: the windows, in tokens.
        adapt: ``"none"`` or ``"mix"``.
        device: the device of the model.
        precision: the dtype of the activations.
        route: the products' precision and library, the fields of ``golfcore.ops.products.Route``.
    """
    fit_threads()
    loaded = load_model(Path(artifact))
    module = loaded.module.to(torch.device(device))
    module.activation_dtype = getattr(torch, precision)
    vocab_size = int(loaded.manifest["model"]["vocab_size"])
    scorer = packed_scorer(
        module, vocab_size, context=context, stride=stride,
        mixture=(lambda: NgramMixture(vocab_size)) if adapt == "mix" else None,
    )  # fmt: skip

    def routed(work: Callable[[Tokens], Any] | None) -> Any:
        def call(tokens: Tokens) -> Any:
            with products.using(products.Route(*route)):
                return work(tokens) if work else None

        return call

    return dataclasses.replace(
        scorer, score=routed(scorer.score), predict=routed(scorer.predict), ledger=routed(scorer.ledger)
    )


def probe_file(
    file: Path,
    text: Sequence[Path],
    *,
    beside: Sequence[Path] = (),
    tokens: int = 0,
    budget_s: float | None = None,
    tick: Tick = silent,
) -> dict[str, Any]:
    """Execute a stranger's scorer file in a process of its own, and probe it.

    Args:
        file: a Python file that follows the protocol (docs/guides/evaluation.md).
        text: files or folders of text.
        beside: files that the scorer reads, which are copied beside it.
        tokens: tokens of the excerpt; 0 for ``TOKENS``.
        budget_s: seconds that the evaluation of the whole text may take, 0 for no limit; default: the contest's 600.
        tick: called with the progress so far.

    Returns:
        What ``golfcore probe --json`` prints.
    """
    with scorer_process(file, beside) as process:
        excerpt = _excerpt(text, tokens or TOKENS, _encoder(process))
        results = run_probes(
            process.scorer, excerpt, _in_new_process(file, beside), load_s=process.load_s,
            budget_s=BUDGET_S if budget_s is None else budget_s, tick=tick,
        )  # fmt: skip
    return _found(str(file), excerpt, results)


def _in_new_process(file: Path, beside: Sequence[Path]) -> Callable[[Tokens], Any]:
    def fresh(tokens: Tokens) -> Any:
        with scorer_process(file, beside) as process:
            losses = process.scorer.losses(tokens)
            return losses, process.surroundings()

    return fresh


def _encoder(process: ScorerProcess) -> Callable[[bytes], Numbers]:
    """Return the file's own encoder, or one into bytes for a vocabulary that has them."""
    if process.scorer.encode is not None:
        return process.scorer.encode
    if process.scorer.vocab_size < BYTE_IDS:
        raise InputError(
            f"the scorer has {process.scorer.vocab_size} tokens and no encode: define encode(text) -> tokens in it "
            f"(from {BYTE_IDS} tokens on, text is given as bytes: id = byte + {SPECIAL_IDS})"
        )
    return lambda document: [BOS, *(byte + SPECIAL_IDS for byte in document)]


def _excerpt(text: Sequence[Path], tokens: int, encode: Callable[[bytes], Numbers]) -> Excerpt:
    """Return the beginning of a text.

    Raises:
        InputError: a text of fewer than ``LEAST`` tokens.
    """
    taken, left, whole = list[bytes](), tokens * BYTES_PER_TOKEN, 0
    for document in read_documents(text):
        whole += len(document)
        if left > 0 and document:
            part = document if len(document) <= left else document[:left].decode("utf-8", "ignore").encode()
            taken.append(part)
            left -= len(part)
    proof = np.concatenate([np.asarray(encode(part), np.int64) for part in taken] or [np.empty(0, np.int64)])
    if len(proof) < LEAST:
        raise InputError(f"the text has {len(proof)} tokens; the probes need at least {LEAST}: give a longer --text")
    kept = b"".join(taken)
    return Excerpt(proof[:tokens], proof, kept, round(whole * len(proof) / max(1, len(kept))))


def _found(name: str, excerpt: Excerpt, results: Sequence[Any]) -> dict[str, Any]:
    rows = [dataclasses.asdict(result) for result in results]
    for row in rows:  # JSON has neither infinity nor NaN
        row |= {key: None for key in ("figure", "tolerance") if not np.isfinite(row[key])}
    return {
        "subject": name, "passed": all(result.passed is not False for result in results),
        "tokens": len(excerpt.tokens), "text_tokens": excerpt.whole, "probes": rows,
    }  # fmt: skip
