"""A score with counts of scored tokens mixed in: the same in any batches and on any ranks, better on what repeats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import TINY, VOCAB, random_text, scrambled
from torch import Tensor

from golfcore.errors import RuleError
from golfcore.evaluate import booking
from golfcore.evaluate.clock import Clock
from golfcore.evaluate.probes import mixture_mass
from golfcore.evaluate.scorer import Score, ScoredText, score
from golfcore.model.interface import LanguageModel
from golfcore.ops.ngram import NgramMixture


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return scrambled(TINY, noise=0.2)


def repeating_text(n: int) -> ScoredText:
    part = random_text(50, seed=4)
    times = -(-n // 50)
    tokens, token_bytes = np.tile(part.tokens, times)[:n], np.tile(part.token_bytes, times)[:n]
    return ScoredText(tokens, token_bytes, int(token_bytes[1:].sum()), "")


def mixed(model: LanguageModel, text: ScoredText, **how: object) -> Score:
    settings = {"context": 16, "stride": 5, "batch_tokens": 80, **how}
    return score(model, text, mixture=NgramMixture(VOCAB), **settings)  # type: ignore[arg-type]


def test_the_score_is_that_of_the_mixture_token_by_token(model: LanguageModel) -> None:
    text = repeating_text(200)
    mixture, losses = NgramMixture(VOCAB), []
    mixture.learn(text.tokens[:1])
    for end in range(1, 200):  # token `end`, in the window that scores it
        last = min(199, 16 + -(-max(0, end - 16) // 5) * 5)
        window = torch.from_numpy(text.tokens[max(0, last - 16) : last].astype(np.int64))[None]
        with torch.no_grad():
            logits_TV = model.last_logits(window, window.size(1))[0]
        p_V = logits_TV[end - 1 - max(0, last - 16)].softmax(-1).numpy()
        losses.append(-np.log(mixture.distribution(p_V)[text.tokens[end]]))
        target, top = text.tokens[end : end + 1], int(p_V.argmax())
        mixture.score(target, np.log(p_V[target]), np.log(p_V[[top]]), np.array([top], np.uint16))
    assert mixed(model, text).val_loss == pytest.approx(float(np.mean(losses)), rel=1e-4)


def test_it_learns_what_repeats_and_cannot_learn_noise(model: LanguageModel) -> None:
    text = repeating_text(600)
    assert mixed(model, text).val_loss < 0.5 * score(model, text, context=16, stride=5).val_loss
    assert mixed(model, random_text(2_000)).val_loss > np.log(VOCAB) - 0.02


def test_batches_pieces_and_clocks_do_not_change_the_score(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = repeating_text(300)
    reference = mixed(model, text)
    assert mixed(model, text).ledger_sha256 == reference.ledger_sha256
    assert mixed(model, text, batch_tokens=10_000).val_bpb == pytest.approx(reference.val_bpb, abs=1e-6)
    assert mixed(model, text, clock=Clock(1e9, 0.0, lambda: 0.0)).ledger_sha256 == reference.ledger_sha256
    monkeypatch.setattr(booking, "PIECE", 40)
    assert mixed(model, text).ledger_sha256 == reference.ledger_sha256


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_give_the_same_score_to_the_last_bit(model: LanguageModel, world_size: int) -> None:
    """The ranks take turns: a sum that a rank asks for is known once every rank has said its part of it."""
    text, sums = repeating_text(300), list[Tensor]()
    while True:
        said: list[Tensor] = []

        class Unknown(Exception):
            pass

        for rank in range(world_size):
            known = iter(sums)

            def combine(value: Tensor) -> Tensor:
                total = next(known, None)  # noqa: B023
                if total is None:
                    said.append(value.clone())  # noqa: B023
                    raise Unknown
                return total

            try:
                result = mixed(model, text, rank=rank, world_size=world_size, combine=combine)
            except Unknown:
                continue
            assert result.ledger_sha256 == mixed(model, text).ledger_sha256
        if not said:
            return
        assert len(said) == world_size
        sums.append(torch.stack(said).sum(0))


class Lying(NgramMixture):
    """A mixture that scores twice the probability that it gives."""

    def score(self, *arguments: np.ndarray) -> np.ndarray:  # type: ignore[override]
        return super().score(*arguments) - np.log(2)


class Greedy(NgramMixture):
    """A mixture whose distribution sums to more than 1."""

    def distribution(self, p_V: np.ndarray) -> np.ndarray:
        return super().distribution(p_V) * np.float32(1.01)


def test_the_mass_probe_passes_ours_and_catches_what_is_no_probability(model: LanguageModel) -> None:
    tokens = repeating_text(100).tokens
    assert mixture_mass(model, NgramMixture(VOCAB), tokens, context=64) < 1e-5
    for wrong in (Lying, Greedy):
        with pytest.raises(RuleError, match="mass probe"):
            mixture_mass(model, wrong(VOCAB), tokens, context=64)
