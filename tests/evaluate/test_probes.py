"""The probes: each catches the cheats that it is for, and lets the honest look-alikes pass."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import cheats
import numpy as np
import pytest
from cheats import V, scorer
from tiny import TINY, VOCAB, random_text, scrambled

from golfcore.evaluate.probes.denominator import denominator
from golfcore.evaluate.probes.packed import packed_scorer
from golfcore.evaluate.probes.phases import Surroundings, fresh_process, phase_timing
from golfcore.evaluate.probes.result import ProbeResult
from golfcore.evaluate.probes.scorer import Entry, Scorer
from golfcore.evaluate.probes.suite import Excerpt, run_probes
from golfcore.ops.ngram import NgramMixture

ALONE = Surroundings(network=True)


def probed(subject: Scorer, *, around: Surroundings = ALONE) -> dict[str, ProbeResult]:
    tokens = cheats.text()
    decode = subject.decode or cheats.spelled
    excerpt = Excerpt(tokens, tokens, decode(tokens), len(tokens))
    return {result.name: result for result in run_probes(subject, excerpt, lambda t: (subject.losses(t), around))}


def failed(results: dict[str, ProbeResult]) -> set[str]:
    return {name for name, result in results.items() if result.passed is False}


HONEST = {
    "fixed": scorer(cheats.fixed, predict=lambda prefix: cheats.LOG_P_VV[prefix[-1]]),
    "counted": scorer(cheats.counted),
    "score-first training, several epochs": scorer(
        cheats.score_first, predict=cheats.score_first_predict, ledger=cheats.score_first_ledger
    ),
    "tilt with a normalizer": scorer(cheats.tilted),
    "table of bytes": scorer(cheats.fixed, byte_counts=cheats.sidecar, decode=cheats.spelled),
    "table of bytes alone": scorer(cheats.fixed, byte_counts=cheats.sidecar),
    "sidecar of original bytes": scorer(cheats.fixed, byte_counts=cheats.original_bytes, decode=cheats.restored),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_scorers_pass_every_probe(name: str) -> None:
    results = probed(HONEST[name])
    assert failed(results) == set()
    assert (results["denominator"].passed is None) == ("bytes" not in name)


CHEATS: dict[str, tuple[Scorer, set[str]]] = {
    "train, then score": (scorer(cheats.train_then_score), {"future-flip", "target-flip", "uniform noise"}),
    "losses of the last epoch": (scorer(cheats.last_epoch), {"future-flip", "target-flip", "probability mass"}),
    "min over passes": (scorer(cheats.min_over_passes), {"probability mass", "uniform noise"}),
    "two-pass cache": (scorer(cheats.two_pass_cache), {"future-flip", "target-flip"}),
    "n-gram hashed with the target": (scorer(cheats.hashed_ngram), {"probability mass", "uniform noise"}),
    "gate by the target's class": (
        scorer(cheats.class_gate, predict=lambda prefix: cheats.LOG_P_VV[prefix[-1]]),
        {"target-flip", "probability mass"},
    ),
    "the same gate without predict": (scorer(cheats.class_gate), {"probability mass"}),
    "mixture of the spelled bytes": (scorer(cheats.byte_mixture), {"probability mass", "uniform noise"}),
    "delta fitted to the scored window": (scorer(cheats.slot), {"future-flip", "target-flip"}),
    "temperature fitted to unscored text": (scorer(cheats.calibrated), {"future-flip"}),
    "last window dropped": (scorer(cheats.dropped_tail), {"ledger replay", "future-flip"}),
    "no normalizer": (scorer(cheats.certain), {"ledger replay", "probability mass"}),
    "space counted twice": (
        scorer(cheats.fixed, byte_counts=cheats.space_twice, decode=cheats.spelled), {"denominator"}
    ),
    "space counted twice, nothing to decode": (scorer(cheats.fixed, byte_counts=cheats.space_twice), {"denominator"}),
    "byte counted as three": (
        scorer(cheats.fixed, byte_counts=cheats.fallback_as_three, decode=cheats.spelled), {"denominator"}
    ),
    "spaces not counted": (
        scorer(cheats.fixed, byte_counts=cheats.no_spaces, decode=cheats.spelled), {"denominator"}
    ),
    "operators counted as text": (
        scorer(cheats.fixed, byte_counts=cheats.operators_counted, decode=cheats.restored), {"denominator"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_are_caught_by_their_probes(name: str) -> None:
    subject, expected = CHEATS[name]
    results = probed(subject)
    assert expected <= failed(results)
    for probe in expected:
        assert results[probe].found


@pytest.mark.parametrize(
    "cheat",
    [cheats.train_then_score, cheats.last_epoch, cheats.min_over_passes, cheats.two_pass_cache, cheats.hashed_ngram,
     cheats.class_gate, cheats.byte_mixture, cheats.slot, cheats.calibrated],
)  # fmt: skip
def test_a_cheat_pays(cheat: object) -> None:
    """What gains nothing would need no probe."""
    assert cheat(cheats.text()).mean() < cheats.fixed(cheats.text()).mean()  # type: ignore[operator]


def test_a_cache_that_outlives_a_call_fails_the_ledger_replay() -> None:
    assert "ledger replay" in failed(probed(scorer(cheats.WarmCache())))


def test_offenses_name_the_first_token() -> None:
    result = probed(scorer(cheats.fixed, byte_counts=cheats.space_twice, decode=cheats.spelled))["denominator"]
    first = next(at for at, token in enumerate(cheats.text()) if at and cheats.SPELLED[token].startswith(b" "))
    assert result.first == first and result.found.startswith(f"token {first} (id {cheats.text()[first]})")
    flipped = probed(scorer(cheats.slot))["future-flip"]
    assert flipped.first is not None and f"the loss of token {flipped.first} " in flipped.found
    tokens = cheats.text()
    spelled = bytearray(cheats.spelled(tokens))
    at = len(cheats.spelled(tokens[:40]))  # where token 40 begins
    spelled[at : at + 1] = b"x"
    for text, first in ((bytes(spelled), 40), (cheats.spelled(tokens) + b"!", len(tokens) - 1)):
        found = denominator(scorer(cheats.fixed, decode=cheats.spelled), tokens, text)
        assert (found.passed, found.first) == (False, first)
        assert f"token {first} (id" in found.found or "the tokens decode to" in found.found


def _ledger(change: str) -> object:
    def ledger(tokens: np.ndarray) -> list[Entry]:
        entries = list(cheats.score_first_ledger(tokens))
        if change == "state after the chunk":
            return [*(Entry(*a[:2], b.state) for a, b in pairwise(entries)), entries[-1]]
        if change == "scored twice":
            return [entries[0], *entries]
        return entries[:2] + entries[3:] if change == "never scored" else entries[:-1]

    return ledger


@pytest.mark.parametrize(
    ("change", "found"),
    [("state after the chunk", "the state before token"), ("scored twice", "token 1 is scored twice"),
     ("never scored", "token 33 is never scored"), ("cut short", "the ledger ends with token 112 of 119")],
)  # fmt: skip
def test_the_replay_reads_a_scorers_own_ledger(change: str, found: str) -> None:
    result = probed(dataclasses.replace(HONEST["score-first training, several epochs"], ledger=_ledger(change)))
    assert failed(result) == {"ledger replay"}
    assert found in result["ledger replay"].found


@pytest.mark.parametrize(
    ("score", "found"),
    [(lambda tokens: np.full(len(tokens) - 1, np.nan), "not finite"), (lambda tokens: np.zeros((2, 3)), "[2, 3]"),
     (lambda tokens: -np.ones(len(tokens) - 1), "above 1")],
)  # fmt: skip
def test_answers_that_are_no_losses_fail(score: object, found: str) -> None:
    results = probed(dataclasses.replace(HONEST["table of bytes alone"], score=score))
    assert {"ledger replay", "future-flip", "probability mass"} <= failed(results)
    assert found in results["ledger replay"].found


def test_a_process_that_reaches_out_or_scores_otherwise_fails() -> None:
    expected = cheats.fixed(cheats.text())
    assert fresh_process(expected, expected, ALONE).passed
    read = fresh_process(expected, expected, Surroundings(True, opened=("/data/fineweb_val_000000.bin", "/b")))
    assert not read.passed and "/data/fineweb_val_000000.bin and 1 more" in read.found
    assert "reach" in fresh_process(expected, expected, Surroundings(True, called=("('10.0.0.1', 80)",))).found
    other = expected.copy()
    other[4] += 1
    assert fresh_process(expected, other, ALONE).first == 5
    assert "network" in fresh_process(expected, expected, Surroundings(network=False)).open


def test_time_is_measured_from_outside() -> None:
    clock = [0.0]

    def slow(tokens: np.ndarray) -> np.ndarray:
        clock[0] += 0.01 * (len(tokens) - 1) + (5 if clock[0] == 0 else 0)  # the first call compiles
        return cheats.fixed(tokens)

    def timed(budget_s: float) -> ProbeResult:
        clock[0] = 0.0
        return phase_timing(
            scorer(slow), cheats.text(101), load_s=3.0, whole=1101, budget_s=budget_s, now=lambda: clock[0]
        )  # fmt: skip

    assert timed(600.0).figure == pytest.approx(3 + 5 + 1 + 10)
    assert (timed(19.5).passed, timed(18.5).passed, timed(0.0).passed) == (True, False, True)


def test_a_part_of_a_large_vocabulary_is_proof_above_one_and_said_to_be_open_below() -> None:
    def wide(score: object) -> Scorer:
        return Scorer(5_000, score)  # type: ignore[arg-type]

    flat = {r.name: r for r in run_probes(wide(lambda t: np.full(len(t) - 1, np.log(5_000))), _wide(), None)}
    assert failed(flat) == set() and "do not prove" in flat["probability mass"].open
    steep = {r.name: r for r in run_probes(wide(lambda t: np.full(len(t) - 1, np.log(20))), _wide(), None)}
    assert {"probability mass", "uniform noise"} <= failed(steep)


def _wide() -> Excerpt:
    tokens = np.random.default_rng(1).integers(0, 5_000, 40)
    return Excerpt(tokens, tokens, b"", 40)


@pytest.mark.parametrize(("mix", "stride"), [(False, 16), (True, 5)])
def test_our_own_scorer_passes_every_probe(mix: bool, stride: int) -> None:
    part = random_text(60, seed=4).tokens.astype(np.int64)
    tokens = np.tile(part, 2)[:70]
    mixture = (lambda: NgramMixture(VOCAB)) if mix else None
    ours = packed_scorer(scrambled(TINY, noise=0.2), VOCAB, context=16, stride=stride, mixture=mixture)
    results = {r.name: r for r in run_probes(ours, Excerpt(tokens, tokens, b"", 70), lambda t: (ours.score(t), ALONE))}
    assert failed(results) == set()
    assert results["future-flip"].figure == 0
    assert results["target-flip"].figure < 1e-4  # predict asks in other batches
    assert results["ledger replay"].open == ""


def test_every_probe_has_a_cheat() -> None:
    tried = set().union(*(expected for _, expected in CHEATS.values())) | {"fresh process", "phase timing"}
    assert tried == set(probed(scorer(cheats.fixed)))
    assert len(cheats.SPELLED) == V
