"""The n-gram mixture: the compiled one against plain Python, and that it is a distribution which cannot look ahead."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from golfcore.errors import InputError
from golfcore.ops.ngram import MAX_ORDER, NgramMixture
from golfcore.ops.reference.ngram import PlainMixture

VOCAB, BOS = 40, 1
Floats = NDArray[np.float32]


def a_text(n: int, seed: int = 0) -> NDArray[np.uint16]:
    """Documents of phrases that come again and again, with some noise between them."""
    rng = np.random.default_rng(seed)
    phrases = [rng.integers(2, VOCAB, rng.integers(3, 9)) for _ in range(12)]
    tokens: list[int] = []
    while len(tokens) < n:
        tokens += [BOS] if not tokens or rng.random() < 0.05 else []
        tokens += list(phrases[rng.integers(len(phrases))])
        tokens += list(rng.integers(2, VOCAB, rng.integers(0, 3)))
    return np.array(tokens[:n], np.uint16)


def a_model(n: int, seed: int = 1) -> Floats:
    """Distributions [n, V] of a model that knows nothing of the text."""
    p_NV = np.random.default_rng(seed).dirichlet(np.full(VOCAB, 0.3), n).astype(np.float32) + np.float32(1e-6)
    return (p_NV / p_NV.sum(1, keepdims=True)).astype(np.float32)


def given(p_NV: Floats, targets: NDArray[np.uint16]) -> tuple[Floats, Floats, NDArray[np.uint16]]:
    """What ``score`` takes beside the targets."""
    rows, top = np.arange(len(targets)), p_NV.argmax(1)
    return np.log(p_NV[rows, targets]), np.log(p_NV[rows, top]), top.astype(np.uint16)


@pytest.mark.parametrize("order", [1, 3, MAX_ORDER])
def test_it_is_the_plain_one(order: int) -> None:
    tokens, p_NV = a_text(900), a_model(899)
    fast, plain = NgramMixture(VOCAB, order=order, bos=BOS), PlainMixture(VOCAB, order, BOS, rate=0.2, bias=-3.0)
    fast.learn(tokens[:1])
    plain.learn(int(tokens[0]))
    log_p, top_log_p, top = given(p_NV, tokens[1:])
    found = fast.score(tokens[1:], log_p, top_log_p, top)
    expected = [
        plain.score(int(t), float(p), float(q), int(v))
        for t, p, q, v in zip(tokens[1:], log_p, top_log_p, top, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=2e-4)  # gates in fp32 there
    assert fast.learned == len(tokens)
    assert found[-300:].mean() < 0.7 * -log_p[-300:].mean()  # it has learned the phrases
    np.testing.assert_allclose(fast.distribution(p_NV[0]), plain.distribution(p_NV[0]), rtol=1e-3, atol=1e-7)


def test_it_gives_a_distribution_before_the_target_is_known_and_scores_by_it() -> None:
    tokens, p_NV = a_text(500), a_model(499)
    mixture = NgramMixture(VOCAB, bos=BOS)
    mixture.learn(tokens[:1])
    log_p, top_log_p, top = given(p_NV, tokens[1:])
    for at in range(len(tokens) - 1):
        one = slice(at, at + 1)
        mixed_V = mixture.distribution(p_NV[at])
        assert mixed_V.sum(dtype=np.float64) == pytest.approx(1, abs=1e-5)
        assert (mixed_V > 0).all()
        loss = mixture.score(tokens[at + 1 : at + 2], log_p[one], top_log_p[one], top[one])[0]
        assert np.exp(-loss) == pytest.approx(float(mixed_V[tokens[at + 1]]), rel=1e-4)


def test_later_tokens_change_no_loss_before_them() -> None:
    tokens, p_NV = a_text(600), a_model(599)
    losses = []
    for end in (tokens, np.concatenate([tokens[:300], a_text(300, seed=9)])):
        mixture = NgramMixture(VOCAB, bos=BOS)
        mixture.learn(end[:1])
        losses.append(mixture.score(end[1:], *given(p_NV, end[1:])))
    assert (losses[0][:299] == losses[1][:299]).all()  # to the last bit
    assert (losses[0][299:] != losses[1][299:]).any()


def test_pieces_are_the_whole() -> None:
    tokens, p_NV = a_text(400), a_model(399)
    parts = given(p_NV, tokens[1:])
    whole, pieces = NgramMixture(VOCAB, bos=BOS), NgramMixture(VOCAB, bos=BOS)
    found = [
        pieces.score(tokens[1 + at : 1 + min(at + 7, 399)], *(x[at : at + 7] for x in parts)) for at in range(0, 399, 7)
    ]
    assert (np.concatenate(found) == whole.score(tokens[1:], *parts)).all()


def test_on_noise_it_costs_little() -> None:
    tokens = np.random.default_rng(3).integers(2, VOCAB, 4_000).astype(np.uint16)
    uniform = np.full((len(tokens), VOCAB), 1 / VOCAB, np.float32)
    loss = NgramMixture(VOCAB, bos=BOS).score(tokens, *given(uniform, tokens)).mean()
    assert np.log(VOCAB - 2) - 0.02 < loss < np.log(VOCAB) + 0.02


def test_full_memory_adds_no_context_and_goes_on() -> None:
    tokens, p_NV = a_text(3_000), a_model(2_999)
    small, large = NgramMixture(VOCAB, bos=BOS, max_contexts=50), NgramMixture(VOCAB, bos=BOS)
    parts = given(p_NV, tokens[1:])
    few, many = small.score(tokens[1:], *parts), large.score(tokens[1:], *parts)
    assert np.isfinite(few).all()
    assert many.mean() < few.mean() < -parts[0].mean()


def test_a_model_that_gives_nan_gives_a_loss_that_is_none() -> None:
    nan = np.full(3, np.nan, np.float32)
    ids = np.array([2, 3, 4], np.uint16)
    assert np.isnan(NgramMixture(VOCAB).score(ids, nan, nan, ids)).all()


@pytest.mark.parametrize(
    "wrong", [{"order": 0}, {"order": MAX_ORDER + 1}, {"max_contexts": 0}, {"max_contexts": 1 << 40}]
)
def test_options_out_of_range_are_named(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="n-gram mixture"):
        NgramMixture(VOCAB, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="0 tokens"):
        NgramMixture(0)


def test_ids_and_lengths_are_checked() -> None:
    mixture = NgramMixture(VOCAB)
    one = np.zeros(1, np.float32)
    with pytest.raises(IndexError):
        mixture.learn(np.array([VOCAB], np.uint16))
    with pytest.raises(ValueError, match="length"):
        mixture.score(np.array([2, 3], np.uint16), one, one, np.array([2], np.uint16))
    with pytest.raises(ValueError, match="length"):
        mixture.distribution(np.ones(1, np.float32))
