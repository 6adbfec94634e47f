"""Let a model go on with a text: draw tokens one by one, and join their bytes to characters.

The window: a model reads at most ``context`` tokens at once. When it holds that many, everything it keeps of them is
dropped, and it reads the last half of them again, as the beginning of a new window. So each token is drawn after
``context / 2`` to ``context`` tokens, and on average costs two tokens' work.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from golfcore.errors import InputError, RuleError
from golfcore.model.interface import LanguageModel
from golfcore.ranges import Factor, Seed, SomeShare, SomeTokens, SomeWindow, check_fields
from golfcore.tokenizer import Tokenizer

MARKS = (Tokenizer.BOS, Tokenizer.EOS)
TEXTLESS = (Tokenizer.PAD, Tokenizer.UNK)  # stand for no text and end none: never drawn


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The options of a text that is drawn.

    Attributes:
        tokens: the most tokens that are drawn.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_p: share of the probability that the likeliest tokens have to reach; the others are left out.
        seed: seed of all draws.
        stop: whether the mark of a document's end or beginning ends the text; else the next document follows in a line
            of its own.
        context: tokens per window.

    Raises:
        UsageError: a number out of range.
    """

    tokens: SomeTokens = 256
    temperature: Factor = 0.8
    top_p: SomeShare = 1.0
    seed: Seed = 0
    stop: bool = True
    context: SomeWindow = 1024

    def __post_init__(self) -> None:
        check_fields(self, "sample")


class Draw:
    """Draws of tokens from logits; equal seeds and logits give equal tokens.

    Args:
        sampling: temperature, top_p and seed.
        vocab_size: ids that the tokenizer knows; ids beyond it are never drawn.
    """

    def __init__(self, sampling: Sampling, vocab_size: int) -> None:
        self._sampling, self._vocab_size = sampling, vocab_size
        self._rng = np.random.default_rng(sampling.seed)

    def __call__(self, logits_V: torch.Tensor) -> int:
        """Return an id.

        Raises:
            RuleError: the logits are not finite.
        """
        z_V = logits_V[: self._vocab_size].double().cpu().numpy()
        if not np.isfinite(z_V).all():
            raise RuleError("the model gave a logit that is no finite number: its weights are damaged or diverged")
        z_V[list(TEXTLESS)] = -np.inf
        if self._sampling.temperature == 0:
            return int(z_V.argmax())
        with np.errstate(over="ignore"):  # beyond the largest number the likeliest token alone is left
            p_V = np.exp((z_V - z_V.max()) / self._sampling.temperature)
        if self._sampling.top_p < 1:
            order_V = np.argsort(-p_V, kind="stable")
            reached_V = np.cumsum(p_V[order_V])
            kept = 1 + int(np.searchsorted(reached_V, self._sampling.top_p * reached_V[-1]))
            p_V[order_V[kept:]] = 0
        sums_V = np.cumsum(p_V)
        return int(np.searchsorted(sums_V, self._rng.random() * sums_V[-1], side="right"))


def next_tokens(
    model: LanguageModel, ids: list[int], *, context: int, draw: Callable[[torch.Tensor], int]
) -> Iterator[int]:
    """Yield one token after another, each drawn from the model's logits after all before it; without an end.

    Args:
        model: the model, in evaluation mode.
        ids: the tokens to begin with, one or more.
        context: tokens per window (see the head of this module).
        draw: takes fp32 logits [V] and returns an id.
    """
    device = next(model.parameters()).device
    fresh, held, state = ids[-context:], list[int](), model.new_state(1)
    while True:
        if len(held) + len(fresh) > context:
            fresh, held, state = (held + fresh)[-max(1, context // 2) :], [], model.new_state(1)
        with torch.inference_mode():
            logits_1TV, state = model.logits(state, torch.tensor([fresh], device=device))
        held += fresh
        fresh = [draw(logits_1TV[0, -1])]
        yield fresh[0]


class Characters:
    """The text of tokens: a token may end within a character, whose bytes then wait for the next one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        """Return the characters that the token completes; bytes that are no UTF-8 become U+FFFD."""
        if token in MARKS:
            return self.end() + "\n"
        return self._decoder.decode(self._tokenizer.token(token))

    def end(self) -> str:
        """Return what is left: U+FFFD for an incomplete character."""
        return self._decoder.decode(b"", final=True)


def prompt_ids(tokenizer: Tokenizer, prompt: str | bytes) -> list[int]:
    """Return the ids of the beginning of a document.

    Raises:
        InputError: an empty prompt, or one that is not UTF-8.
    """
    if not prompt:
        raise InputError("the prompt is empty: give the beginning of a text, such as --prompt 'The'")
    try:
        content = prompt.encode() if isinstance(prompt, str) else prompt
        content.decode()
    except UnicodeError as error:
        raise InputError(f"the prompt is not UTF-8 from character or byte {error.start} on: convert it") from error  # type: ignore[attr-defined]
    return [Tokenizer.BOS, *map(int, tokenizer.encode(content))]


def generate_text(
    model: LanguageModel, tokenizer: Tokenizer, ids: list[int], sampling: Sampling, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Let ``model`` go on with the tokens ``ids`` and return what ``golfcore.generate`` describes.

    Raises:
        RuleError: the model's logits are not finite.
    """
    model.eval()
    characters, pieces, drawn = Characters(tokenizer), list[str](), list[int]()

    def put(piece: str) -> None:
        if piece:
            pieces.append(piece)
            tell(piece)

    ended = "tokens"
    begun = time.perf_counter()
    draws = next_tokens(model, ids, context=sampling.context, draw=Draw(sampling, tokenizer.vocab_size))
    for token in islice(draws, sampling.tokens):
        drawn.append(token)
        if sampling.stop and token in MARKS:
            ended = "mark"
            break
        put(characters.add(token))
    seconds = time.perf_counter() - begun
    put(characters.end())
    return {
        "text": "".join(pieces), "ids": drawn, "prompt_tokens": len(ids), "tokens": len(drawn), "ended": ended,
        "seed": sampling.seed, "seconds": round(seconds, 4),
    }  # fmt: skip
