"""Check the seconds of each phase: training, calibration of the quantizer, evaluation."""

from __future__ import annotations

from golfcore.contest.checks.context import Context
from golfcore.contest.log_facts import LogFacts
from golfcore.contest.ruleset import Severity


def check_clock(context: Context) -> None:
    """Check the clock of every log; the logs that the claim does not rest on are only reviewed."""
    timed = False
    for log in context.logs:
        timed |= log.train_s is not None
        _training(context, log)
        _calibration(context, log)
        _evaluation(context, log)
    if context.logs and not timed:
        context.notes.skip("training time: no log has train_time")
    if context.logs and all(log.eval_s is None for log in context.logs):
        context.notes.skip("evaluation time: no log has eval_time for the final score")


def _counts(context: Context, log: LogFacts) -> bool:
    return context.record and log in context.supporting and (context.supported or len(context.logs) == 1)


def _severity(context: Context, log: LogFacts) -> Severity:
    """Return how severe a broken limit is: by whether the claim rests on the log, and whether the track has limits."""
    if _counts(context, log):
        return "LIKELY"
    return "REVIEW" if context.record else "INFO"


def _training(context: Context, log: LogFacts) -> None:
    limits = context.rules.limits
    if log.train_s is None or log.train_s <= limits.train_s + limits.train_tolerance_s:
        return
    context.flag(
        "I16",
        _severity(context, log),
        f"Training took {log.train_s:,.1f} s; the limit is {limits.train_s:g} s.",
        "Stop earlier, for example by a reserve of a second.",
        file=log.name,
        line=log.train_line,
        confidence=0.95,
    )


def _calibration(context: Context, log: LogFacts) -> None:
    """Check that calibration on training data fits into what the training left of its time."""
    limits = context.rules.limits
    if log.calibration_line <= log.stop_line or not log.stop_line or log.train_s is None or log.self_calibrated:
        return
    spent = log.train_s + (log.calibration_s or 0.0)
    unknown = log.calibration_s is None and log.train_s > limits.train_s - 0.5
    if spent <= limits.train_s + limits.calibration_tolerance_s and not unknown:
        return
    how = f"{log.calibration_s:.1f} s" if log.calibration_s is not None else "an unknown time"
    context.flag(
        "I9",
        _severity(context, log),
        f"Training stopped at {log.train_s:.1f} s, and the quantizer was calibrated for {how} after it; the limit of "
        f"{limits.train_s:g} s holds for both.",
        "Reserve the time of the calibration, or calibrate on text that the model generates.",
        file=log.name,
        line=log.calibration_line,
        confidence=0.8 if unknown else 0.9,
    )


def _evaluation(context: Context, log: LogFacts) -> None:
    limits = context.rules.limits
    if log.eval_s is None or log.eval_s <= limits.eval_s:
        return
    context.flag(
        "I16",
        _severity(context, log),
        f"The evaluation behind the score took {log.eval_s:,.1f} s; the limit is {limits.eval_s:g} s.",
        "Take a larger stride, or fewer steps of adaptation.",
        file=log.name,
        line=log.eval_line,
    )
