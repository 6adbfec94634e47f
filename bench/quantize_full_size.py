"""Time the quantizing stage of a full-size recipe on weights that were never trained, as rank 0 of eight would do it.

    python bench/quantize_full_size.py --recipe frontier_8xh100 --probe-tokens 64

On a GPU divergences are measured there; on a machine without one they would take hours. So the probes are cut to
``--probe-tokens``, and what whole ones take on an H100 is counted on paper: their operations at 70 % of its fp32 rate,
their bytes at 88 % of its memory's. Hessians are of ``--calibration-tokens`` of random tokens: their values change the
symbols and hardly the time. The search for the cap, packing included, is whole.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import tempfile
import time
from pathlib import Path

from golfcore.openmp import share_cores

share_cores()  # before torch is imported

import numpy as np  # noqa: E402
import torch  # noqa: E402

from golfcore.data.shards import ShardWriter  # noqa: E402
from golfcore.data.tokens import Tokens  # noqa: E402
from golfcore.model import get_family  # noqa: E402
from golfcore.model.interface import LanguageModel  # noqa: E402
from golfcore.pipeline.quantize import PROBE_TOKENS, Calibration, probe_length, quantize_stage  # noqa: E402
from golfcore.progress import silent, told  # noqa: E402
from golfcore.quant.calibrate import training_rows  # noqa: E402
from golfcore.quant.hessian import collect_hessians  # noqa: E402
from golfcore.recipes import load_recipe  # noqa: E402

FP32_FLOPS, MEMORY_BYTES = 0.7 * 61.8e12, 0.88 * 3.35e12  # of an H100, per second
PCIE_BYTES = 25e9  # per second, from pageable memory about half of it


class Words:
    """The part of a tokenizer that quantizing asks for: each token stands for three bytes."""

    def count_bytes(self, ids: np.ndarray) -> np.ndarray:
        return np.full(len(ids) - 1, 3, dtype=np.int32)


def random_tokens(folder: Path, vocab_size: int, count: int) -> Tokens:
    """Write random tokens as a training shard."""
    with ShardWriter(folder, "train") as writer:
        writer.append(np.random.default_rng(0).integers(4, vocab_size, count).astype(np.uint16))
    return Tokens(folder, vocab_size, Words(), "", prepared=False)  # type: ignore[arg-type]


def random_model(recipe: object, vocab_size: int) -> LanguageModel:
    """Build the model with every matrix random, also those that start at zero."""
    module = get_family(recipe.model_family).build(recipe.model, vocab_size, 0)  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 2:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return module


def on_paper(recipe: object, vocab_size: int, matrices: int, bytes_: int) -> str:
    """Return the line with the GPU's time: two probes a matrix, and four of the whole model."""
    tokens, count = PROBE_TOKENS, 2 * matrices + 4
    work = get_family(recipe.model_family).work(recipe.model, vocab_size, probe_length(recipe))[-1]  # type: ignore
    flops = tokens * work.flops / 3  # the forward pass alone
    # Each layer's activations some ten times; of the logits, log-softmax, difference and sum make twelve passes.
    memory = 4.0 * tokens * (10 * work.residual + 6 * work.inside + 12 * work.vocab)
    probe_s = flops / FP32_FLOPS + memory / MEMORY_BYTES
    copy_s = 2 * bytes_ / (PCIE_BYTES / 2)  # every weight goes there twice
    return (
        f"on paper, one H100: {count} probes of {tokens:,} tokens, {flops / 1e12:.2f} TFLOP and {memory / 1e9:.1f} GB "
        f"each, {1e3 * probe_s:.0f} ms; in all {count * probe_s + copy_s:.1f} s, {copy_s:.2f} of them copies of weights"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="frontier_8xh100")
    parser.add_argument("--probe-tokens", type=int, default=64)
    parser.add_argument("--calibration-tokens", type=int, default=4096)
    parser.add_argument("--whole-probe", action="store_true", help="also time one whole probe on this processor")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as torchrun starts rank 0
    recipe = load_recipe(options.recipe, environment={}).config
    recipe = dataclasses.replace(recipe, track=dataclasses.replace(recipe.track, train_s=0.0))
    vocab_size, length = recipe.data.vocab_size, probe_length(recipe)
    module = random_model(recipe, vocab_size)
    weights = sum(p.numel() for p in module.parameters())
    with tempfile.TemporaryDirectory() as folder:
        tokens = random_tokens(Path(folder) / "tokens", vocab_size, 1 << 20)
        train = tokens.shards("train")
        started = time.perf_counter()
        torch.set_num_threads(os.cpu_count() or 1)
        hessians = collect_hessians(module, training_rows(train, options.calibration_tokens, length))
        torch.set_num_threads(1)
        print(f"{weights:,} weights; Hessians of {hessians.tokens:,} tokens: {time.perf_counter() - started:.0f} s")
        calibration = Calibration(hessians, training_rows(train, options.probe_tokens, options.probe_tokens))
        started, computed = time.perf_counter(), time.process_time()

        def tell(line: str) -> None:
            print(f"{time.perf_counter() - started:4.0f} s: {line}", flush=True)

        result = quantize_stage(Path(folder), module, recipe, tokens, calibration, ranks=8, tick=told(silent, tell))
        seconds, computed = time.perf_counter() - started, time.process_time() - computed
        plan, matrices = result["plan"], sum(row["kl"] is not None for row in result["tensors"])
        load = f"load {os.getloadavg()[0]:.1f} (1 minute)"
        print(f"quantize_stage: {seconds:.0f} s on {os.cpu_count()} cores, {computed:.0f} s of theirs, {load}")
        if plan is not None:
            print(f"{plan['bytes']:,} bytes of {plan['cap']:,}")
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")
        print(on_paper(recipe, vocab_size, matrices, 4 * weights))
        if options.whole_probe:
            from golfcore.quant.measure import Probe

            torch.set_num_threads(os.cpu_count() or 1)
            started = time.perf_counter()
            Probe(module, training_rows(train, PROBE_TOKENS, length))
            print(f"one whole probe on this processor: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
