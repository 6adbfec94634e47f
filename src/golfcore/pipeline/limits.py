"""The limits of a track (the rules that a run is held to): bytes of the file, seconds of training and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from golfcore.config import RecipeConfig


def broken_limit(config: RecipeConfig, result: Mapping[str, Any]) -> str:
    """Return one line on the limit of its track that a run broke, or an empty string if it broke none.

    Args:
        config: the run's recipe.
        result: ``run``, ``bytes_total``, ``train_s`` and ``eval_s`` of the run.
    """
    track = config.track
    for what, value, limit, unit in (
        ("the artifact", result["bytes_total"], track.cap_bytes, "bytes"),
        ("training", result["train_s"], track.train_s, "s"),
        ("evaluation", result["eval_s"], track.eval_s, "s"),
    ):
        if limit and value > limit:
            digits = 0 if unit == "bytes" else 2
            return (
                f"{what} took {value:,.{digits}f} {unit}, track {track.name} allows {limit:,.{digits}f}; "
                f"{result['run']} is kept, but its score does not count"
            )
    return ""
