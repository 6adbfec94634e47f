"""The denominator probe: bytes of the text itself, of the decoded tokens, and of the scorer's table."""

from __future__ import annotations

import numpy as np

from golfcore.errors import RuleError
from golfcore.evaluate.probes.result import ProbeResult
from golfcore.evaluate.probes.scorer import Scorer, Tokens

NAME, UNIT = "denominator", "bytes off"
PROVES = "the bytes that are divided by are those of the text: counted on it, on decoded tokens, and by the table"


def denominator(scorer: Scorer, tokens: Tokens, text: bytes) -> ProbeResult:
    """Compare the three counts over an excerpt; what differs names the first token.

    Args:
        scorer: the scorer; its ``decode`` and ``byte_counts`` are compared.
        tokens: int64 [n], the excerpt's tokens, documents end to end.
        text: the excerpt's bytes, documents end to end.
    """
    if scorer.decode is None and scorer.byte_counts is None:
        return ProbeResult(NAME, None, 0.0, 0.0, UNIT, PROVES, "all of it: the file has neither byte_counts nor decode")
    table = None if scorer.byte_counts is None else _table(scorer, tokens)
    if table is not None and scorer.decode is None:
        first_bytes = int(_table(scorer, tokens[[0, 0]])[0])  # of the token that is no target: 0 if it is a mark
        off = abs(int(table.sum()) + first_bytes - len(text))
        found = f"the table counts {int(table.sum()):,} bytes, the text has {len(text):,}" if off else ""
        return ProbeResult(NAME, not off, off, 0.0, UNIT, PROVES, "decoding: the file has no decode", None, found)
    ends, decoded, first, found = _decoded(scorer, tokens, text)
    off = 0 if decoded == text else max(1, abs(len(decoded) - len(text)))
    if table is not None:
        counted = ends[1:] - ends[:-1]
        off = max(off, abs(int(table.sum()) - (len(text) - int(ends[0]))))
        differ = np.flatnonzero(table != counted)
        if len(differ) and (first is None or int(differ[0]) + 1 <= first):
            at = int(differ[0])
            off, first = max(off, 1), at + 1
            found = (
                f"token {at + 1:,} (id {tokens[at + 1]}): {table[at]} bytes by the table, {counted[at]} decoded; in "
                f"all {int(table.sum()):,}, the text has {len(text):,}"
            )
    left = "" if table is not None else "the table: the file has no byte_counts"
    return ProbeResult(NAME, not off, off, 0.0, UNIT, PROVES, left, first, found)


def _table(scorer: Scorer, tokens: Tokens) -> Tokens:
    counts = np.asarray(scorer.byte_counts(tokens.copy()) if scorer.byte_counts else (), np.int64)
    if counts.shape != (len(tokens) - 1,):
        raise RuleError(
            f"byte_counts gave an array {list(counts.shape)} for {len(tokens)} tokens; expected [{len(tokens) - 1}]"
        )
    return counts


def _decoded(scorer: Scorer, tokens: Tokens, text: bytes) -> tuple[Tokens, bytes, int | None, str]:
    """Return where each token's bytes end, all bytes, and the first token that does not decode to the text.

    A token is decoded behind those before it, since operators and marks of spaces act on their neighbors.
    """
    decode = scorer.decode
    if decode is None:
        raise RuleError("the scorer has no decode")
    ends, decoded, first, found = [], b"", None, ""
    for end in range(1, len(tokens) + 1):
        decoded = decode(tokens[:end].copy())
        ends.append(len(decoded))
        if first is None and not text.startswith(decoded):
            start = ends[-2] if end > 1 else 0
            first = end - 1
            found = (
                f"token {first:,} (id {tokens[first]}) decodes to {decoded[start:][:20]!r}, the text has "
                f"{text[start : start + 20]!r}"
            )
    if first is None and decoded != text:
        first, found = len(tokens) - 1, f"the tokens decode to {len(decoded):,} bytes, the text has {len(text):,}"
    return np.array(ends, np.int64), decoded, first, found
