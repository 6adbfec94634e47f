"""The quantizing stage of a run: calibration text, Hessians, the search for the cap, and what it all cost."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golfcore.artifact.model_io import StoredTensor, model_tensors
from golfcore.config import QuantConfig, RecipeConfig
from golfcore.container import predict_size
from golfcore.data.contracts import BOS
from golfcore.data.text import read_documents
from golfcore.data.tokens import Tokens
from golfcore.errors import InputError, UsageError
from golfcore.model.interface import LanguageModel
from golfcore.ops.memory import keep_freed_memory
from golfcore.paths import atomic_write
from golfcore.pipeline.pack import QUANTIZED_VERSION, packing
from golfcore.progress import Tick, silent
from golfcore.quant import error_rows, quantize_state
from golfcore.quant.calibrate import check_disjoint, generated_rows, text_rows, training_rows
from golfcore.quant.fit import Fitter
from golfcore.quant.hessian import Hessians, collect_hessians
from golfcore.quant.matrix import check_finite
from golfcore.quant.measure import Probe, decibel, hessian_error, replaced
from golfcore.quant.qat import as_trained
from golfcore.ranks.world import World
from golfcore.run_folder import QUANTIZATION_ERRORS, QUANTIZED
from golfcore.tokenizer import Tokenizer
from golfcore.training.checkpoint import save_tensors

PROBE_TOKENS = 4096  # that divergences are measured on


@dataclass(frozen=True)
class Calibration:
    """What the quantizer knows of the model's inputs: Hessians (method gptq), and rows to measure divergences on."""

    hessians: Hessians | None
    probe_NT: Tensor


def calibrate(
    module: LanguageModel, recipe: RecipeConfig, tokens: Tokens, world: World, *, text: Sequence[Path] = (),
    seconds: float = math.inf, tick: Tick = silent,
) -> Calibration:  # fmt: skip
    """Reads or writes the calibration text and collects Hessians over all ranks.

    Args:
        module: with its trained weights.
        recipe: ``quant.calibration`` says which text.
        tokens: the run's.
        world: the ranks; each takes its share of training rows.
        text: files of the user's instead.
        seconds: of the clock that are left, where training text is read.
        tick: told about progress.

    Raises:
        InputError: weights that are NaN or infinite, naming the first; a text that is empty or overlaps the validation
            text.
    """

    for name, parameter in module.named_parameters():  # or a layer after it would be blamed
        check_finite(parameter, name)

    quant, seq_len = recipe.quant, recipe.train.seq_len
    if text:
        ids = _encoded(text, tokens)
        check_disjoint(ids, tokens.shards("val")[:])
        rows_NT = text_rows(ids, seq_len)
        probe_NT = rows_NT[: max(1, PROBE_TOKENS // rows_NT.size(1))]
        rows_NT = rows_NT[: max(1, quant.calibration_tokens // rows_NT.size(1))][world.rank :: world.size]
    elif quant.calibration == "generated":
        own_NT = generated_rows(module, quant.calibration_tokens, seq_len, seed=recipe.train.seed, tick=tick)
        probe_NT, rows_NT = own_NT[: max(1, PROBE_TOKENS // seq_len)], own_NT[world.rank :: world.size]
    else:
        train = tokens.shards("train")
        rows_NT = training_rows(train, quant.calibration_tokens, seq_len, rank=world.rank, world=world.size)
        probe_NT = training_rows(train, PROBE_TOKENS, seq_len)
    if quant.method != "gptq":
        return Calibration(None, probe_NT)
    combine = world.sum if world.size > 1 else None
    hessians = collect_hessians(
        module, rows_NT, batch_tokens=recipe.eval.batch_tokens // 2, seconds=seconds, combine=combine, tick=tick
    )
    return Calibration(hessians, probe_NT)


def _encoded(text: Sequence[Path], tokens: Tokens) -> Any:
    """A stream of tokens of the user's files, a document mark before each document."""

    if not isinstance(tokens.tokenizer, Tokenizer):
        raise UsageError("calibration from files needs golfcore's own tokenizer; use quant.calibration = generated")
    ids, offsets = tokens.tokenizer.encode_batch(list(read_documents(text)))
    return np.insert(ids, offsets[:-1], BOS)


def quantize_stage(
    run_dir: Path, module: LanguageModel, recipe: RecipeConfig, tokens: Tokens, calibration: Calibration,
    *, cap: int = 0, tick: Tick = silent,
) -> dict[str, Any]:  # fmt: skip
    """Writes ``quantised.pt`` and ``quantised.json``; the checkpoint stays as it is.

    Args:
        run_dir: the run's folder.
        module: with its trained weights, which it keeps.
        recipe: how to quantize.
        tokens: the run's.
        calibration: from ``calibrate``.
        cap: bytes of the whole file that ``quant.fit`` fills; 0: the track's, less ``quant.margin``.
        tick: told about progress.

    Returns:
        The content of ``quantised.json``: a row a tensor, the total, and the plan of ``quant.fit``.

    Raises:
        RuleError: the cap cannot be met.
    """

    keep_freed_memory()
    for torn in run_dir.glob(".quantised.*.tmp"):  # of a process that was killed while it wrote
        torn.unlink(missing_ok=True)
    module = module.to("cpu")
    module.activation_dtype = torch.float32  # divergences lie below the rounding of bf16
    state, roles = module.state_dict(), module.parameter_roles()
    plan = None
    if recipe.quant.fit:
        plan, stored = fitter(module, recipe, tokens, calibration, tick).fit(cap or _cap(recipe))
    else:
        stored = quantize_state(state, roles, recipe.quant, calibration.hessians, tick=tick)
    with replaced(module, as_trained(state, roles, recipe.quant)):
        state = {name: p.detach().clone() for name, p in module.named_parameters()}
        probe = Probe(module, calibration.probe_NT, _text_bytes(tokens, calibration.probe_NT))
        rows = error_rows(state, stored, calibration.hessians, probe, module, tick)
        total = _total(module, stored, calibration.hessians, probe)
    result = {"tensors": rows, "total": total, "plan": None if plan is None else dataclasses.asdict(plan)}
    save_tensors(
        run_dir / QUANTIZED,
        {"version": QUANTIZED_VERSION, "tensors": [dataclasses.astuple(item) for item in stored]},
    )
    with atomic_write(run_dir / QUANTIZATION_ERRORS, "w") as f:
        json.dump(result, f, indent=1)
        f.write("\n")
    return result


def quantized_line(result: dict[str, Any]) -> str:
    """The run log's line on what ``quantize_stage`` did."""
    total = result["total"]
    parts = [f"quantised kl:{total['kl']:.6f}"]
    if total["bpb"] is not None:
        parts.append(f"bpb:{total['bpb']:.4f} before:{total['bpb_before']:.4f}")
    if total["hessian_db"] is not None:
        parts.append(f"hessian_db:{total['hessian_db']:.2f} calibration_tokens:{total['calibration_tokens']}")
    if result["plan"] is not None:
        parts.append(f"fit_bytes:{result['plan']['bytes']} cap:{result['plan']['cap']}")
    return " ".join(parts)


def fitter(
    module: LanguageModel, recipe: RecipeConfig, tokens: Tokens, calibration: Calibration, tick: Tick = silent
) -> Fitter:
    """The search for the cap on a run's model; it measures the groups' sensitivities at once."""

    if calibration.hessians is None:
        raise InputError("the search for a cap works with quant.method = gptq")

    coder = recipe.quant.coder

    def size(stored: list[StoredTensor]) -> int:
        return predict_size(*model_tensors(*packing(recipe, tokens, stored), coder), coder=coder)

    probe = Probe(module, calibration.probe_NT)
    return Fitter(module, recipe.quant, calibration.hessians, probe, size, tick)


def fitted(config: QuantConfig) -> QuantConfig:
    """A recipe's quantizer as ``--fit`` uses it: GPTQ, steps from the search."""
    return dataclasses.replace(config, method="gptq", fit=True, group_k=())


def _cap(recipe: RecipeConfig) -> int:
    return recipe.track.cap_bytes - recipe.quant.margin


def _text_bytes(tokens: Tokens, ids_NT: Tensor) -> int:

    return sum(int(tokens.count_bytes(row.numpy().astype(np.uint16)).sum()) for row in ids_NT)


def _total(
    module: LanguageModel, stored: Sequence[StoredTensor], hessians: Hessians | None, probe: Any
) -> dict[str, Any]:
    """The whole model quantized: mean errors in dB, weighted by weights; divergence; bits per byte before and after."""

    state = {name: p.detach().clone() for name, p in module.named_parameters()}
    before = probe.cost(module)
    with replaced(module, {item.name: item.dequantize() for item in stored}):
        after = probe.cost(module)
    logs, weights = 0.0, 0
    for item in stored:
        hessian_II = None if hessians is None else hessians.of(item.name)
        if hessian_II is not None:
            ratio = decibel(hessian_error(state[item.name], state[item.name] - item.dequantize(), hessian_II))
            logs, weights = logs + (ratio or 0.0) * item.values.numel(), weights + item.values.numel()
    return {
        "params": sum(item.values.numel() for item in stored), "hessian_db": logs / weights if weights else None,
        "kl": after.kl, "bpb": after.bpb, "bpb_before": before.bpb, "tokens": probe.ids_NT.numel(),
        "calibration_tokens": hessians.tokens if hessians else 0,
    }  # fmt: skip
