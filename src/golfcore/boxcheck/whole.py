"""Make all checks of a machine for a recipe, the cheap ones first."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from golfcore import machine
from golfcore.boxcheck.findings import CHECKED, Check, Finding, run_checks
from golfcore.boxcheck.gpus import (
    check_clocks,
    check_compile,
    check_flash_attention,
    check_gpu,
    compare_clocks,
    compare_gpus,
)
from golfcore.boxcheck.steps import check_links, check_steps
from golfcore.boxcheck.tokens import check_disk, check_tokens, compare_tokens, vocab_of
from golfcore.config import RecipeConfig
from golfcore.ranks.rendezvous import Place
from golfcore.ranks.world import World, join_world


@dataclass(frozen=True, slots=True)
class Report:
    """The findings on a machine.

    Attributes:
        recipe: the recipe's name.
        ranks: number of processes.
        device: the kind of device that they compute on, ``cuda`` or ``cpu``.
        findings: one for each check, in order.
        primary: whether this process speaks for all ranks.
    """

    recipe: str
    ranks: int
    device: str
    findings: tuple[Finding, ...]
    primary: bool

    @property
    def failed(self) -> list[str]:
        """Return the names of the checks that failed."""
        return [finding.name for finding in self.findings if finding.state == "failed"]

    @property
    def unchecked(self) -> list[str]:
        """Return the names of the checks that were not made, or not whole."""
        return [finding.name for finding in self.findings if finding.state not in CHECKED]

    def verdict(self) -> str:
        """Return one line: whether the machine is ready, and what nobody has checked."""
        open_ = f"; not checked or only in part: {', '.join(self.unchecked)}" if self.unchecked else ""
        if self.failed:
            return f"not ready for {self.recipe}: {', '.join(self.failed)} failed{open_}"
        if self.device == "cpu":
            return f"nothing wrong, but no GPU computes here, so this is no word on {self.recipe}'s speed{open_}"
        return f"ready for {self.recipe} on {self.ranks} GPU{'s' * (self.ranks > 1)}{open_}"

    def document(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "recipe": self.recipe, "ranks": self.ranks, "device": self.device, "ok": not self.failed,
            "complete": not self.unchecked, "verdict": self.verdict(), "golfcore": machine.version_text(),
            "checks": [asdict(finding) for finding in self.findings],
        }  # fmt: skip


def check_box(
    recipe: RecipeConfig,
    *,
    runs: Path = Path("runs"),
    steps: int = 30,
    reference_ms: float = 0.0,
    go_on: bool = False,
    tell: Callable[[Finding], None] = lambda finding: None,
) -> Report:
    """Check this machine for ``recipe``; under torchrun every rank calls it.

    Args:
        recipe: the recipe that would be run.
        runs: the folder in which its run would be made.
        steps: number of steps to time.
        reference_ms: milliseconds that a step should take; 0 for the plan's prediction.
        go_on: whether to go on after a check that failed.
        tell: called with each finding, on rank 0.

    Raises:
        RankError: a rank is lost or cannot take part.
        UsageError: torch cannot use this machine's GPUs.
    """
    place = Place.from_environment(os.environ)
    with join_world() as world:
        checks = box_checks(recipe, world, place, runs, steps, reference_ms)
        findings = run_checks(world, checks, go_on=go_on, tell=tell if world.primary else lambda finding: None)
        return Report(recipe.name, world.size, world.device.type, tuple(findings), world.primary)


def box_checks(
    recipe: RecipeConfig, world: World, place: Place, runs: Path, steps: int, reference_ms: float
) -> Sequence[Check]:
    """Return the checks in their order: seconds first, what computes last."""
    device = world.device
    return (
        Check("gpu", partial(check_gpu, device), "see golfcore doctor", compare_gpus),
        Check("disk", partial(check_disk, recipe, runs), "make room, or name another folder: --runs"),
        Check("tokens", partial(check_tokens, recipe, place), "", compare_tokens),
        Check("clocks", partial(check_clocks, device), "see nvidia-smi", compare_clocks),
        Check("flash attention", partial(check_flash_attention, recipe, device)),
        Check("compiler", partial(check_compile, recipe, device)),
        Check("links", partial(check_links, world, place), "NCCL_DEBUG=INFO says more", together=True),
        Check(
            "steps",
            lambda: check_steps(recipe, world, vocab_of(recipe), steps, reference_ms),
            "golfcore doctor says what the machine lacks",
            together=True,
        ),
    )
