"""Probe a model and its mixture before they are scored: they must not look ahead, and must give distributions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from golfcore.errors import RuleError
from golfcore.model.interface import LanguageModel
from golfcore.ops.ngram import NgramMixture

TOLERANCE = 1e-3  # nats; kernels may round differently when other rows of a product change
MASS_TOLERANCE = 1e-4  # of a sum over the vocabulary in fp32


@torch.no_grad()
def future_flip(
    model: LanguageModel,
    tokens: np.ndarray,
    *,
    context: int,
    strides: Sequence[int] = (),
    seed: int = 0,
    cuts: int = 3,
) -> float:
    """Replace every token after a random cut, and raise if the prediction at an earlier position changes.

    Args:
        model: the model.
        tokens: uint16 [n]; only the first window is used.
        context: tokens per window.
        strides: numbers of positions that the scorer may ask for besides a whole window. Each is probed on its own, so
            that a model cannot look ahead only there.
        seed: seed of the cuts and the replacements.
        cuts: number of cuts to try.

    Returns:
        The largest change of a log-probability at or before a cut, in nats.

    Raises:
        RuleError: the change is above ``TOLERANCE``: the model reads the tokens that it is to predict.
    """
    model.eval()
    rng = np.random.default_rng(seed)
    window = torch.from_numpy(tokens[: min(len(tokens), context)].astype(np.int64))[None]
    window = window.to(next(model.parameters()).device)
    length = window.size(1)
    worst = 0.0
    # A single position is the window's last: no token of the window comes after it.
    for scored in [n for n in dict.fromkeys((length, *strides)) if 2 <= n <= length]:
        expected_SV = _log_probabilities(model, window, scored)
        for cut in rng.integers(length - scored + 1, length, size=cuts):
            flipped = window.clone()
            noise = torch.from_numpy(rng.integers(0, expected_SV.size(1), size=length - int(cut)))
            flipped[0, int(cut) :] = noise.to(window.device)
            before = int(cut) - (length - scored)  # scored positions before the cut
            change = (_log_probabilities(model, flipped, scored) - expected_SV)[:before].abs().max()
            worst = max(worst, float(change))
            if worst > TOLERANCE:
                raise RuleError(
                    f"the model is not causal: changing the tokens from {int(cut)} on moved an earlier "
                    f"log-probability by {worst:.3g} nats with the last {scored} of {length} positions scored "
                    f"(future-flip probe, tolerance {TOLERANCE:g})"
                )
    return worst


@torch.no_grad()
def mixture_mass(
    model: LanguageModel, mixture: NgramMixture, tokens: np.ndarray, *, context: int, seed: int = 0, places: int = 32
) -> float:
    """Sum the mixed distribution over the whole vocabulary at some places of a text, and compare it with the losses.

    Args:
        model: the model.
        mixture: a new mixture, which learns the text's beginning.
        tokens: uint16 [n]; only the first window is used.
        context: tokens per window.
        seed: seed of the choice of places.
        places: number of places.

    Returns:
        The largest difference of a sum from 1, or of a scored probability from the distribution's, relative to it.

    Raises:
        RuleError: the difference is above ``MASS_TOLERANCE``: what is scored is no probability.
    """
    model.eval()
    length = min(len(tokens) - 1, context)
    window = torch.from_numpy(tokens[:length].astype(np.int64))[None].to(next(model.parameters()).device)
    p_TV = _log_probabilities(model, window, length).exp().cpu().numpy()
    chosen = set(np.random.default_rng(seed).integers(0, length, size=places).tolist())
    mixture.learn(tokens[:1])
    worst = 0.0
    for at in range(length):
        target, top = tokens[at + 1 : at + 2], p_TV[at].argmax()
        mixed_V = mixture.distribution(p_TV[at]).astype(np.float64) if at in chosen else None
        p_1, top_p_1 = p_TV[at, target], p_TV[at, top : top + 1]
        loss = mixture.score(target, np.log(p_1), np.log(top_p_1), np.array([top], np.uint16))[0]
        if mixed_V is not None:
            worst = max(worst, abs(mixed_V.sum() - 1), abs(np.exp(-loss) / mixed_V[target[0]] - 1))
        if worst > MASS_TOLERANCE:
            raise RuleError(
                f"the mixture gives no probability for token {at + 1}: its sum over the vocabulary or its loss is off "
                f"by {worst:.3g} (mass probe, tolerance {MASS_TOLERANCE:g})"
            )
    return float(worst)


def _log_probabilities(model: LanguageModel, window_1T: torch.Tensor, scored: int) -> torch.Tensor:
    """Return the log-probabilities [scored, V], read as the scorer reads a model."""
    return torch.log_softmax(model.last_logits(window_1T, scored)[0], -1)
