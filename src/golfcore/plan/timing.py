"""Predict time and memory of a training step on an H100, by models fitted on logs of contest entries.

Both are sums of terms that are known from the shape, each times a factor that is fitted and may not be negative: matrix
products and attention in units of the data sheet's peak, element-wise work in units of its bandwidth, and a constant
(optimizer, collectives on eight GPUs, launches). Successive entries hardly differ, so the fit alone could not tell the
constant from the products: every factor is held near a guess from the hardware (``PRIOR``), the more the less the logs
say about it. The strength was chosen on the fitted entries alone, by leaving one out at a time.

The entries ran PyTorch with torch.compile; golfcore's own CUDA operations are not among them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from golfcore.gpu_specs import H100
from golfcore.model.work import Work
from golfcore.plan.evidence import Attention, LoggedRun, logged_runs

H100_FLOPS, H100_BYTES_S = H100.bf16_flops, H100.bytes_s
MIB = 2.0**20

TIME_TERMS = ("matrix products", "attention, SDPA", "attention, FlashAttention-3", "element-wise", "logits", "constant")
TIME_PRIOR = (1 / 0.6, 1 / 0.3, 1 / 0.45, 16.0, 12.0, 4.0)  # 60, 30 and 45 % of peak; passes over memory; ms
MEMORY_TERMS = ("parameters", "residual stream", "inside the MLP", "logits")
MEMORY_PRIOR = (20.0, 24.0, 6.0, 8.0)  # bytes per parameter, and per token's value of each kind and layer
TIME_STRENGTH, MEMORY_STRENGTH = 0.01, 0.01


def time_terms(work: Work, tokens: float, attention: Attention) -> NDArray[np.float64]:
    """Return the terms of a step's time, in milliseconds at the data sheet's rates; fp64 [6].

    Args:
        work: work per token.
        tokens: tokens per step, on one GPU.
        attention: the attention kernel.
    """
    product_ms, byte_ms = 6 * tokens / H100_FLOPS * 1e3, 2 * tokens / H100_BYTES_S * 1e3
    attention_ms = product_ms * work.attention
    sdpa = attention == "sdpa"
    return np.array(
        [
            product_ms * (work.blocks + work.head), attention_ms if sdpa else 0.0, 0.0 if sdpa else attention_ms,
            byte_ms * (work.residual + work.inside), byte_ms * work.vocab, 1.0,
        ]
    )  # fmt: skip


def memory_terms(params: int, work: Work, tokens: float) -> NDArray[np.float64]:
    """Return the terms of a GPU's peak memory, in MiB per byte; fp64 [4]; ``tokens`` per micro-step on one GPU."""
    return np.array([params, tokens * work.residual, tokens * work.inside, tokens * work.vocab]) / MIB


@dataclass(frozen=True)
class Fit:
    """A fitted model: factors of its terms, and its errors on entries that it has not seen.

    Attributes:
        terms: names of the terms.
        factors: one factor per term.
        fitted: ``(run, predicted, relative error)`` of the logs that the factors come from.
        held_out: the same of the other logs.
        left_out: relative error of each fitted entry, predicted by a fit on the others.
    """

    terms: tuple[str, ...]
    factors: NDArray[np.float64]
    fitted: tuple[tuple[LoggedRun, float, float], ...]
    held_out: tuple[tuple[LoggedRun, float, float], ...]
    left_out: tuple[float, ...]

    def __call__(self, terms: NDArray[np.float64]) -> float:
        return float(self.factors @ terms)

    @property
    def median_error(self) -> float:
        return float(np.median([abs(error) for _, _, error in self.held_out]))

    @property
    def max_error(self) -> float:
        return max(abs(error) for _, _, error in self.held_out)

    @property
    def entry_errors(self) -> list[float]:
        """Return the errors of the held-out entries, each the mean over its logs: its seeds are hardly independent."""
        entries = dict.fromkeys(run.entry for run, _, _ in self.held_out)
        return [float(np.mean([abs(e) for run, _, e in self.held_out if run.entry == entry])) for entry in entries]

    @property
    def new_shape_errors(self) -> list[float]:
        """Return the errors of the held-out logs whose shape, batch or number of GPUs no fitted log has."""
        known = {run.shape for run, _, _ in self.fitted}
        return [abs(error) for run, _, error in self.held_out if run.shape not in known]

    @property
    def spread(self) -> float:
        """Return the relative error within which nine in ten of the logs that it has not seen stay."""
        return float(np.quantile([abs(error) for _, _, error in self.held_out], 0.9))


@cache
def time_model() -> Fit:
    """Return the model of milliseconds per step, with the terms of ``time_terms``."""
    runs = [run for run in logged_runs() if not run.excluded]
    return _judged(
        runs, TIME_TERMS, TIME_PRIOR, TIME_STRENGTH,
        lambda run: time_terms(_work_of(run, run.passes), run.batch_tokens / run.gpus, run.attention),
        lambda run: run.ms_per_step,
    )  # fmt: skip


@cache
def memory_model() -> Fit:
    """Return the model of peak MiB on one GPU, with the terms of ``memory_terms``.

    A micro-step of the contest's entries is an eighth of their batch.
    """
    runs = [run for run in logged_runs() if not run.excluded and run.peak_mib]
    return _judged(
        runs, MEMORY_TERMS, MEMORY_PRIOR, MEMORY_STRENGTH,
        lambda run: memory_terms(run.params, _work_of(run, run.max_passes), run.batch_tokens / 8),
        lambda run: float(run.peak_mib or 0),
    )  # fmt: skip


def _work_of(run: LoggedRun, passes: float) -> Work:
    """Return the work per token of a logged run if ``passes`` layers are run, which may be a mean over the run."""
    d = run.model_dim
    layer = 2 * d * d + 2 * run.kv_dim * d + 2 * d * run.mlp_hidden
    return Work(
        start=0.0, blocks=round(passes * layer), head=run.vocab * d, attention=passes * run.seq_len * d,
        residual=round(passes * d), inside=round(passes * run.mlp_hidden), vocab=run.vocab, passes=run.max_passes,
    )  # fmt: skip


def _judged(
    runs: Sequence[LoggedRun],
    terms: tuple[str, ...],
    prior: Sequence[float],
    strength: float,
    terms_of: Callable[[LoggedRun], NDArray[np.float64]],
    value_of: Callable[[LoggedRun], float],
) -> Fit:
    """Fit on the entries that are not held out, and predict both parts."""
    seen = [run for run in runs if not run.held_out]

    def factors_of(part: Sequence[LoggedRun]) -> NDArray[np.float64]:
        logs = Counter(run.entry for run in part)
        weights = np.array([1 / logs[run.entry] for run in part])  # an entry counts once, however many seeds it filed
        return fit_factors(
            np.array([terms_of(run) for run in part]), np.array([value_of(run) for run in part]), weights,
            np.array(prior), strength,
        )  # fmt: skip

    def errors(factors: NDArray[np.float64], part: Sequence[LoggedRun]) -> tuple[tuple[LoggedRun, float, float], ...]:
        predicted = [(run, float(factors @ terms_of(run))) for run in part]
        return tuple((run, value, value / value_of(run) - 1) for run, value in predicted)

    left_out = []
    for entry in sorted({run.entry for run in seen}):
        factors = factors_of([run for run in seen if run.entry != entry])
        own = errors(factors, [run for run in seen if run.entry == entry])
        left_out.append(float(np.mean([error for _, _, error in own])))
    factors = factors_of(seen)
    return Fit(
        terms, factors, errors(factors, seen), errors(factors, [run for run in runs if run.held_out]), tuple(left_out)
    )


def fit_factors(
    terms_NK: NDArray[np.float64],
    values_N: NDArray[np.float64],
    weights_N: NDArray[np.float64],
    prior_K: NDArray[np.float64],
    strength: float,
) -> NDArray[np.float64]:
    """Return the non-negative factors of least weighted squared relative error plus ``strength`` times the prior's."""
    scale_N = np.sqrt(weights_N) / values_N
    a = np.vstack([terms_NK * scale_N[:, None], np.diag(np.sqrt(strength) / prior_K)])
    b = np.concatenate([np.sqrt(weights_N), np.full(len(prior_K), np.sqrt(strength))])
    best, best_error = np.zeros(len(prior_K)), np.inf
    columns = range(len(prior_K))
    # Of few factors every choice of those above zero can be tried: the exact solution, without an iteration to trust.
    for chosen in chain.from_iterable(combinations(columns, k) for k in range(1, len(prior_K) + 1)):
        part = np.linalg.lstsq(a[:, chosen], b, rcond=None)[0]
        error = float(np.square(a[:, chosen] @ part - b).sum())
        if (part >= 0).all() and error < best_error:
            best, best_error = np.zeros(len(prior_K)), error
            best[list(chosen)] = part
    return best
