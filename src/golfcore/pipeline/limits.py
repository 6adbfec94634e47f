"""The limits of a track: bytes of the file, seconds of training and of evaluation."""

from __future__ import annotations

from typing import Any

from golfcore.config import RecipeConfig
from golfcore.errors import RuleError


def check_limits(config: RecipeConfig, result: dict[str, Any]) -> None:
    """Raise RuleError if the run broke a limit of its track; everything that it made stays."""
    track = config.track
    for what, value, limit, unit in (
        ("the artifact", result["bytes_total"], track.cap_bytes, "bytes"),
        ("training", result["train_s"], track.train_s, "s"),
        ("evaluation", result["eval_s"], track.eval_s, "s"),
    ):
        if limit and value > limit:
            digits = 0 if unit == "bytes" else 2
            raise RuleError(
                f"{what} took {value:,.{digits}f} {unit}, track {track.name} allows {limit:,.{digits}f}; "
                f"{result['run']} is kept, but its score does not count"
            )
