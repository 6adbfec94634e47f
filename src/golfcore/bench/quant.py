"""Compare quantizers on trained models: bytes, Hessian-weighted error, divergence and bits per byte, in one run.

``contest`` is the pipeline of the contest's best entries, rebuilt: GPTQ with act-order, blocks of 128, 1 % damping,
int6 matrices clipped at k = 12.85 standard deviations, an int8 embedding at k = 20, fp16 row scales, brotli -11 over
all of it. Bytes are those of the weights with all that a reader needs (scales, small tensors, directory), without
code and tokenizer, which both sides share.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golfcore import container
from golfcore.artifact.model_io import StoredTensor, model_tensors
from golfcore.bench.pack import brotli_module
from golfcore.config import QuantConfig
from golfcore.container.trellis import points
from golfcore.data.prepare import load_prepared
from golfcore.data.tokens import open_run
from golfcore.errors import InputError, RuleError
from golfcore.model import Role, get_family
from golfcore.pipeline.config import read_config
from golfcore.pipeline.train import load_weights
from golfcore.progress import Tick, silent
from golfcore.quant import quantize_state
from golfcore.quant.calibrate import training_rows
from golfcore.quant.fit import Fitter
from golfcore.quant.gptq import BLOCK, Coding, Factor, factorize_all, quantize_layers
from golfcore.quant.hessian import Hessians, collect_hessians
from golfcore.quant.measure import Probe, decibel, hessian_error, replaced
from golfcore.training.precision import choose_precision

CONTEST_K, CONTEST_EMBED_K = 12.85, 20.0
CURVE = (8.0, 10.0, 12.85, 16.0, 20.0, 26.0)  # k of the contest's curve, on which golfcore's rows are read off
FIT_BITS = (2.1, 2.6, 3.1)  # a parameter, that the search aims at
LQER = (0, 4)  # ranks of low-rank corrections besides the default's
METHODS = ("contest", "curve", "states", "fit", "lqer")
STATES = (4, 8, 32, 256)


@dataclass(frozen=True, kw_only=True)
class QuantRow:
    """One method on one checkpoint. ``seconds`` are those of quantizing with Hessians given; None if not timed.

    ``entropy`` is that of the symbols of all matrices in bits per weight, each tensor (with a trellis each parity) by
    itself. ``hessian_error_db`` is the mean over matrices, weighted by size. ``kl`` (nats per token) and ``val_bpb``
    are measured on ``tokens`` tokens of validation text.
    """

    method: str
    checkpoint: str
    seed: int
    bytes: int | None
    bits_per_weight: float | None
    entropy: float | None
    hessian_error_db: float | None
    kl: float | None
    val_bpb: float | None
    tokens: int
    seconds: float | None


class Subject:
    """A run's model with its Hessians and validation text.

    Raises:
        InputError: the folder is no run, or its data is gone.
    """

    def __init__(self, name: str, run_dir: Path, *, tokens: int, calibration_tokens: int) -> None:
        self.name = name
        self.recipe, _ = open_run(read_config(run_dir))
        prepared = load_prepared(Path(self.recipe.data.path))
        self.tokenizer = prepared.tokenizer()
        self.module = load_weights(run_dir, self.recipe, self.tokenizer.vocab_size)
        self.state = {n: p.detach().clone() for n, p in self.module.named_parameters()}
        self.roles: dict[str, Role] = self.module.parameter_roles()
        self.module.activation_dtype, _ = choose_precision("auto", torch.device("cpu"))
        seq_len = self.recipe.train.seq_len
        train, val = prepared.shards("train"), prepared.shards("val")
        rows_NT = training_rows(train, calibration_tokens, seq_len)
        self.hessians: Hessians = collect_hessians(self.module, rows_NT)
        self.probe_NT = training_rows(train, 4096 if self.weights < 10_000_000 else 1024, seq_len)
        ids = val[: tokens or len(val)]
        ids_NT = torch.from_numpy(ids[: len(ids) // seq_len * seq_len].astype(np.int64)).view(-1, seq_len)
        token_bytes = torch.from_numpy(self.tokenizer.token_bytes.astype(np.int64))
        self.val = Probe(self.module, ids_NT, int(token_bytes[ids_NT[:, 1:]].sum()))

    @property
    def matrices(self) -> list[str]:
        """Return the names of the matrices that are quantized."""
        return [name for name, role in self.roles.items() if role.kind != "vector"]

    @property
    def shared_bytes(self) -> int:
        """Return the bytes of code, tokenizer and manifest in a packed file."""
        family = get_family(self.recipe.model_family)
        tokenizer = self.tokenizer.to_bytes()
        return len(container.encode(*model_tensors(family, self.recipe.model, 0, [], tokenizer, {})))

    @property
    def weights(self) -> int:
        """Return the number of all parameters."""
        return sum(w.numel() for w in self.state.values())

    def row(self, method: str, stored: Sequence[StoredTensor], size: int, seconds: float | None) -> QuantRow:
        """Measure ``stored`` against the trained model."""
        values = {item.name: item.dequantize() for item in stored}
        logs, entropy, weights = 0.0, 0.0, 0
        for item in stored:
            if item.name not in self.hessians.key:
                continue
            error_OI = self.state[item.name] - values[item.name]
            ratio = hessian_error(self.state[item.name], error_OI, self.hessians.of(item.name))
            n = error_OI.numel()
            logs, weights = logs + n * (decibel(ratio) or 0.0), weights + n
            entropy += n * symbol_entropy(item)
        with replaced(self.module, values):
            cost = self.val.cost(self.module)
        return QuantRow(
            method=method, checkpoint=self.name, seed=self.recipe.train.seed, bytes=size,
            bits_per_weight=8 * size / self.weights, entropy=entropy / weights, hessian_error_db=logs / weights,
            kl=cost.kl, val_bpb=cost.bpb, tokens=self.val.ids_NT.numel(), seconds=seconds,
        )  # fmt: skip


def symbol_entropy(item: StoredTensor) -> float:
    """Return the entropy in bits per symbol by counts alone; with a trellis each parity of points by itself."""
    symbols = item.values.numpy().reshape(-1).astype(np.int64)
    if item.trellis:
        symbols = (symbols + 128) * 2 + (points(item.values.numpy(), item.trellis).reshape(-1) & 1)
        parity = np.bincount(symbols & 1)
        return _entropy(np.bincount(symbols)) - _entropy(parity)
    return _entropy(np.bincount(symbols + 128))


def _entropy(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


# --- the contest's pipeline -----------------------------------------------------------------------------------------


def contest(subject: Subject, k: float, factors: Mapping[str, Factor]) -> tuple[list[StoredTensor], int]:
    """Return weights and bytes of the contest's pipeline; the embedding's k is proportional to the matrices' k."""
    coded = {
        name: Coding(8, "sigma", CONTEST_EMBED_K * k / CONTEST_K, 0, False, 0.0, "fp16", True)
        if subject.roles[name].kind in ("embedding", "head")
        else Coding(6, "sigma", k, 0, False, 0.0, "fp16", True)
        for name in subject.matrices
    }
    quantized = quantize_layers(subject.state, factors, subject.hessians.key, coded)
    stored = []
    for name, role in subject.roles.items():
        if name in quantized:
            found = quantized[name]
            stored.append(StoredTensor(name, role.group, found.symbols_OI, found.scale_O, coded[name].bits))
        else:
            stored.append(StoredTensor(name, role.group, subject.state[name].half()))
    arrays = [a for item in stored for a in (item.values, item.scale) if a is not None]
    blob = b"".join(a.numpy().tobytes() for a in arrays)
    return stored, len(brotli_module().compress(blob, quality=11, lgwin=24))


def plain_gptq(weight_OI: Tensor, hessian_II: Tensor, step_O: Tensor, limit: int) -> Tensor:
    """Quantize ``weight_OI`` by GPTQ in plain torch, as its authors' program does; return the symbols."""
    w_OI, h_II = weight_OI.clone().float(), hessian_II.clone()
    dead_I = h_II.diagonal() == 0
    h_II.diagonal()[dead_I] = h_II.diagonal()[~dead_I].mean()
    w_OI[:, dead_I] = 0
    order_I = torch.argsort(h_II.diagonal(), descending=True, stable=True)
    w_OI, h_II = w_OI[:, order_I], h_II[order_I][:, order_I]
    h_II.diagonal().add_(0.01 * h_II.diagonal().mean())
    u_II = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h_II)), upper=True)
    symbols_OI = torch.zeros_like(w_OI)
    inverse_O = torch.where(step_O > 0, 1 / step_O, torch.zeros_like(step_O))
    for start in range(0, w_OI.size(1), BLOCK):
        stop = min(start + BLOCK, w_OI.size(1))
        block_OC, errors_OC = w_OI[:, start:stop].clone(), torch.zeros(w_OI.size(0), stop - start)
        for j in range(stop - start):
            u_C = u_II[start + j, start:stop]
            symbol_O = (block_OC[:, j] * inverse_O).round().clamp(-limit, limit)
            symbols_OI[:, start + j] = symbol_O
            error_O = (block_OC[:, j] - symbol_O * step_O) / u_C[j]
            block_OC[:, j:] -= error_O[:, None] * u_C[j:]
            errors_OC[:, j] = error_O
        w_OI[:, stop:] -= errors_OC @ u_II[start:stop, stop:]
    out = torch.empty_like(symbols_OI)
    out[:, order_I] = symbols_OI
    return out.to(torch.int8)


# --- rows -----------------------------------------------------------------------------------------------------------


def rows(
    subject: Subject, *, methods: Sequence[str] = METHODS, cap: int = 0, tick: Tick = silent
) -> list[QuantRow]:  # fmt: skip
    """Return the rows of one checkpoint.

    Args:
        subject: the checkpoint.
        methods: ``contest``, its pipeline at its own k; ``curve``, at other k; ``states``, golfcore's methods at that
            k; ``fit``, the search at a few sizes; ``lqer``, the search with other ranks of corrections.
        cap: bytes, with code and tokenizer, that both pipelines are also made to fill; 0 leaves this out.
        tick: called with the number of methods so far.
    """
    found: list[QuantRow] = []
    config = QuantConfig(method="gptq")

    def note(row: QuantRow) -> None:
        found.append(row)
        tick(
            len(found), len(CURVE) + len(STATES) + len(FIT_BITS) * (1 + len(LQER)) + 7, f"{subject.name}: {row.method}"
        )

    factors = factorize_all(subject.hessians, damping=config.damping)
    for k in CURVE:
        if ("contest" if k == CONTEST_K else "curve") in methods:
            stored, size = contest(subject, k, factors)
            note(subject.row(f"contest k={k:g}", stored, size, None))
    for method, variant in _variants(config).items() if "states" in methods else ():
        start = time.perf_counter()
        stored = quantize_state(subject.state, subject.roles, variant, subject.hessians)
        seconds = time.perf_counter() - start
        note(subject.row(method, stored, packed_size(stored), seconds))
    if not cap and not {"fit", "lqer"} & set(methods):
        return found
    probe = Probe(subject.module, subject.probe_NT)
    fitter = Fitter(subject.module, config, subject.hessians, probe, packed_size)
    searches = {config.lqer_rank: fitter} if "fit" in methods else {}
    for rank in LQER if "lqer" in methods else ():
        changed = dataclasses.replace(config, lqer_rank=rank)
        searches[rank] = Fitter(subject.module, changed, subject.hessians, probe, packed_size)
    for rank, search in searches.items():
        for bits in FIT_BITS:
            _, stored = search.fit(round(bits * subject.weights / 8))
            note(subject.row(f"fit to {bits} bits, lqer {rank}", stored, packed_size(stored), None))
    if cap:
        shared = subject.shared_bytes
        stored, size = _contest_fills(subject, cap - shared, factors)
        note(subject.row(f"contest fills {cap:,}", stored, size + shared, None))
        _, stored = fitter.fit(cap - shared)
        note(subject.row(f"golfcore fills {cap:,}", stored, packed_size(stored) + shared, None))
    return found


def _variants(config: QuantConfig) -> dict[str, QuantConfig]:
    """Return golfcore's methods at the contest's k, with one ingredient added after the other."""
    plain = dataclasses.replace(config, states=0, columns=False, rate=0.0, lqer_rank=0)
    return {
        "rtn": QuantConfig(), "gptq": plain,
        **{f"gptq, {n} states": dataclasses.replace(plain, states=n) for n in STATES},
        "gptq, 256 states, rate": dataclasses.replace(config, columns=False, lqer_rank=0),
        "gptq, 256 states, rate, columns": dataclasses.replace(config, lqer_rank=0),
        "gptq, 256 states, rate, columns, lqer": config,
    }  # fmt: skip


def packed_size(stored: Sequence[StoredTensor]) -> int:
    """Return the bytes of a container of these tensors alone."""
    return len(container.encode([part for item in stored for part in item.parts()], {}))


def _contest_fills(subject: Subject, cap: int, factors: Mapping[str, Factor]) -> tuple[list[StoredTensor], int]:
    """Run the contest's pipeline at the least k whose bytes are within ``cap``, to 0.1 %."""
    low, high, k = 2.0, 62.0, CONTEST_K
    best: tuple[list[StoredTensor], int] | None = None
    for _ in range(14):
        stored, size = contest(subject, k, factors)
        low, high = (k, high) if size > cap else (low, k)
        if size <= cap and (best is None or size > best[1]):
            best = stored, size
        if 0.999 * cap <= size <= cap:
            break
        guess = k * 2 ** ((size - 0.9995 * cap) * 8 / subject.weights)  # twice the step size saves one bit per weight
        k = guess if low < guess < high else math.sqrt(low * high)
    if best is None:
        raise RuleError(f"{subject.name}: the contest's pipeline cannot meet {cap:,} bytes")
    return best


def timed_rows(subject: Subject, repeats: int = 3) -> list[QuantRow]:
    """Time GPTQ with Hessians given: ours by rounding and with 8 states, and plain torch; the best of repeats.

    Raises:
        RuleError: plain torch's symbols differ from ours by more than rounding.
    """
    coded = {name: Coding(6, "sigma", CONTEST_K, 0, False, 0.0, "fp16", True) for name in subject.matrices}
    trellis = {name: Coding(trellis=3) for name in subject.matrices}
    h = subject.hessians

    def ours(coding: Mapping[str, Coding]) -> dict[str, Tensor]:
        factors = factorize_all(h, damping=0.01)
        return {n: q.symbols_OI for n, q in quantize_layers(subject.state, factors, h.key, coding).items()}

    steps = {
        n: q.scale_O.float()
        for n, q in quantize_layers(subject.state, {}, {}, coded).items()
    }  # fmt: skip

    def plain() -> dict[str, Tensor]:
        return {n: plain_gptq(subject.state[n], _matrix(h, n), steps[n], 31) for n in subject.matrices}

    found: dict[str, tuple[float, dict[str, Tensor]]] = {}
    works: dict[str, Callable[[], dict[str, Tensor]]] = {
        "wall: gptq": lambda: ours(coded), "wall: gptq in plain torch": plain,
        "wall: gptq, 8 states": lambda: ours(trellis),
    }  # fmt: skip
    for _ in range(repeats):
        for name, work in works.items():
            start = time.perf_counter()
            result = work()
            seconds = time.perf_counter() - start
            found[name] = min(found.get(name, (math.inf, result)), (seconds, result), key=lambda f: f[0])
    _require_alike(subject, found["wall: gptq"][1], found["wall: gptq in plain torch"][1], steps)
    blank: dict[str, Any] = dict.fromkeys(
        ("bytes", "bits_per_weight", "entropy", "hessian_error_db", "kl", "val_bpb"), None
    )  # fmt: skip
    return [
        QuantRow(
            method=name, checkpoint=subject.name, seed=subject.recipe.train.seed, tokens=0, seconds=seconds, **blank
        )
        for name, (seconds, _) in found.items()
    ]  # fmt: skip


def _matrix(hessians: Hessians, name: str) -> Tensor:
    matrix = hessians.of(name)
    if matrix is None:
        raise InputError(f"{name} has no Hessian")
    return matrix


def _require_alike(
    subject: Subject, ours: Mapping[str, Tensor], plain: Mapping[str, Tensor], steps: Mapping[str, Tensor]
) -> None:
    """Raise RuleError if the error that GPTQ minimizes differs; single roundings between two symbols may."""
    for name, symbols_OI in ours.items():
        weight_OI, hessian_II = subject.state[name], subject.hessians.of(name)
        errors = [
            hessian_error(weight_OI, weight_OI - s.float() * steps[name][:, None], hessian_II)
            for s in (symbols_OI, plain[name])
        ]
        same = float((symbols_OI == plain[name]).float().mean())
        if abs(errors[0] / errors[1] - 1) > 0.02 or same < 0.9:
            raise RuleError(
                f"{name}: plain torch agrees on {same:.1%} of symbols, errors {errors[0]:.3g}, {errors[1]:.3g}"
            )


def equal_kl(found: Sequence[QuantRow]) -> dict[str, float] | None:
    """Return the bytes of the contest's pipeline at its own k, and of golfcore at the same divergence.

    golfcore's bytes are interpolated between two rows, linear in the logarithm of the divergence; None if its rows do
    not span that divergence.
    """
    base = next((row for row in found if row.method == f"contest k={CONTEST_K:g}"), None)
    default = f"lqer {QuantConfig().lqer_rank}"
    fits = sorted(
        (r for r in found if r.method.startswith("fit to") and r.method.endswith(default)), key=lambda r: -(r.kl or 0)
    )
    if base is None or base.kl is None or base.bytes is None:
        return None
    for one, other in pairwise(fits):
        if one.kl and other.kl and one.bytes and other.bytes and other.kl <= base.kl <= one.kl:
            share = math.log(one.kl / base.kl) / math.log(one.kl / other.kl)
            size = one.bytes + share * (other.bytes - one.bytes)
            return {"contest_bytes": base.bytes, "golfcore_bytes": size, "saved": 1 - size / base.bytes, "kl": base.kl}
    return None


def gains_db(found: Sequence[QuantRow]) -> dict[str, float]:
    """Return the decibels by which each method's Hessian-weighted error is below scalar GPTQ's at the same entropy.

    Scalar GPTQ is the contest's curve: its entropy at each k, linear in between.
    """
    curve = sorted((r.entropy or 0.0, r.hessian_error_db or 0.0) for r in found if r.method.startswith("contest k="))
    rate, error = np.array([c[0] for c in curve]), np.array([c[1] for c in curve])
    return {
        r.method: float(np.interp(r.entropy or 0.0, rate, error)) - (r.hessian_error_db or 0.0)
        for r in found if r.method.startswith("gptq") and r.entropy
    }  # fmt: skip
