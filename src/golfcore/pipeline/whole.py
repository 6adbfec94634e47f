"""Run all stages, from tokens to a proven score and a report."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from golfcore.artifact.inspect import summary
from golfcore.config import RecipeConfig
from golfcore.container import Container
from golfcore.data.tokens import Tokens, open_run
from golfcore.errors import FormatError
from golfcore.model.interface import LanguageModel
from golfcore.paths import sha256_file
from golfcore.pipeline.config import check_fits, write_config
from golfcore.pipeline.limits import broken_limit
from golfcore.pipeline.pack import matrix_codec, pack_stage, packed_bytes
from golfcore.pipeline.quantize import Calibration, calibrate, quantize_stage, quantized_line
from golfcore.pipeline.requirements import check_run
from golfcore.pipeline.score import LONG_CALL_S, pace_lines, write_score
from golfcore.pipeline.start import Start, commands_after
from golfcore.pipeline.train import load_weights, require_alike, resume_point, train_stage
from golfcore.progress import Progress, no_progress, silent, told
from golfcore.ranks.heartbeat import with_heartbeat
from golfcore.ranks.world import World
from golfcore.report import build_report
from golfcore.run_folder import ARTIFACT, LEDGER, SCORE
from golfcore.training.runlog import RunLog, budget_use, final_line, read_json, read_ledger, size_lines


@dataclass(frozen=True)
class RunResult:
    """The result of a whole run.

    Attributes:
        run_dir: its folder.
        config: the resolved recipe.
        score: the content of score.json.
        packed: where the bytes of the packed file went (``golfcore.artifact.inspect.summary``).
        ledger: seconds per phase, the rows of ledger.json.
        train_s, eval_s: seconds that count against the track's limits.
        report: path of the HTML report.
        next: commands to try after it.
    """

    run_dir: Path
    config: RecipeConfig
    score: dict[str, Any]
    packed: dict[str, Any]
    ledger: list[dict[str, Any]]
    train_s: float
    eval_s: float
    report: Path
    next: tuple[str, ...] = ()

    @property
    def artifact(self) -> Path:
        """Path of the packed file."""
        return self.run_dir / ARTIFACT

    def broken_limit(self) -> str:
        """Return one line on the limit that the run broke, or an empty string; its files stay in either case."""
        return broken_limit(self.config, self.summary())

    def summary(self) -> dict[str, Any]:
        """Return the JSON that the last line of ``golfcore run`` prints, as a dict."""
        return {
            "run": self.run_dir.name,
            "val_bpb": self.score["val_bpb"],
            "val_loss": self.score["val_loss"],
            "bytes_total": self.packed["bytes"]["file"],
            "bytes_cap": self.config.track.cap_bytes,
            "train_s": self.train_s,
            "eval_s": self.eval_s,
            "artifact": str(self.artifact),
            "report": str(self.report),
        }


def run_stages(
    start: Start, world: World, evaluate: Callable[[Path], dict[str, Any]], progress: Progress = no_progress
) -> RunResult | None:
    """Train, quantize, pack and score a prepared run, then write its report.

    Every rank calls this; rank 0 alone quantizes, packs and writes.

    Args:
        start: from ``begin``.
        world: the ranks.
        evaluate: scores the packed file.
        progress: shows how far a stage is.

    Returns:
        The result on rank 0, None on the others.
    """
    run_dir, config = start.run_dir, start.config
    config, tokens = open_run(config)
    predicted = check_fits(config, tokens.vocab_size)
    require_alike(config, tokens, world)
    saved, note = resume_point(run_dir, config, world) if start.resumed else (None, "")
    world.on_primary(lambda: check_run(run_dir, config, tokens, world, trained=saved is not None and saved["final"]))
    if world.primary:
        write_config(run_dir, config)
    artifact = run_dir / ARTIFACT
    with RunLog(run_dir, primary=world.primary, echo=start.echo, resume_step=saved["step"] if saved else None) as log:
        world.before_end(lambda reason: log.line(f"error: {reason}"))
        if note:
            log.warn(note)
        for line in start.size.lines() if start.size else []:
            log.line(line)
        for line in tokens.lines():
            log.line(line)
        for override in start.overrides:
            log.line(f"override: {override}")
        log.line(f"predicted_weights:{predicted} cap:{config.track.cap_bytes}")
        packed, score = world.on_primary(lambda: _done(run_dir, config, saved))
        if packed is None:
            packed = _made(replace(start, config=config), saved, tokens, world, log, progress)
        if score is None:
            open_run(config)  # the scorer opens the tokens anew
            with log.phase("evaluate", config.track.eval_s, spent_s=0.0):
                score = evaluate(artifact)
            if world.primary:
                write_score(run_dir, score)
                for line in closing_lines(config, packed, score):
                    log.line(line)
    if not world.primary:
        return None
    ledger = read_ledger(run_dir / LEDGER)
    train_s, eval_s = budget_use(ledger)
    return RunResult(
        run_dir, config, score, packed, ledger, train_s, eval_s, build_report(run_dir), commands_after(start)
    )


def _done(
    run_dir: Path, config: RecipeConfig, saved: Mapping[str, Any] | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the inspection and the score of a finished run's packed file; None for each that has to be made."""
    artifact = run_dir / ARTIFACT
    if saved is None or not saved["final"] or not artifact.is_file():
        return None, None
    try:
        with Container.open(artifact) as file:
            file.verify()
        packed = summary(artifact, config.track.cap_bytes)
        score = read_json(run_dir / SCORE, dict)
    except FormatError:  # it is made anew
        return None, None
    belongs = score.get("artifact_sha256") == sha256_file(artifact)
    return packed, score if belongs else None


def _made(
    start: Start, saved: dict[str, Any] | None, tokens: Tokens, world: World, log: RunLog, progress: Progress
) -> dict[str, Any]:
    """Train, quantize and pack; return the inspection of the file on rank 0, nothing on the others."""
    packed: dict[str, Any] = {}
    module, calibration = trained_and_calibrated(start, saved, tokens, world, log, progress)
    with world.expect_progress(LONG_CALL_S):
        if world.primary:
            packed = _packed(start.run_dir, start.config, module, tokens, calibration, world, log, progress)
        del module
        world.barrier()
    release_memory(world)
    return packed


def release_memory(world: World) -> None:
    """Give the GPU memory that torch keeps for later back to the device: another process evaluates next."""
    gc.collect()  # the trainer's tensors are in cycles
    if world.device.type == "cuda":
        torch.cuda.empty_cache()


def trained_and_calibrated(
    start: Start, saved: dict[str, Any] | None, tokens: Tokens, world: World, log: RunLog, progress: Progress
) -> tuple[LanguageModel, Calibration]:
    """Do all that the training clock counts; ``saved`` is the checkpoint of a run that is resumed."""
    module = _trained(start, saved, tokens, world, log, progress)
    trained_s = saved["train_s"] if saved is not None and saved["final"] else None
    with world.expect_progress(LONG_CALL_S):
        return module, _calibrated(module, start.config, tokens, world, log, progress, trained_s)


def _trained(
    start: Start, saved: dict[str, Any] | None, tokens: Tokens, world: World, log: RunLog, progress: Progress
) -> LanguageModel:
    """Train, or load the weights of a resumed run whose training had ended."""
    if saved is not None and saved["final"]:
        module = load_weights(start.run_dir, start.config, tokens.vocab_size, saved).to(world.device)
        module.activation_dtype = saved["choices"]["precision"]  # Hessians as the run itself would have collected them
        return module
    with progress("train", shown=world.primary and start.echo is None) as tick:
        return train_stage(
            start.config, tokens, world, log, resume=saved, on_progress=lambda share, note: tick(share, 1.0, note)
        )


def _calibrated(
    module: LanguageModel, config: RecipeConfig, tokens: Tokens, world: World, log: RunLog, progress: Progress,
    trained_s: float | None,
) -> Calibration:  # fmt: skip
    """Collect Hessians over all ranks; if they come from training text, the seconds count as training.

    ``trained_s``: seconds of a training that had ended before; Hessians that were collected then are discarded.
    """
    if config.quant.calibration == "generated":
        with log.phase("calibrate", spent_s=0.0), progress("calibrate", shown=world.primary) as tick:
            return calibrate(module, config, tokens, world, tick=with_heartbeat(world, tick, "calibration"))

    @contextmanager
    def booked() -> Iterator[Callable[[], float]]:
        with log.phase("train", config.track.train_s or None, spent_s=trained_s) as phase:
            began, spent_s, plan_s = time.monotonic(), phase.seconds, config.track.plan_s or math.inf
            yield lambda: plan_s - spent_s - (time.monotonic() - began)

    calibration = calibrate(
        module, config, tokens, world, booked=booked, tick=with_heartbeat(world, silent, "calibration")
    )
    if calibration.hessians is not None and not calibration.hessians.tokens:
        log.line(
            "warning: no time was left on the clock for Hessians, so weights are quantized as if inputs were "
            "independent, which costs bits per byte: give quant.reserve_s more seconds"
        )
    return calibration


def _packed(
    run_dir: Path, config: RecipeConfig, module: LanguageModel, tokens: Tokens, calibration: Calibration, world: World,
    log: RunLog, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Quantize and pack while the other ranks wait; return where the bytes of the file went."""
    with log.phase("quantise", spent_s=0.0), progress("quantize") as tick:
        beat = with_heartbeat(world, told(tick, lambda text: log.line(f"quantise {text}")), "quantizing")
        quantized = quantize_stage(run_dir, module, config, tokens, calibration, ranks=world.size, tick=beat)
    log.line(quantized_line(quantized))
    with log.phase("pack", spent_s=0.0), progress("pack") as tick:
        artifact = run_dir / ARTIFACT
        return pack_stage(run_dir, config, tokens, artifact, with_heartbeat(world, tick, "packing"))


def closing_lines(recipe: RecipeConfig, packed: dict[str, Any], score: dict[str, Any]) -> list[str]:
    """Return the last lines of the log: the evaluation's time and kind, the sizes in bytes, and the score."""
    width = recipe.quant.format if recipe.quant.format != "int" else f"int{recipe.quant.matrix_bits}"
    codec = f"{width}+{matrix_codec(packed)}"
    code = packed_bytes(packed, "code")
    adapted = [f"eval_adapt:{score['adapt']} mass_error:{score['mass_error']:.1e}"] if score["adapt"] != "none" else []
    return [
        *pace_lines(score),
        *adapted,
        *size_lines(code, packed["bytes"]["file"], codec),
        final_line(score["val_loss"], score["val_bpb"], codec.replace("+", "_")),
    ]
