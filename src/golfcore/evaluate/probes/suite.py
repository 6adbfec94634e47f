"""Run all probes on one scorer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from golfcore.errors import RuleError
from golfcore.evaluate.probes.denominator import denominator
from golfcore.evaluate.probes.flips import future_flip, target_flip
from golfcore.evaluate.probes.ledger import ledger_replay
from golfcore.evaluate.probes.mass import mass, noise
from golfcore.evaluate.probes.phases import Surroundings, fresh_process, phase_timing
from golfcore.evaluate.probes.result import ProbeResult
from golfcore.evaluate.probes.scorer import Floats, Scorer, Tokens
from golfcore.progress import Tick, silent


@dataclass(frozen=True)
class Excerpt:
    """The text on which a scorer is probed.

    Attributes:
        tokens: int64 [n], on which it is scored again and again.
        proof: int64 [m], the tokens whose bytes are counted: those of ``text``, of which ``tokens`` is a beginning.
        text: the bytes that ``proof`` stands for.
        whole: tokens of the whole text, about.
    """

    tokens: Tokens
    proof: Tokens
    text: bytes
    whole: int


def run_probes(
    scorer: Scorer,
    excerpt: Excerpt,
    fresh: Callable[[Tokens], tuple[Floats, Surroundings]] | None,
    *,
    load_s: float = 0.0,
    budget_s: float = 0.0,
    now: Callable[[], float] = time.perf_counter,
    tick: Tick = silent,
) -> list[ProbeResult]:
    """Run every probe and return what each found.

    Args:
        scorer: the scorer, which was not called yet.
        excerpt: the text.
        fresh: scores tokens in a new process, and says what that process reached; None: that probe is not made.
        load_s: seconds that the scorer took to start.
        budget_s: seconds that the evaluation of the whole text may take; 0 for no limit.
        now: the timer, in seconds.
        tick: called with the number of probes made.
    """
    tokens = excerpt.tokens
    probes: dict[str, Callable[[], ProbeResult]] = {
        "phase timing": lambda: phase_timing(
            scorer, tokens, load_s=load_s, whole=excerpt.whole, budget_s=budget_s, now=now
        ),
        "ledger replay": lambda: ledger_replay(scorer, tokens),
        "future-flip": lambda: future_flip(scorer, tokens),
        "target-flip": lambda: target_flip(scorer, tokens),
        "probability mass": lambda: mass(scorer, tokens),
        "uniform noise": lambda: noise(scorer, len(tokens)),
        "denominator": lambda: denominator(scorer, excerpt.proof, excerpt.text),
    }
    if fresh is not None:
        probes["fresh process"] = lambda: fresh_process(scorer.losses(tokens), *fresh(tokens))
    results = []
    for number, (name, probe) in enumerate(probes.items()):
        tick(number, len(probes), name)
        try:
            results.append(probe())
        except RuleError as error:  # an answer that is no score at all
            results.append(ProbeResult(name, False, float("nan"), 0.0, "", "each answer is a score", found=str(error)))
    return results
