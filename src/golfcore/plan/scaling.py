"""Simulate a training step on 1 to 64 H100s: computing, traffic over NVLink and the network, and where scaling ends.

The computing part is the fitted time model at each GPU's share of the batch. Its constant was fitted on eight GPUs, so
the time that eight GPUs spend on collectives and on orthogonalization is subtracted, and the time for the given number
of GPUs is added. Collectives are a reduce-scatter and an all-gather of every parameter in fp32: rings over NVLink
inside a node, and between nodes a ring of each GPU with its like in the others, over a network card of its own. They
hide behind the second half of the backward pass; what is left is exposed. Nothing of this has been measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from golfcore.plan.cost import StageCost
from golfcore.plan.evidence import Attention
from golfcore.plan.timing import H100_FLOPS, time_model, time_terms

NODE = 8  # GPUs a node
COUNTS = (1, 2, 4, 8, 16, 32, 64)
NVLINK_BYTES_S = 0.8 * 450e9  # a direction of NVLink 4, at what NCCL makes of it
NETWORK_BYTES_S = 0.8 * 50e9  # one 400 Gb/s card a GPU
NVLINK_HOP_S, NETWORK_HOP_S = 3e-6, 12e-6
BANKS = 7  # groups of parameters that are reduced on their own
ORTHOGONAL_SHARE = 0.3  # of peak that Newton-Schulz products reach
ENOUGH = 1.5  # the least speed-up of a doubling that is called scaling


@dataclass(frozen=True, slots=True)
class Scale:
    """Times of a step on ``gpus`` H100s, in milliseconds; ``spread`` is a share either way, from the model's errors."""

    gpus: int
    compute_ms: float
    collective_ms: float
    exposed_ms: float
    orthogonal_ms: float
    constant_ms: float
    spread: float

    @property
    def ms(self) -> float:
        return self.compute_ms + self.exposed_ms + self.orthogonal_ms + self.constant_ms


def collective_s(param_bytes: float, gpus: int) -> float:
    """Return the seconds of a reduce-scatter and an all-gather of ``param_bytes`` over ``gpus``."""
    if gpus == 1:
        return 0.0
    local, nodes = min(gpus, NODE), -(-gpus // NODE)
    inside = 2 * (local - 1) / local * param_bytes / NVLINK_BYTES_S + 2 * BANKS * (local - 1) * NVLINK_HOP_S
    if nodes == 1:
        return inside
    between = 2 * (nodes - 1) / nodes * param_bytes / local / NETWORK_BYTES_S
    return inside + between + 2 * BANKS * (nodes - 1) * NETWORK_HOP_S


def orthogonal_flops(matrix_params: int, model_dim: int, steps: int) -> float:
    """Return the operations of Newton-Schulz on all matrices: three products per iteration, at most the stream wide."""
    return 6.0 * steps * matrix_params * model_dim


def simulate(
    cost: StageCost, gpus: int, *, params: int, orthogonal: float, attention: Attention, micro_tokens: int
) -> Scale | None:
    """Simulate one step on ``gpus``; return None if the rows of the batch cannot be divided by that number.

    Args:
        cost: the stretch of the run.
        gpus: number of GPUs.
        params: number of all parameters.
        orthogonal: from ``orthogonal_flops``.
        attention: the attention kernel that is assumed.
        micro_tokens: tokens per forward pass on one GPU; only the last backward pass hides collectives.
    """
    batch, seq_len = cost.stage.batch_tokens, cost.stage.seq_len
    if batch % (gpus * seq_len):
        return None
    fit, tokens = time_model(), batch / gpus
    terms = time_terms(cost.work, tokens, attention)
    constant = float(fit.factors[-1])
    compute = fit(terms) - constant
    at_eight = 1e3 * (collective_s(4.0 * params, NODE) + orthogonal / NODE / (ORTHOGONAL_SHARE * H100_FLOPS))
    collective = 1e3 * collective_s(4.0 * params, gpus)
    last_pass = compute * min(1.0, micro_tokens / tokens)
    return Scale(
        gpus=gpus, compute_ms=compute, collective_ms=collective, exposed_ms=max(0.0, collective - last_pass / 3),
        orthogonal_ms=1e3 * orthogonal / gpus / (ORTHOGONAL_SHARE * H100_FLOPS),
        constant_ms=max(0.0, constant - at_eight), spread=fit.spread,
    )  # fmt: skip


def scaling_end(times: Sequence[tuple[int, float]]) -> int:
    """Return the number of GPUs beyond which doubling it gives less than ``ENOUGH`` times the speed.

    Args:
        times: ``(gpus, milliseconds)``, each with twice the GPUs of the one before.
    """
    for (gpus, ms), (_, next_ms) in pairwise(times):
        if ms / next_ms < ENOUGH:
            return gpus
    return times[-1][0]
