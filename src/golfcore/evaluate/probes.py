"""Probes that a model must pass before its score is believed (the contest's conditions, future-flip among them)."""

from __future__ import annotations

import numpy as np
import torch

from golfcore.errors import RuleError
from golfcore.model.base import LanguageModel

TOLERANCE = 1e-3  # nats; kernels may round differently when other rows of a product change


@torch.no_grad()
def future_flip(model: LanguageModel, tokens: np.ndarray, *, context: int, seed: int = 0, cuts: int = 3) -> float:
    """Replaces every token after a cut and looks whether an earlier distribution moves.

    Args:
        model: the model.
        tokens: uint16 [n]; the first window of them is used.
        context: tokens a window.
        seed: of the cuts and the replacements.
        cuts: how many cuts are tried.

    Returns:
        The largest change of a log-probability at or before a cut, in nats.

    Raises:
        RuleError: it is above ``TOLERANCE``: the model reads the tokens that it is to predict.
    """
    model.eval()
    rng = np.random.default_rng(seed)
    window = torch.from_numpy(tokens[: min(len(tokens), context)].astype(np.int64))[None]
    window = window.to(next(model.parameters()).device)
    length = window.size(1)
    if length < 2:
        return 0.0
    logits_BTV, _ = model.logits(model.new_state(1), window)
    expected = torch.log_softmax(logits_BTV, -1)
    vocab_size = logits_BTV.size(2)
    worst = 0.0
    for cut in rng.integers(1, length, size=cuts):
        flipped = window.clone()
        noise = torch.from_numpy(rng.integers(0, vocab_size, size=length - int(cut)))
        flipped[0, int(cut) :] = noise.to(window.device)
        logits_BTV, _ = model.logits(model.new_state(1), flipped)
        change = (torch.log_softmax(logits_BTV, -1) - expected)[:, : int(cut)].abs().max()
        worst = max(worst, float(change))
        if worst > TOLERANCE:
            raise RuleError(
                f"the model is not causal: changing the tokens from {int(cut)} on moved an earlier log-probability "
                f"by {worst:.3g} nats (future-flip probe, tolerance {TOLERANCE:g})"
            )
    return worst
