"""Fill the byte cap: search a step size for each tensor so that the whole file ends just below a number of bytes.

The divergence that a tensor causes grows with the square of its step size, and doubling the step size saves one bit per
weight. So for a given number of bytes the sum of divergences is least if each tensor's share is proportional to its
number of weights. The divergence at one step size is measured with only that tensor quantized. One unknown is left, a
factor on all step sizes, called the level; it is found with the real bytes of the whole file.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from torch import Tensor

from golfcore import container
from golfcore.artifact.model_io import StoredTensor
from golfcore.config import QuantConfig
from golfcore.errors import InputError, RuleError
from golfcore.model import Role
from golfcore.model.interface import LanguageModel
from golfcore.progress import Tick, silent
from golfcore.quant.codings import codings
from golfcore.quant.gptq import Factor, factorize_all
from golfcore.quant.hessian import Hessians
from golfcore.quant.matrix import gaussian_bits
from golfcore.quant.measure import Probe, replaced, weights_on_cpu
from golfcore.quant.size import LARGEST_STEP
from golfcore.quant.state import quantize_state

REFERENCE_STEP = 0.5  # standard deviations: where divergences are measured
SMALLEST_STEP = 0.03
TOLERANCE = 0.001  # of the cap
TRIES = 24
LEAST_KL = 1e-9
LOWEST, HIGHEST = (
    math.log2(SMALLEST_STEP) - 6,
    math.log2(LARGEST_STEP) + 6,
)  # levels at which every tensor is at its bound


@dataclass(frozen=True)
class TensorPlan:
    """Plan of one tensor: ``step`` in standard deviations of a row; predicted ``bytes`` and ``kl`` (nats per token)."""

    name: str
    role: str
    weights: int
    bits: int
    k: float
    step: float
    bytes: int
    kl: float


@dataclass(frozen=True)
class Plan:
    """The plan of a whole file: predicted before the search; after it ``bytes`` is the real size of the file."""

    tensors: tuple[TensorPlan, ...]
    states: int
    cap: int
    fixed_bytes: int  # what no step changes: code, tokenizer, small tensors
    bytes: int
    kl: float


@dataclass(frozen=True)
class _Tensor:
    role: str
    weights: int
    bits: int
    coded: int  # bytes at the reference step
    kl: float  # at the reference step


class Fitter:
    """A search for step sizes on one model.

    Args:
        module: the model with its trained weights, which are unchanged after every call.
        config: the quantizer's settings, with method gptq.
        hessians: Hessians of the layers' inputs.
        probe: tokens that divergence is measured on.
        size: returns the bytes of the whole file with these tensors.
        tick: called with the progress so far.
    """

    def __init__(
        self, module: LanguageModel, config: QuantConfig, hessians: Hessians, probe: Probe,
        size: Callable[[list[StoredTensor]], int], tick: Tick = silent,
    ) -> None:  # fmt: skip
        self.module, self.config, self.hessians, self.size, self.tick = module, config, hessians, size, tick
        self.state: Mapping[str, Tensor] = weights_on_cpu(module)
        self.roles: dict[str, Role] = module.parameter_roles()
        self.factors: dict[str, Factor] = factorize_all(hessians, damping=config.damping)
        self.coded = codings(self.roles, config)
        self.tensors, self.fixed_bytes = self._measure(probe)

    def _quantize(self, step: Mapping[str, float], tick: Tick = silent) -> list[StoredTensor]:
        """Quantize every tensor with step sizes by name."""
        chosen = tuple(f"{name}={self._k(name, s)!r}" for name, s in step.items())
        config = dataclasses.replace(self.config, group_k=chosen, fit=False)
        return quantize_state(self.state, self.roles, config, self.hessians, self.factors, tick)

    def _k(self, name: str, step: float) -> float:
        return round(step * ((1 << (self.coded[name].bits - 1)) - 1), 5)

    def _measure(self, probe: Probe) -> tuple[dict[str, _Tensor], int]:
        stored = self._quantize(dict.fromkeys(self.coded, REFERENCE_STEP), self.tick)
        tensors = {}
        for item in stored:
            if item.name not in self.coded:
                continue
            with replaced(self.module, {item.name: item.dequantize()}):
                kl = probe.cost(self.module).kl
            if not math.isfinite(kl):
                raise InputError(
                    f"{item.name}: the model's output is NaN once it is quantized; the run may have diverged"
                )
            size = len(container.encode(item.parts(), {}))
            bits = self.coded[item.name].bits
            tensors[item.name] = _Tensor(item.group, item.values.numel(), bits, size, max(kl, LEAST_KL))
            self.tick(len(tensors), len(self.coded), "sensitivities")
        return tensors, self.size(stored) - sum(t.coded for t in tensors.values())

    def plan(self, cap: int) -> Plan:
        """Return step sizes by prediction alone, without quantizing anything more.

        Raises:
            RuleError: the cap cannot be met.
        """
        level = self._level(cap)
        return self._plan(cap, self._steps(level), self._predicted(level))

    def fit(self, cap: int, *, tolerance: float = TOLERANCE) -> tuple[Plan, list[StoredTensor]]:
        """Return a plan and tensors whose file takes at most ``cap`` bytes, and if possible all but ``tolerance``.

        Raises:
            RuleError: the cap cannot be met.
        """
        weights = sum(g.weights for g in self.tensors.values())
        at, low, high = self._level(cap), LOWEST, HIGHEST  # low: too large a file, high: small enough
        best: tuple[int, Plan, list[StoredTensor]] | None = None
        size = 0
        for turn in range(TRIES):
            stored = self._quantize(self._steps(at))
            size = self.size(stored)
            self.tick(turn + 1, TRIES, f"{size:,} of {cap:,} bytes")
            if size <= cap and (best is None or size > best[0]):
                best = size, self._plan(cap, self._steps(at), size), stored
            low, high = (at, high) if size > cap else (low, at)
            if cap * (1 - tolerance) <= size <= cap or high - low < 1e-5:
                break
            guess = at + (size - cap * (1 - tolerance / 2)) * 8 / weights  # an octave is worth one bit per weight
            at = guess if low < guess < high else (low + high) / 2
        if best is None:
            self._refuse(cap, size)
        return best[1], best[2]

    def _level(self, cap: int) -> float:
        """Return the finest level that is predicted to fit."""
        low, high = LOWEST, HIGHEST
        if self._predicted(high) > cap:
            self._refuse(cap, self._predicted(high))
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if self._predicted(middle) <= cap else (middle, high)
        return high

    def _steps(self, level: float) -> dict[str, float]:
        """Return step sizes of equal divergence per weight, with a geometric mean (by weights) of ``2^level``."""
        log = {name: 0.5 * math.log2(g.weights / g.kl) for name, g in self.tensors.items()}
        weights = sum(g.weights for g in self.tensors.values())
        mean = sum(log[name] * g.weights for name, g in self.tensors.items()) / weights
        return {n: min(max(2 ** (level + log[n] - mean), SMALLEST_STEP), LARGEST_STEP) for n in self.tensors}

    def _bytes(self, tensor: _Tensor, step: float) -> float:
        """Predict the bytes at this step size from those at the reference, by the entropy of Gaussian symbols."""
        at = [gaussian_bits(8, 127 * s) for s in (step, REFERENCE_STEP)]
        return max(tensor.coded + tensor.weights * (at[0] - at[1]) / 8, 0.0)

    def _predicted(self, level: float) -> int:
        steps = self._steps(level)
        return round(self.fixed_bytes + sum(self._bytes(t, steps[name]) for name, t in self.tensors.items()))

    def _plan(self, cap: int, steps: Mapping[str, float], size: int) -> Plan:
        rows = tuple(
            TensorPlan(
                name,
                t.role,
                t.weights,
                t.bits,
                self._k(name, steps[name]),
                steps[name],
                round(self._bytes(t, steps[name])),
                t.kl * (steps[name] / REFERENCE_STEP) ** 2,
            )
            for name, t in self.tensors.items()
        )
        return Plan(rows, self.config.states, cap, self.fixed_bytes, size, sum(row.kl for row in rows))

    def _refuse(self, cap: int, least: int) -> NoReturn:
        largest = max(self.tensors, key=lambda name: self.tensors[name].weights)
        raise RuleError(
            f"{cap:,} bytes cannot be met: with steps of {LARGEST_STEP:g} standard deviations the file still has about "
            f"{least:,} bytes, {self.fixed_bytes:,} of them code, tokenizer and small tensors; the largest tensor is "
            f"{largest!r} with {self.tensors[largest].weights:,} weights. Train a smaller model, or allow {least:,}"
        )
