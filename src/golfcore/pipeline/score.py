"""The scoring stage: score a packed file on a text, and score the model during training."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from golfcore.artifact.bundle import code_bundle
from golfcore.artifact.model_io import LoadedModel, load_model
from golfcore.config import EvalConfig, RecipeConfig, from_mapping
from golfcore.container.codec_base import Coder
from golfcore.data.text import read_documents
from golfcore.data.tokens import Tokens
from golfcore.errors import MACHINE_CODE, FormatError, InputError, MachineError, UsageError
from golfcore.evaluate.clock import Clock, Pace, strides
from golfcore.evaluate.probes import future_flip, mixture_mass
from golfcore.evaluate.scorer import Score, ScoredText, score
from golfcore.evaluate.text import documents_text, validation_text
from golfcore.hints import command
from golfcore.machine import origin
from golfcore.model import get_family
from golfcore.model.interface import LanguageModel
from golfcore.ops import products
from golfcore.ops.memory import keep_freed_memory
from golfcore.ops.ngram import NgramMixture
from golfcore.ops.threads import fit_threads
from golfcore.paths import atomic_write, sha256_file
from golfcore.processes import ended, python_command
from golfcore.progress import Tick, silent
from golfcore.ranges import SECONDS, SOME_WINDOW, WINDOW, Range
from golfcore.ranks.heartbeat import heartbeat_of_layers, with_heartbeat
from golfcore.ranks.rendezvous import environment_of_children
from golfcore.ranks.world import World
from golfcore.run_folder import SCORE
from golfcore.tokenizer import Tokenizer
from golfcore.training.precision import choose_precision

LONG_CALL_S = 200.0  # seconds without a heartbeat that one call may take to read, quantize or code a whole model


def score_text(
    module: LanguageModel,
    text: ScoredText,
    recipe: RecipeConfig,
    world: World,
    tick: Tick = silent,
) -> Score:
    """Score ``text`` with the recipe's windows, shared by the ranks; without a clock, so that scores are comparable."""
    context = recipe.eval.context or recipe.train.seq_len
    return score(
        module, text, context=context, stride=recipe.eval.fixed_stride(context),
        batch_tokens=recipe.eval.batch_tokens, rank=world.rank, world_size=world.size, combine=world.sum,
        tick=with_heartbeat(world, tick, "evaluation"),
    )  # fmt: skip


def score_artifact(
    artifact: Path,
    text_for: Callable[[LoadedModel, int], ScoredText],
    world: World,
    *,
    batch_tokens: int = 0,
    context: int = 0,
    stride: int | Literal["auto"] | None = None,
    budget_s: float | None = None,
    began: float | None = None,
    adapt: Literal["none", "mix"] | None = None,
    plan: Sequence[tuple[int, int]] = (),
    tick: Tick = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Load a packed model and score it; file and text alone decide the score, and with stride "auto" the clock.

    Args:
        artifact: a ``model.golf``.
        text_for: returns the text to score, given the loaded model and its context (``validation_of``, ``own_text``).
        world: the ranks.
        batch_tokens: tokens per forward pass, 0 for a size that is fast.
        context, stride, budget_s, adapt: replace the values in the artifact if given.
        began: the reading of ``time.perf_counter`` at which the budget began; default: now.
        plan: strides that replace all of these, as ``golfcore.evaluate.scorer.score`` takes them.
        tick: called with the progress so far.
        tell: called with each warning before the long work, and with the stride that was taken.

    Returns:
        The content of ``score.json``.

    Raises:
        RuleError: a probe or the ledger failed.
    """
    began = began or time.perf_counter()
    _settle(world, tell)
    route = world.on_primary(products.route)
    with world.expect_progress(LONG_CALL_S), products.using(route):
        ready = _made_ready(artifact, text_for, world, _Wish(context, stride, budget_s, adapt, tuple(plan)), began)
        world.barrier()
    windows, module = ready.windows, ready.module
    # A processor may be slow; a GPU on which a layer takes this long hangs, though its process spins.
    pause_s = LONG_CALL_S if world.device.type == "cpu" else 0.0
    with world.expect_progress(pause_s), products.using(route), heartbeat_of_layers(module, world):
        result = score(
            module, ready.text, context=windows.context, stride=windows.stride, batch_tokens=batch_tokens,
            rank=world.rank, world_size=world.size, combine=world.sum,
            tick=with_heartbeat(world, tick, "evaluation", step=True),
            clock=windows.clock(began), finest=windows.finest, tell=tell, mixture=ready.mixture, plan=plan,
        )  # fmt: skip
    seconds = {**ready.seconds, "score": round(result.eval_s, 4)}
    return {
        **dataclasses.asdict(result), **ready.facts, "seconds": seconds,
        "precision": str(module.activation_dtype).removeprefix("torch."), "world_size": world.size,
    }  # fmt: skip


def _settle(world: World, tell: Callable[[str], None]) -> None:
    """Prepare the process for long work, and tell what slows it down."""
    for line in fit_threads() if world.device.type == "cpu" else ():
        tell(line)
    keep_freed_memory()


class _Wish(NamedTuple):
    """What replaces the artifact's own values, as ``score_artifact`` takes it."""

    context: int
    stride: int | Literal["auto"] | None
    budget_s: float | None
    adapt: Literal["none", "mix"] | None
    plan: tuple[tuple[int, int], ...]


class _Ready(NamedTuple):
    """What is there before the first token is scored; ``seconds`` by phase."""

    module: LanguageModel
    text: ScoredText
    windows: Windows
    mixture: NgramMixture | None
    facts: dict[str, Any]
    seconds: dict[str, float]


def _made_ready(
    artifact: Path, text_for: Callable[[LoadedModel, int], ScoredText], world: World, wish: _Wish, began: float
) -> _Ready:
    """Read the artifact and the text, and probe the model."""
    last, seconds = time.perf_counter(), {"start": time.perf_counter() - began}

    def ended(phase: str) -> None:
        nonlocal last
        last, seconds[phase] = (now := time.perf_counter()), now - last

    world.heartbeat("evaluation, reading the artifact")
    loaded, facts = _opened(artifact, world)
    if wish.plan:
        windows = Windows(wish.context, max(stride for _, stride in wish.plan), 1, 0.0)
        probed = [stride for _, stride in wish.plan]
    else:
        windows = windows_of(loaded.manifest, wish.context, wish.stride, wish.budget_s)
        probed = windows.possible_strides()
    adapt = adaptation_of(loaded.manifest) if wish.adapt is None else wish.adapt
    module = loaded.module.to(world.device)
    module.activation_dtype, _ = world.on_primary(lambda: choose_precision("auto", world.device))
    ended("artifact")
    world.heartbeat("evaluation, reading the text")
    text = text_for(loaded, windows.context)
    ended("text")
    world.heartbeat("evaluation, the probe")
    moved = future_flip(module, text.tokens, context=windows.context, strides=probed)
    vocab_size = int(loaded.manifest["model"]["vocab_size"])
    mixture, mass = None, 0.0
    if adapt == "mix":
        mass = mixture_mass(module, NgramMixture(vocab_size), text.tokens, context=windows.context)
        mixture = NgramMixture(vocab_size)
    ended("probes")
    facts |= {"future_flip_nats": moved, "adapt": adapt, "mass_error": mass}
    facts |= {"source": dict(text.source), "split": text.split}
    return _Ready(module, text, windows, mixture, facts, {phase: round(s, 4) for phase, s in seconds.items()})


def _opened(artifact: Path, world: World) -> tuple[LoadedModel, dict[str, Any]]:
    """Load the model; also return its file's size and hash, and whether its code is the code that runs here."""
    with _at_hand(artifact, world) as path:
        loaded, size, digest = load_model(path), path.stat().st_size, sha256_file(path)
    family = get_family(loaded.manifest["model"]["family"])
    return loaded, {
        "artifact": str(artifact),
        "artifact_bytes": size,
        "artifact_sha256": digest,
        "tokenizer_sha256": loaded.manifest.get("tokenizer_sha256", ""),
        "made_by": origin(),
        "code_matches": loaded.code in {code_bundle(family, *how) for how in product(get_args(Coder), ("none", "mix"))},
    }


class Windows(NamedTuple):
    """The windows in which a text is scored, and the seconds that it may take; ``budget_s`` 0 means no clock."""

    context: int
    stride: int | Literal["auto"]
    finest: int
    budget_s: float

    def clock(self, began: float) -> Clock | None:
        return Clock(self.budget_s, began) if self.budget_s else None

    def possible_strides(self) -> list[int]:
        """Return every stride that the evaluation may take."""
        if self.stride == "auto":
            return list(strides(self.context, self.finest))
        return [int(self.stride) or self.context]


def windows_of(
    manifest: Mapping[str, Any], context: int, stride: int | Literal["auto"] | None, budget_s: float | None
) -> Windows:
    """Return the artifact's windows and budget, overridden by the given values; old artifacts have no budget.

    Raises:
        FormatError: values in the manifest are not such numbers.
        UsageError: the given windows do not fit each other.
    """
    try:
        own = dict(manifest.get("eval", {}))
    except (TypeError, ValueError) as error:
        raise FormatError(f"the manifest's [eval] does not describe how to read the text: {error}") from error

    def read(name: str, allowed: Range, default: float) -> Any:
        allowed.check(f"the manifest's eval.{name}", value := own.get(name, default), FormatError)
        return value

    context = context or read("context", SOME_WINDOW, 1024)
    if stride is None:
        stride = "auto" if own.get("stride") == "auto" else read("stride", WINDOW, 0)
    budget_s = read("budget_s", SECONDS, 0.0) if budget_s is None else budget_s
    finest = read("finest_stride", SOME_WINDOW, EvalConfig().finest_stride)
    if stride == "auto" and not budget_s:
        raise UsageError("a stride of auto needs a budget, and the artifact names none: give --budget SECONDS")
    if stride != "auto" and not 0 <= stride <= context:
        raise UsageError(f"--stride {stride}: expected at most the context of {context} tokens, 0 for all of it")
    return Windows(context, stride, finest, budget_s)


def adaptation_of(manifest: Mapping[str, Any]) -> Literal["none", "mix"]:
    """Return the artifact's ``eval.adapt``; old artifacts have none.

    Raises:
        FormatError: a word that this golfcore does not know.
    """
    word = dict(manifest.get("eval", {})).get("adapt", "none")
    try:
        return from_mapping(EvalConfig, {"adapt": word}, "eval").adapt
    except UsageError as error:
        raise FormatError(f"the manifest's [eval]: {error}") from error


@contextmanager
def _at_hand(artifact: Path, world: World) -> Iterator[Path]:
    """Yield a path from which this rank reads the artifact: the file on rank 0, a copy of its bytes on the others."""
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
    """Return a function that gives the validation split of ``tokens``; it raises if the model has another tokenizer."""

    def text_for(loaded: LoadedModel, context: int) -> ScoredText:
        if loaded.manifest.get("tokenizer_sha256") != tokens.tokenizer_sha256:
            raise InputError(
                f"the model was trained on tokens of another tokenizer than {tokens.folder}'s: evaluate it on the "
                "data it was made for, or on any text with --text"
            )
        return dataclasses.replace(validation_text(tokens, context), source={"data": str(tokens.folder.absolute())})

    return text_for


def own_text(paths: Sequence[Path]) -> Callable[[LoadedModel, int], ScoredText]:
    """Return a function that gives all documents under ``paths``, encoded by the model's own tokenizer."""

    def text_for(loaded: LoadedModel, context: int) -> ScoredText:
        if not loaded.tokenizer:
            raise InputError("the model carries no tokenizer of its own: give its tokens with --data and --tokenizer")
        text = documents_text(list(read_documents(paths)), Tokenizer.from_bytes(loaded.tokenizer))
        return dataclasses.replace(text, source={"text": [str(path.absolute()) for path in paths]})

    return text_for


def score_in_new_process(artifact: Path, config: RecipeConfig, *, ranks: int = 1) -> dict[str, Any]:
    """Score ``artifact`` in a new Python process that sees nothing but the file and the tokens.

    Every rank calls this; the new processes of all ranks share the work, and rank 0 alone gets the score. Starting a
    process takes time from the evaluation's budget, so the process is told when the budget began.
    """
    words = [str(artifact), "--data", config.data.path, "--budget", str(config.track.eval_s)]
    if config.data.tokenizer:
        words += ["--tokenizer", config.data.tokenizer]
    started = [
        *python_command("golfcore"), "eval", *words, "--json", "--batch-tokens", str(config.eval.batch_tokens),
        "--began", repr(time.monotonic()),
    ]  # fmt: skip
    environment = environment_of_children(os.environ) if ranks > 1 else None
    done = subprocess.run(started, stdout=subprocess.PIPE, encoding="utf-8", check=False, env=environment)
    if done.returncode:
        blame = MachineError if done.returncode < 0 or done.returncode == MACHINE_CODE else InputError
        raise blame(f"the evaluation {ended(done.returncode)}; try it alone: {command('eval', *words)}")
    result: dict[str, Any] = json.loads(done.stdout or "{}")
    return result


def write_score(run_dir: Path, result: dict[str, Any]) -> None:
    """Write ``score.json`` into the run's folder."""
    with atomic_write(run_dir / SCORE, "w") as f:
        json.dump(result, f, indent=1)
        f.write("\n")


def pace_lines(score: Mapping[str, Any]) -> list[str]:
    """Return the log lines of an evaluation with a clock: its warnings and its windows; no lines without a clock."""
    if not score.get("pace"):
        return []
    pace = Pace(**score["pace"])
    return [*(f"warning: {line}" for line in pace.warnings), f"{pace.line()} took:{score['eval_s']:.1f}s"]
