"""The stages of a run, each usable alone; ``golfcore run``, the single commands and ``python/train_gpt.py`` share them.

text -> tokens -> weights (checkpoint.pt) -> symbols (quantised.pt) -> model.golf -> score.json -> report.html
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from golfcore.cli.tokens import Tokens
from golfcore.config import EvalConfig, RecipeConfig, build_recipe, to_toml, to_tree
from golfcore.errors import FormatError, InputError, RuleError, UsageError
from golfcore.model import Family, family_configs, get_family
from golfcore.paths import atomic_write, sha256_file
from golfcore.progress import Tick, silent

if TYPE_CHECKING:
    import torch

    from golfcore.artifact.model_io import LoadedModel, StoredTensor
    from golfcore.evaluate.scorer import Score, ScoredText
    from golfcore.model.base import LanguageModel
    from golfcore.train.runlog import RunLog
    from golfcore.train.world import World

CONFIG, QUANTISED, ARTIFACT, SCORE = "config.toml", "quantised.pt", "model.golf", "score.json"
QUANTISED_VERSION = 2
LONG_CALL_S = 200.0  # of computing without a sign of life: one call that reads, quantises or codes a whole model


# --- the run folder ---------------------------------------------------------------------------------------------------


def write_config(run_dir: Path, recipe: RecipeConfig) -> None:
    """Every resolved key, as a recipe that gives the same run."""
    with atomic_write(run_dir / CONFIG, "w") as f:
        f.write(to_toml(to_tree(recipe)))


def read_config(run_dir: Path) -> RecipeConfig:
    """The recipe of a run folder.

    Raises:
        InputError: not a run folder.
    """
    path = run_dir / CONFIG
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{run_dir} is not a run folder: {CONFIG} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: {error}") from error
    return build_recipe(tree, family_configs(), str(path))


def check_fits(recipe: RecipeConfig, vocab_size: int) -> int:
    """Predicted bytes of the weights; raises before any training when they are far above the cap."""
    from golfcore.quant import predict_bytes

    predicted = predict_bytes(get_family(recipe.model_family), recipe.model, vocab_size, recipe.quant)
    if predicted > 1.1 * recipe.track.cap_bytes:
        raise RuleError(
            f"the model will not fit: about {predicted:,} bytes of weights, the cap of track {recipe.track.name} is "
            f"{recipe.track.cap_bytes:,}; lower model.model_dim or model.num_layers, or raise quant.matrix_k"
        )
    return predicted


# --- stages -----------------------------------------------------------------------------------------------------------


def train_stage(
    recipe: RecipeConfig,
    tokens: Tokens,
    world: World,
    log: RunLog,
    *,
    resume: dict[str, Any] | None = None,
    tick: Callable[[float, str], None] | None = None,
) -> LanguageModel:
    """Trains, writes the last checkpoint, and returns the module with the weights to keep."""
    from golfcore.data.loader import TokenLoader
    from golfcore.ops import products
    from golfcore.ops.attention_backends import using_attention
    from golfcore.ops.memory import keep_freed_memory
    from golfcore.ops.registry import backends
    from golfcore.ops.threads import fit_threads
    from golfcore.train.loop import Trainer

    train = recipe.train
    if world.device.type == "cpu":
        keep_freed_memory()
        for line in fit_threads():
            log.line(line)
    stack = ExitStack()
    with log.phase("set-up"):
        module = get_family(recipe.model_family).build(recipe.model, tokens.vocab_size, train.seed).to(world.device)
        # Measured on rank 0: ranks that chose for themselves might choose differently. And measured once a run: the
        # curve goes on only in the arithmetic that it began in.
        before = {} if resume is None else resume.get("choices", {})
        kept = products.Route(*before["products"]) if "products" in before else None
        route = world.on_primary(lambda: kept or products.route())
        stack.enter_context(products.using(route))
        module.activation_dtype, why = world.on_primary(lambda: _choose_precision(recipe, world, before))
        loader = TokenLoader(
            tokens.shards("train"), batch_tokens=train.batch_tokens, seq_len=train.seq_len,
            rank=world.rank, world=world.size, seed=train.seed, order=train.order,
        )  # fmt: skip
        parameters = sum(p.numel() for p in module.parameters())
        log.line(f"model_params:{parameters} family:{recipe.model_family} vocab:{tokens.vocab_size}")
        log.line(f"world_size:{world.size} device:{world.device} precision:{module.activation_dtype} ({why})")
        log.line(f"products: {route} ({'as the run began' if 'products' in before else products.speeds()})")
        log.line("ops: " + " ".join(f"{op}={served}" for op, served in backends(world.device).items()))
        log.line(f"seed:{train.seed} train_batch_tokens:{train.batch_tokens} train_seq_len:{train.seq_len}")
        attention, why = world.on_primary(lambda: _choose_attention(recipe, module, before))
        log.line(f"attention:{attention} ({why})")
    evaluate = _in_training_score(recipe, tokens, world) if train.val_every else None
    with stack, loader, using_attention(attention):
        trainer = Trainer(recipe, module, loader, world, log, tick, evaluate)
        trainer.choices = {"attention": attention, "precision": module.activation_dtype, "products": tuple(route)}
        if resume is not None:
            trainer.resume(resume)
        with log.phase("warm-up"):
            trainer.warm_up()
        with log.phase("train", recipe.track.train_s or None) as phase:
            phase.seconds = trainer.run().train_s
        trainer.save(final=True)
    log.line(_peak_memory(world))
    return module


def _choose_precision(recipe: RecipeConfig, world: World, before: dict[str, Any]) -> tuple[torch.dtype, str]:
    from golfcore.train.precision import choose_precision

    if "precision" in before:
        return before["precision"], "as the run began"
    return choose_precision(recipe.train.precision, world.device)


def _choose_attention(recipe: RecipeConfig, module: LanguageModel, before: dict[str, Any]) -> tuple[str, str]:
    from golfcore.ops import attention
    from golfcore.ops.attention_backends import choose, unavailable

    if "attention" in before and not unavailable(before["attention"]):
        return before["attention"], "as the run began"
    train, model = recipe.train, recipe.model
    shape = [getattr(model, name, 0) for name in ("num_heads", "num_kv_heads", "model_dim")]
    if not all(shape):
        return "own", f"family {recipe.model_family} names no heads to try"
    heads, kv_heads, dim = shape
    rows = max(1, min(train.micro_batch_tokens, train.batch_tokens) // train.seq_len)
    device = next(module.parameters()).device
    return choose(
        train.attention, attention, rows, train.seq_len, heads, kv_heads, dim // heads, module.activation_dtype, device
    )


def resume_point(run_dir: Path, world: World) -> tuple[dict[str, Any], str]:
    """The checkpoint to go on from, read by rank 0 for all, and a note where it is not the newest."""
    from golfcore.train.checkpoint import load_newest

    return world.on_primary(lambda: load_newest(run_dir))


def require_alike(recipe: RecipeConfig, tokens: Tokens, world: World) -> None:
    """Raises RankError on every rank unless all have the same recipe, data and code; paths may differ."""
    from golfcore.environment import source_sha256

    if world.size == 1:
        return
    facts: dict[str, object] = {
        f"{section}.{key}": value
        for section, table in to_tree(recipe).items()
        for key, value in (table.items() if isinstance(table, dict) else [("", table)])
        if (section, key) not in (("data", "path"), ("data", "tokenizer"))
    }
    world.require_alike(
        facts | {"the data's hash": tokens.fingerprint(), "the code's hash": source_sha256()}
    )  # fmt: skip


def _in_training_score(
    recipe: RecipeConfig, tokens: Tokens, world: World
) -> Callable[[LanguageModel], tuple[float, float]]:
    text = tokens.validation(recipe.train.seq_len)

    def evaluate(module: LanguageModel) -> tuple[float, float]:
        result = score_text(module, text, recipe, world)
        return result.val_loss, result.val_bpb

    return evaluate


def _peak_memory(world: World) -> str:
    from golfcore.train.runlog import peak_memory

    if world.device.type == "cuda":
        import torch

        return peak_memory(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
    from golfcore.environment import peak_resident_bytes

    peak = peak_resident_bytes()
    return peak_memory(peak, peak)


def score_text(
    module: LanguageModel,
    text: ScoredText,
    recipe: RecipeConfig,
    world: World,
    tick: Tick = silent,
) -> Score:
    """Scores ``text`` with the recipe's windows, sharded over the ranks; no clock decides, so that scores compare."""
    from golfcore.evaluate.scorer import score

    context = recipe.eval.context or recipe.train.seq_len
    return score(
        module, text, context=context, stride=recipe.eval.fixed_stride(context),
        batch_tokens=recipe.eval.batch_tokens, rank=world.rank, world_size=world.size, combine=world.sum,
        tick=telling(world, tick, "evaluation"),
    )  # fmt: skip


def telling(world: World, tick: Tick, stage: str, *, step: bool = False) -> Tick:
    """``tick``, which also tells the other ranks that this one gets on; with ``step`` by equal pieces of work."""

    def told(done: float, total: float, note: str) -> None:
        world.note(f"{stage}, {done:,.0f} of {total:,.0f}: {note}", step=step)
        tick(done, total, note)

    return told


@contextmanager
def _telling_layers(module: LanguageModel, world: World) -> Iterator[None]:
    """Inside, every layer of a forward pass is a sign of life: a batch of a large model may take long here."""
    handles = [m.register_forward_hook(lambda *_: world.note()) for m in module.modules() if world.size > 1]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def load_weights(
    run_dir: Path, recipe: RecipeConfig, vocab_size: int, saved: dict[str, Any] | None = None
) -> LanguageModel:
    """The module of a run's checkpoint: ``saved``, where it was read already."""
    from golfcore.train.checkpoint import NAME, load_newest

    module = get_family(recipe.model_family).build(recipe.model, vocab_size, recipe.train.seed)
    saved = load_newest(run_dir)[0] if saved is None else saved
    try:
        module.load_state_dict(saved["weights"])
    except (KeyError, RuntimeError) as error:
        raise FormatError(
            f"{run_dir / NAME} holds another model than {run_dir / CONFIG} describes: {str(error).splitlines()[0]}"
        ) from error
    return module


def pack_stage(run_dir: Path, recipe: RecipeConfig, tokens: Tokens, out: Path, tick: Tick = silent) -> dict[str, Any]:
    """Packs ``quantised.pt`` into ``out``, coded as ``quant.coder`` says, and returns the inspection of the file.

    Raises:
        InputError: the run was not quantised yet.
    """
    import pickle

    import torch

    from golfcore.artifact.inspect import summary
    from golfcore.artifact.model_io import StoredTensor, save_model

    path = run_dir / QUANTISED
    if not path.is_file():
        raise InputError(f"{path} is missing: run golfcore quantize {run_dir} first")
    try:
        saved = torch.load(path, weights_only=True)
        if saved["version"] != QUANTISED_VERSION:
            raise FormatError(
                f"{path}: version {saved['version']}, expected {QUANTISED_VERSION}; quantise the run again"
            )
        stored = [StoredTensor.from_tuple(item) for item in saved["tensors"]]
    except (RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise FormatError(f"{path} is not readable: {str(error).splitlines()[0]}") from error
    save_model(out, *packing(recipe, tokens, stored), coder=recipe.quant.coder, tick=tick)
    return summary(out, recipe.track.cap_bytes)


def packing(
    recipe: RecipeConfig, tokens: Tokens, stored: Sequence[StoredTensor]
) -> tuple[Family, Any, int, Sequence[StoredTensor], bytes, dict[str, Any]]:
    """What ``model_tensors`` and ``save_model`` need to pack a run's weights."""
    from golfcore.tokenizer import Tokenizer

    # The contest does not count its tokenizer; where it is ours, it is part of the file and is counted.
    own = tokens.tokenizer.to_bytes() if isinstance(tokens.tokenizer, Tokenizer) else b""
    manifest = {
        "recipe": recipe.name,
        "tokenizer_sha256": tokens.tokenizer_sha256,
        "eval": {
            "context": recipe.eval.context or recipe.train.seq_len,
            "stride": recipe.eval.stride,
            "finest_stride": recipe.eval.finest_stride,
            "budget_s": recipe.track.eval_s,
        },
    }
    return get_family(recipe.model_family), recipe.model, tokens.vocab_size, stored, own, manifest


def evaluate_artifact(
    artifact: Path,
    text_for: Callable[[LoadedModel, int], ScoredText],
    world: World,
    *,
    batch_tokens: int = 0,
    context: int = 0,
    stride: int | Literal["auto"] | None = None,
    budget_s: float | None = None,
    began: float | None = None,
    tick: Tick = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Reads a packed model and scores it.

    The file and the text decide the number, and with a stride of "auto" the clock: ``score.json`` says what was taken.

    Args:
        artifact: a ``model.golf``.
        text_for: given the loaded model and its context, what to score (``validation_of``, ``own_text``).
        world: the ranks.
        batch_tokens: tokens a forward pass, 0 for what is fast.
        context, stride: replace the artifact's own windows where given.
        budget_s: seconds that the evaluation may take; default: the artifact's.
        began: the reading of ``time.perf_counter`` at which they began; default: now.
        tick: told about progress.
        tell: gets warnings before the long work, and what was taken.

    Returns:
        The content of ``score.json``.

    Raises:
        RuleError: a probe or the ledger failed.
    """
    from golfcore.artifact.model_io import code_bundle, load_model
    from golfcore.evaluate.clock import Clock, strides
    from golfcore.evaluate.probes import future_flip
    from golfcore.evaluate.scorer import score
    from golfcore.ops import products
    from golfcore.ops.memory import keep_freed_memory
    from golfcore.ops.threads import fit_threads
    from golfcore.train.precision import choose_precision

    began = time.perf_counter() if began is None else began
    if world.device.type == "cpu":
        keep_freed_memory()
        for line in fit_threads():
            tell(line)
    route = world.on_primary(products.route)
    with world.watched(LONG_CALL_S), products.using(route):
        world.note("evaluation, reading the artifact")
        with _at_hand(artifact, world) as path:
            loaded, size, digest = load_model(path), path.stat().st_size, sha256_file(path)
        windows = _windows(loaded.manifest, context, stride, budget_s)
        module = loaded.module.to(world.device)
        module.activation_dtype, _ = world.on_primary(lambda: choose_precision("auto", world.device))
        world.note("evaluation, reading the text")
        text = text_for(loaded, windows.context)
        world.note("evaluation, the probe")
        auto = windows.stride == "auto"
        possible = strides(windows.context, windows.finest) if auto else [int(windows.stride) or windows.context]
        moved = future_flip(module, text.tokens, context=windows.context, strides=possible)
        world.barrier()
    # A processor may be slow; a GPU on which a layer takes this long hangs, though its process spins.
    pause_s = LONG_CALL_S if world.device.type == "cpu" else 0.0
    with world.watched(pause_s), products.using(route), _telling_layers(module, world):
        result = score(
            module, text, context=windows.context, stride=windows.stride, batch_tokens=batch_tokens,
            rank=world.rank, world_size=world.size, combine=world.sum,
            tick=telling(world, tick, "evaluation", step=True),
            clock=Clock(windows.budget_s, began) if windows.budget_s else None, finest=windows.finest, tell=tell,
        )  # fmt: skip
    family = get_family(loaded.manifest["model"]["family"])
    return {
        **dataclasses.asdict(result),
        "artifact": str(artifact),
        "artifact_bytes": size,
        "artifact_sha256": digest,
        "code_matches": loaded.code in (code_bundle(family), code_bundle(family, "smallest")),
        "future_flip_nats": moved,
        "precision": str(module.activation_dtype).removeprefix("torch."),
        "world_size": world.size,
    }


class _Windows(NamedTuple):
    """How an artifact is to be read; ``budget_s`` 0 for no clock."""

    context: int
    stride: int | Literal["auto"]
    finest: int
    budget_s: float


def _windows(
    manifest: Mapping[str, Any], context: int, stride: int | Literal["auto"] | None, budget_s: float | None
) -> _Windows:
    """The artifact's own windows and budget, replaced by what is given; older artifacts name no budget.

    Raises:
        FormatError: the manifest holds no such numbers.
        UsageError: windows that are given do not fit.
    """
    try:
        own = dict(manifest.get("eval", {}))
        context = context or int(own.get("context", 1024))
        if stride is None:
            stride = "auto" if own.get("stride") == "auto" else int(own.get("stride", 0))
        budget_s = float(own.get("budget_s", 0.0)) if budget_s is None else budget_s
        finest = int(own.get("finest_stride", EvalConfig().finest_stride))
        if context < 1 or finest < 1 or budget_s < 0:
            raise ValueError(f"context {context}, finest_stride {finest}, budget_s {budget_s}")
    except (TypeError, ValueError) as error:
        raise FormatError(f"the manifest's [eval] does not describe how to read the text: {error}") from error
    if stride == "auto" and not budget_s:
        raise UsageError("a stride of auto needs a budget, and the artifact names none: give --budget SECONDS")
    if stride != "auto" and not 0 <= stride <= context:
        raise UsageError(f"--stride {stride}: expected at most the context of {context} tokens, 0 for all of it")
    return _Windows(context, stride, finest, budget_s)


@contextmanager
def _at_hand(artifact: Path, world: World) -> Iterator[Path]:
    """Where this rank reads the artifact: rank 0's own file, a copy of its bytes elsewhere, on whatever machine."""
    if world.size == 1:
        yield artifact
        return
    data = world.on_primary(artifact.read_bytes)
    with tempfile.TemporaryDirectory() as folder:
        path = artifact if world.primary else Path(folder) / artifact.name
        if not world.primary:
            path.write_bytes(data)
        yield path


def validation_of(tokens: Tokens) -> Callable[[LoadedModel, int], ScoredText]:
    """The validation split of ``tokens``, for a model that was trained on tokens of the same tokenizer."""

    def text_for(loaded: LoadedModel, context: int) -> ScoredText:
        if loaded.manifest.get("tokenizer_sha256") != tokens.tokenizer_sha256:
            raise InputError(
                f"the model was trained on tokens of another tokenizer than {tokens.folder}'s: evaluate it on the "
                "data it was made for, or on any text with --text"
            )
        return tokens.validation(context)

    return text_for


def own_text(paths: Sequence[Path]) -> Callable[[LoadedModel, int], ScoredText]:
    """All documents under ``paths``, in the tokens of the model's own tokenizer."""

    def text_for(loaded: LoadedModel, context: int) -> ScoredText:
        from golfcore.data.text import read_documents
        from golfcore.evaluate.text import documents_text
        from golfcore.tokenizer import Tokenizer

        if not loaded.tokenizer:
            raise InputError("the model carries no tokenizer of its own: give its tokens with --data and --tokenizer")
        return documents_text(list(read_documents(paths)), Tokenizer.from_bytes(loaded.tokenizer))

    return text_for


def write_score(run_dir: Path, result: dict[str, Any]) -> None:
    """Writes ``score.json``."""
    with atomic_write(run_dir / SCORE, "w") as f:
        json.dump(result, f, indent=1)
        f.write("\n")


def packed_bytes(packed: dict[str, Any], *roles: str) -> int:
    """Bytes that tensors of these roles take in an inspected artifact."""
    return sum(int(row["coded"]) for row in packed["roles"] if row["role"] in roles)


def _matrix_codec(packed: dict[str, Any]) -> str:
    """The codec that holds most of the weights: what the log's lines are named after."""
    weights: Counter[str] = Counter()
    for row in packed["chunks"]:
        weights[row["codec"]] += row["weights"] if row["kind"].startswith("int") else 0
    return max(weights, key=lambda codec: weights[codec])


def pace_lines(score: Mapping[str, Any]) -> list[str]:
    """The warnings of an evaluation with a clock, and the windows that it took; none without a clock."""
    from golfcore.evaluate.clock import Pace

    if not score.get("pace"):
        return []
    pace = Pace(**score["pace"])
    return [*(f"warning: {line}" for line in pace.warnings), f"{pace.line()} took:{score['eval_s']:.1f}s"]


def closing_lines(recipe: RecipeConfig, packed: dict[str, Any], score: dict[str, Any]) -> list[str]:
    """What evaluation took of its clock, and the contest's last log lines: sizes, and the score of the packed bytes."""
    from golfcore.train.runlog import final_line, size_lines

    width = recipe.quant.format if recipe.quant.format != "int" else f"int{recipe.quant.matrix_bits}"
    codec = f"{width}+{_matrix_codec(packed)}"
    code = packed_bytes(packed, "code")
    return [
        *pace_lines(score),
        *size_lines(code, packed["bytes"]["file"], codec),
        final_line(score["val_loss"], score["val_bpb"], codec.replace("+", "_")),
    ]
