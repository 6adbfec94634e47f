"""Build the trainer of a recipe; runs, plans, ablations and benches all build it here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from golfcore import machine
from golfcore.config import RecipeConfig
from golfcore.data.contracts import TokenSource
from golfcore.data.loader import TokenLoader
from golfcore.data.segments import segment_bounds
from golfcore.errors import InputError, UsageError
from golfcore.model import get_family
from golfcore.model.interface import LanguageModel
from golfcore.ops import attention, products
from golfcore.ops.attention_backends import choose, unavailable, using_attention
from golfcore.ops.memory import keep_freed_memory
from golfcore.ops.registry import backends, why_not
from golfcore.ops.threads import fit_threads
from golfcore.ranks.device import why_no_gpu
from golfcore.ranks.world import World
from golfcore.training.precision import choose_precision
from golfcore.training.runlog import RunLog
from golfcore.training.saving import BatchLoader
from golfcore.training.trainer import Trainer


def token_loader(recipe: RecipeConfig, source: TokenSource, world: World) -> TokenLoader:
    """Return the loader of this rank's batches from ``source``; leaving its context ends its thread."""
    train = recipe.train
    return TokenLoader(
        source, batch_tokens=train.batch_tokens, seq_len=train.seq_len, rank=world.rank, world=world.size,
        seed=train.seed, order=train.order,
    )  # fmt: skip


@contextmanager
def build_trainer(
    recipe: RecipeConfig,
    vocab_size: int,
    loader: BatchLoader,
    world: World,
    log: RunLog,
    *,
    resume: Mapping[str, Any] | None = None,
    on_progress: Callable[[float, str], None] | None = None,
    evaluate: Callable[[LanguageModel], tuple[float, float]] | None = None,
) -> Iterator[Trainer]:
    """Yield the trainer of ``recipe``; its choice of matrix products and attention holds until the block ends.

    Rank 0 measures precision, products and attention for all ranks, since each rank might choose differently. It does
    so once per run: a resumed run keeps the arithmetic that it began with.

    Args:
        recipe: the recipe to train.
        vocab_size: size of the tokenizer's vocabulary, which wins if it differs from ``data.vocab_size``.
        loader: gives the batches of this rank.
        world: the ranks.
        log: gets one line per choice.
        resume: content of the checkpoint to go on from.
        on_progress: called with the share of the run that is done (0 to 1) and a note.
        evaluate: returns validation loss and bits per byte; called every ``train.val_every`` steps.
    """
    if world.device.type == "cpu":
        require_memory(recipe, vocab_size, world.size)
        keep_freed_memory()
        for line in fit_threads():
            log.line(line)
    before = {} if resume is None else resume.get("choices", {})
    with ExitStack() as stack:
        with log.phase("set-up"):
            module = get_family(recipe.model_family).build(recipe.model, vocab_size, recipe.train.seed)
            module = module.to(world.device)
            kept = products.Route(*before["products"]) if "products" in before else None
            route = world.on_primary(lambda: kept or products.route())
            stack.enter_context(products.using(route))
            module.activation_dtype, why = world.on_primary(lambda: _choose_precision(recipe, world, before))
            parameters = sum(p.numel() for p in module.parameters())
            log.line(f"model_params:{parameters} family:{recipe.model_family} vocab:{vocab_size}")
            log.line(f"world_size:{world.size} device:{world.device} precision:{module.activation_dtype} ({why})")
            log.line(f"products: {route} ({'as the run began' if 'products' in before else products.speeds()})")
            log.line("ops: " + " ".join(f"{op}={served}" for op, served in backends(world.device).items()))
            if recipe.train.require_gpu:
                world.on_primary(lambda: _require_gpu(world.device, backends(world.device)))
            log.line(
                f"seed:{recipe.train.seed} train_batch_tokens:{recipe.train.batch_tokens} "
                f"train_seq_len:{recipe.train.seq_len}"
            )
            served, why = world.on_primary(lambda: _choose_attention(recipe, module, loader, before))
            log.line(f"attention:{served} ({why})")
            stack.enter_context(using_attention(served))
        trainer = Trainer(recipe, module, loader, world, log, on_progress, evaluate)
        trainer.choices = {"attention": served, "precision": module.activation_dtype, "products": tuple(route)}
        if resume is not None:
            trainer.resume(dict(resume))
        yield trainer


def require_memory(recipe: RecipeConfig, vocab_size: int, ranks: int = 1) -> None:
    """Check that a training on this machine's processor can fit into its memory, before anything is allocated.

    What is counted is a lower bound: weights, gradients and one moment in fp32, and for each token of a micro-batch the
    residual stream and the inside of the MLPs in bf16. Without this check the system would end the process, silently.

    Raises:
        InputError: it cannot fit.
    """
    memory = machine.memory_bytes()
    if memory is None:
        return
    family, train = get_family(recipe.model_family), recipe.train
    parameters = sum(count for _, count, _ in family.counts(recipe.model, vocab_size).values())
    work = family.work(recipe.model, vocab_size, train.seq_len)[0]
    tokens = max(train.seq_len, min(train.micro_batch_tokens, train.batch_tokens // ranks))
    state, batch = 12 * parameters, 2 * (work.residual + work.inside) * tokens
    if state + batch > memory[0]:
        needs, batch_needs, has = (f"{count / 2**30:,.1f} GiB" for count in (state, batch, memory[0]))
        raise InputError(
            f"not enough memory: training {parameters:,} parameters takes {needs} and a micro-batch of {tokens:,} "
            f"tokens {batch_needs} at least, this machine has {has}; lower "
            + ("model.model_dim or model.num_layers" if state > batch else "train.micro_batch_tokens")
        )


def _require_gpu(device: torch.device, served: Mapping[str, str]) -> None:
    """Raise UsageError unless kernels on a GPU serve every operation."""
    slow = [op for op, by in served.items() if by != "native-cuda"]
    if not slow:
        return
    if device.type == "cuda":
        why = f"plain torch would serve {', '.join(slow)} ({why_not(device.index or 0) or 'GOLF_OPS says so'})"
    else:
        why = f"this run would be on the CPU ({why_no_gpu()})"
    raise UsageError(
        f"train.require_gpu = true, and {why}: see golfcore doctor, or set train.require_gpu=false to run all the same"
    )


def _choose_precision(recipe: RecipeConfig, world: World, before: Mapping[str, Any]) -> tuple[torch.dtype, str]:
    if "precision" in before:
        return before["precision"], "as the run began"
    return choose_precision(recipe.train.precision, world.device)


def _choose_attention(
    recipe: RecipeConfig, module: LanguageModel, loader: BatchLoader, before: Mapping[str, Any]
) -> tuple[str, str]:
    if "attention" in before and not unavailable(before["attention"]):
        return before["attention"], "as the run began"
    train, model = recipe.train, recipe.model
    shape = [getattr(model, name, 0) for name in ("num_heads", "num_kv_heads", "model_dim")]
    if not all(shape):
        return "own", f"family {recipe.model_family} names no heads to try"
    heads, kv_heads, dim = shape
    rows = max(1, min(train.micro_batch_tokens, train.batch_tokens) // train.seq_len)
    device, cu_seqlens, longest = next(module.parameters()).device, None, 0
    if (documents := module.documents()) is not None:  # on its own batches they differ from a single long one
        ids_BT = loader.peek().inputs_BT[:rows]
        rows, cu_seqlens = len(ids_BT), torch.from_numpy(segment_bounds(ids_BT, documents)).to(device)
        longest = min(documents.max_segment or train.seq_len, train.seq_len)
    return choose(
        train.attention, attention, rows, train.seq_len, heads, kv_heads, dim // heads, module.activation_dtype, device,
        cu_seqlens, longest,
    )  # fmt: skip
