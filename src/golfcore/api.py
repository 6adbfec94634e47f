"""The functions of ``import golfcore`` that load a recipe and run it, whole or stage by stage.

The command line calls the same functions. Under torchrun every rank (process of the run) calls them; rank 0 gets the
results, the others None or an empty dict.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from golfcore.config import RecipeConfig
from golfcore.data.tokens import open_run, open_tokens
from golfcore.errors import UsageError
from golfcore.paths import user_path
from golfcore.pipeline.config import changed, read_config, write_config
from golfcore.progress import Progress, no_progress
from golfcore.ranges import BYTES, FINITE, SECONDS, TOKENS, WINDOW
from golfcore.recipes import load_recipe as read_recipe
from golfcore.recipes.sizing import AUTO
from golfcore.run_folder import ARTIFACT, owned

# Each function imports its stage itself: torch takes 1.2 s, and the native operations another one, which reading a
# recipe or packing a run does not need.
if TYPE_CHECKING:
    from golfcore.pipeline.start import Start, Wish
    from golfcore.pipeline.whole import RunResult
    from golfcore.ranks.world import World

Paths = Path | str | Sequence[Path | str]


def load_recipe(recipe: str | Path, changes: Mapping[str, Any] | None = None) -> RecipeConfig:
    """Return a recipe with some of its keys changed; the environment is not read.

    Args:
        recipe: the name of a recipe that comes with golfcore (``"pocket"``), or a TOML file.
        changes: new values by ``section.key``, such as ``{"train.seed": 7}``.

    Raises:
        UsageError: no such recipe or key, with the nearest name in the message, or a value out of range.
    """
    return read_recipe(str(recipe), environment={}, changes=changes).config


def run(
    recipe: str | RecipeConfig = AUTO,
    *,
    text: Paths = (),
    data: Path | str | None = None,
    changes: Mapping[str, Any] | None = None,
    runs: Path | str = "runs",
    run_id: str = "",
    resume: Path | str | None = None,
    progress: Progress = no_progress,
) -> RunResult | None:
    """Train, quantize, pack and score the model of a recipe, and write the report of the run.

    A new process reads the packed file and scores it. A run that broke a limit of its track (bytes or seconds) is
    returned like any other; ``RunResult.broken_limit`` says which limit.

    Args:
        recipe: a recipe's name, a TOML file, or a recipe from ``load_recipe``; ``"auto"`` sizes one to this machine.
        text: files or folders of text to train on (txt, jsonl, gz, zst); default: 13 MB of news.
        data: a folder of tokens (prepared, or contest shards) to use instead of text.
        changes: values by ``section.key`` that replace those of the recipe.
        runs: the folder in which the folder of the run is made.
        run_id: the name of the run's folder; default: the recipe's name and the time.
        resume: the folder of an interrupted run to continue; give no other argument with it.
        progress: shows how far each stage is.

    Returns:
        The result of the run; under torchrun None on every rank but 0.

    Raises:
        UsageError: arguments or keys that do not exist or contradict each other, or a run folder that exists.
        InputError: text or tokens that cannot be used, or a full disk.
        RuleError: the model cannot fit the byte cap, or a probe of the scorer failed.
    """
    return run_wish(_wish(recipe, text, data, changes, runs, run_id, resume), progress)


def run_wish(
    wish: Wish,
    progress: Progress = no_progress,
    guard: Callable[[Path], AbstractContextManager[None]] = lambda run_dir: nullcontext(),
) -> RunResult | None:
    """Do the work of ``run``; ``guard(run_dir)`` is a context manager around all that follows the preparation."""
    from golfcore.pipeline.score import score_in_new_process
    from golfcore.pipeline.start import begin_together
    from golfcore.pipeline.whole import run_stages
    from golfcore.ranks.world import join_world

    with join_world() as world:
        start = begin_together(world, wish, progress)
        with owned(start.run_dir, by_this_process=world.primary), guard(start.run_dir):
            return run_stages(
                start, world, lambda artifact: score_in_new_process(artifact, start.config, ranks=world.size), progress
            )


def train(
    recipe: str | RecipeConfig,
    *,
    text: Paths = (),
    data: Path | str | None = None,
    changes: Mapping[str, Any] | None = None,
    runs: Path | str = "runs",
    run_id: str = "",
    resume: Path | str | None = None,
    progress: Progress = no_progress,
) -> Path | None:
    """Train the model of a recipe and leave ``checkpoint.pt`` in the run's folder.

    Arguments and errors as for ``run``.

    Returns:
        The run's folder; under torchrun None on every rank but 0.
    """
    return train_wish(_wish(recipe, text, data, changes, runs, run_id, resume), progress)


def train_wish(
    wish: Wish,
    progress: Progress = no_progress,
    guard: Callable[[Path], AbstractContextManager[None]] = lambda run_dir: nullcontext(),
) -> Path | None:
    """Do the work of ``train``; ``guard(run_dir)`` is a context manager around the training."""
    from golfcore.pipeline.start import begin_together
    from golfcore.ranks.world import join_world

    with join_world() as world:
        start = begin_together(world, wish, progress)
        with owned(start.run_dir, by_this_process=world.primary):
            _train(start, world, progress, guard)
        return start.run_dir if world.primary else None


def _train(
    start: Start, world: World, progress: Progress, guard: Callable[[Path], AbstractContextManager[None]]
) -> None:
    from golfcore.pipeline.requirements import check_run
    from golfcore.pipeline.train import require_alike, resume_point, train_stage
    from golfcore.training.runlog import RunLog

    run_dir, config = start.run_dir, start.config
    config, tokens = open_run(config)
    require_alike(config, tokens, world)
    saved, note = resume_point(run_dir, config, world) if start.resumed else (None, "")
    world.on_primary(lambda: check_run(run_dir, config, tokens, world, whole=False))
    if world.primary:
        write_config(run_dir, config)
    log = RunLog(run_dir, primary=world.primary, resume_step=saved["step"] if saved else None)
    with guard(run_dir), log, progress("train", shown=world.primary) as tick:
        if note:
            log.warn(note)
        for line in tokens.lines():
            log.line(line)
        train_stage(config, tokens, world, log, resume=saved, on_progress=lambda share, note: tick(share, 1.0, note))


def quantize(
    run_dir: Path | str,
    *,
    fit: int = 0,
    margin: int = 0,
    changes: Mapping[str, Any] | None = None,
    text: Paths = (),
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Quantize the weights of a trained run, into ``quantised.pt`` and ``quantised.json`` in its folder.

    Args:
        run_dir: the run's folder; its checkpoint stays as it is.
        fit: bytes of the packed file, which step sizes are chosen to fill; 0: do as ``quant.fit`` of the recipe says.
        margin: bytes below ``fit`` that stay free; 0: ``quant.margin`` of the recipe.
        changes: values by ``section.key`` that replace those of the run, such as ``{"quant.matrix_bits": 4}``.
        text: files or folders of calibration text, used instead of training text.
        dry_run: only plan the step sizes that fill the cap, and write nothing.
        progress: shows how far it is.

    Returns:
        The content of ``quantised.json``, or its ``plan`` (None without a cap to fill). Empty on every rank but 0.

    Raises:
        InputError: the folder holds no trained run, or weights that are not finite.
        RuleError: the cap cannot be met.
        UsageError: an unknown key, a number out of range, or a margin that leaves no bytes.
    """
    from golfcore.pipeline.quantize import calibrate, fitted, plan_stage, quantize_stage
    from golfcore.pipeline.requirements import check_quantizing
    from golfcore.pipeline.score import LONG_CALL_S
    from golfcore.pipeline.train import load_weights
    from golfcore.ranks.heartbeat import with_heartbeat
    from golfcore.ranks.world import join_world

    _check_bytes(fit=fit, margin=margin)
    run_dir = user_path(run_dir, "run_dir")
    config = changed(read_config(run_dir), changes or {})
    if fit or dry_run:
        config = dataclasses.replace(config, quant=fitted(config.quant))
    cap = _room(fit or config.track.cap_bytes, margin or config.quant.margin)
    config, tokens = open_run(config)
    module = load_weights(run_dir, config, tokens.vocab_size)
    result: dict[str, Any] = {}
    with (
        join_world() as world,
        owned(run_dir, by_this_process=world.primary and not dry_run),
        progress("quantize", shown=world.primary) as shown,
    ):
        world.on_primary(lambda: check_quantizing(run_dir, config, tokens, text=bool(_paths(text)), dry_run=dry_run))
        tick = with_heartbeat(world, shown, "quantizing")
        with world.expect_progress(LONG_CALL_S):
            calibration = calibrate(module.to(world.device), config, tokens, world, text=_paths(text), tick=tick)
            if world.primary and dry_run:
                result = plan_stage(module, config, tokens, calibration, cap=cap, ranks=world.size, tick=tick)
            elif world.primary:
                result = quantize_stage(run_dir, module, config, tokens, calibration, cap, ranks=world.size, tick=tick)
            world.barrier()
    return result


def pack(
    run_dir: Path | str,
    output: Path | str | None = None,
    *,
    coder: Literal["fast", "smallest"] | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Pack a quantized run into one file.

    Args:
        run_dir: the run's folder.
        output: the file; default: ``model.golf`` in the folder.
        coder: ``smallest`` saves a few hundredths of a percent and decodes slower; default: the run's ``quant.coder``.
        progress: shows how far it is.

    Returns:
        Where the bytes went: ``bytes`` (``file``, ``cap``, ``free``, ``framing``), ``roles`` and ``chunks``, as
        ``golfcore.artifact.inspect.summary`` lists them.

    Raises:
        InputError: the run is not quantized, or the file cannot be written.
    """
    from golfcore.disk import check_target
    from golfcore.pipeline.pack import pack_stage

    run_dir = user_path(run_dir, "run_dir")
    config = read_config(run_dir)
    if coder is not None:
        config = dataclasses.replace(config, quant=dataclasses.replace(config.quant, coder=coder))
    config, tokens = open_run(config)
    target = run_dir / ARTIFACT if output is None else user_path(output, "output")
    check_target(target)
    inside = target.resolve().parent == run_dir.resolve()  # a folder that cannot be written may be packed elsewhere
    with owned(run_dir, by_this_process=inside), progress("pack") as tick:
        return pack_stage(run_dir, config, tokens, target, tick)


def score(
    artifact: Path | str,
    *,
    data: Path | str | None = None,
    text: Paths = (),
    tokenizer: Path | str = "",
    context: int = 0,
    stride: int | Literal["auto"] | None = None,
    budget_s: float | None = None,
    batch_tokens: int = 0,
    began: float | None = None,
    adapt: Literal["none", "mix"] | None = None,
    tell: Callable[[str], None] = lambda line: None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Score a packed model: compute its bits per byte on a text, with each token scored once.

    Args:
        artifact: a ``.golf`` file.
        data: a folder of tokens, of which the validation split is scored.
        text: files or folders of text to score whole instead, with the model's own tokenizer.
        tokenizer: a SentencePiece ``.model`` or a ``.bpe`` file; needed only for contest shards.
        context: tokens per window; 0: as the artifact says.
        stride: tokens scored per window after the first, or ``"auto"`` for the smallest stride that ends within the
            budget; default: as the artifact says.
        budget_s: seconds that the evaluation may take, 0 for no limit; default: as the artifact says.
        batch_tokens: tokens per forward pass, 0 for a size that is fast; changes speed and memory, not the score.
        began: the reading of ``time.perf_counter`` at which the budget began; default: now.
        adapt: whether counts of scored tokens are mixed in (``eval.adapt``); default: as the artifact says.
        tell: called with each warning before the long work, and with the stride that was taken.
        progress: shows how far the evaluation is.

    Returns:
        The content of ``score.json``: ``val_bpb`` (bits per byte), ``val_loss`` (nats per token), ``tokens``,
        ``bytes`` and the facts behind the score (hashes, windows, times). Empty on every rank but 0.

    Raises:
        UsageError: neither or both of ``data`` and ``text``, or a number out of range.
        FormatError: the file is damaged.
        RuleError: the byte table and the text disagree, or the model looks ahead.
    """
    from golfcore.pipeline.requirements import check_validation
    from golfcore.pipeline.score import own_text, score_artifact, validation_of
    from golfcore.ranks.world import join_world

    began = time.perf_counter() if began is None else began
    _check_numbers(context, stride, budget_s, batch_tokens)
    FINITE.check("began", began)
    if (data is None) == (not text):
        raise UsageError("give what to score: --data FOLDER (its validation split) or --text FILE...")
    tokens = None if data is None else open_tokens(str(data), str(tokenizer))
    text_for = own_text(_paths(text)) if tokens is None else validation_of(tokens)
    with join_world() as world, progress("evaluate", shown=world.primary) as tick:
        if tokens is not None:
            check_validation(tokens)
        result = score_artifact(
            user_path(artifact, "artifact"), text_for, world, batch_tokens=batch_tokens, context=context, stride=stride,
            budget_s=budget_s, began=began, adapt=adapt, tick=tick, tell=tell if world.primary else lambda line: None,
        )  # fmt: skip
        return result if world.primary else {}


def _room(fit: int, margin: int) -> int:
    """Return the bytes that the packed file may fill."""
    if fit <= margin:
        raise UsageError(f"--fit {fit} --margin {margin}: expected more bytes than the margin")
    return fit - margin


def _check_bytes(**given: int) -> None:
    for name, value in given.items():
        BYTES.check(name, value)


def _check_numbers(context: int, stride: int | str | None, budget_s: float | None, batch_tokens: int) -> None:
    WINDOW.check("context", context)
    TOKENS.check("batch_tokens", batch_tokens)
    if stride not in (None, "auto"):
        WINDOW.check("stride", stride)
    if budget_s is not None:
        SECONDS.check("budget_s", budget_s)


def _wish(
    recipe: str | RecipeConfig, text: Paths, data: Path | str | None, changes: Mapping[str, Any] | None,
    runs: Path | str, run_id: str, resume: Path | str | None,
) -> Wish:  # fmt: skip
    from golfcore.pipeline.start import Wish

    return Wish(
        recipe, text=_paths(text), data=_path(data, "data"), changes=changes or {}, runs=user_path(runs, "runs"),
        run_id=run_id, resume=_path(resume, "resume"),
    )  # fmt: skip


def _paths(paths: Paths) -> list[Path]:
    return [user_path(path, "text") for path in ([paths] if isinstance(paths, (str, Path)) else paths)]


def _path(path: Path | str | None, name: str) -> Path | None:
    return None if path is None else user_path(path, name)
