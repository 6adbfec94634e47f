"""What can be timed: every bench row of the table of operations, and whole steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from typing import Any

import torch

from golfcore.bench.harness import NATIVE, Workload, require, sets_beyond_cache
from golfcore.bench.ranks import checkpoint, ranks
from golfcore.bench.train_step import train_step
from golfcore.config import RecipeConfig, nearest
from golfcore.errors import UsageError
from golfcore.ops import check
from golfcore.ops.cases import OP_CASES, Case
from golfcore.ops.cases.base import with_grads
from golfcore.recipes import load_recipe

STEP = "train_step"
# Cases of a whole step: each builds its workload from a recipe; only the first has rivals.
STEPS: dict[str, Callable[[RecipeConfig, Sequence[str]], Workload]] = {
    STEP: train_step,
    "ranks": lambda recipe, _: ranks(recipe),
    "checkpoint": lambda recipe, _: checkpoint(recipe),
}
RIVALS = ("torch", "compile", "reference")


def parse_rivals(text: str) -> tuple[str, ...]:
    """``"torch,compile"`` -> its names; empty for none.

    Raises:
        UsageError: an unknown name.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in RIVALS:
            raise UsageError(f"--vs {name}: expected some of {', '.join(RIVALS)}{nearest(name, RIVALS)}")
    return names


def select(pattern: str | None, rivals: Sequence[str]) -> Iterator[Workload]:
    """The workloads of an operation (``norm``), a case (``norm/all-pocket``), a pattern (``*/*-pocket``), or all.

    ``train_step`` is the whole step of the pocket recipe, ``ranks`` the same on two ranks, ``checkpoint`` what saving
    costs meanwhile.

    Each is built when its turn comes.

    Raises:
        UsageError: nothing matches.
    """
    if pattern in STEPS:
        return iter([_step(pattern, rivals)])
    cases = [case for case in OP_CASES if case.bench]
    if pattern is not None:
        chosen = [case for case in cases if pattern == case.op or fnmatchcase(case.id, pattern)]
        if not chosen:
            known = [*dict.fromkeys(case.op for case in cases), *(case.id for case in cases)]
            known = [*STEPS, *known]
            raise UsageError(f"no bench case {pattern!r}{nearest(pattern, known)}; known: {', '.join(known)}")
        cases = chosen
    workloads = (of_case(case, dtype, rivals) for case in cases for dtype in case.dtypes)
    return workloads if pattern is not None else chain(workloads, (_step(name, rivals) for name in STEPS))


def _step(name: str, rivals: Sequence[str]) -> Workload:
    return STEPS[name](load_recipe("pocket", environment={}).config, rivals)


def _rival(case: Case, name: str) -> Callable[..., Any]:
    if name == "compile":
        return torch.compile(case.plain, dynamic=False)  # shapes do not change in training either
    return case.plain if name == "torch" else case.reference


def of_case(case: Case, dtype: torch.dtype, rivals: Sequence[str]) -> Workload:
    """Forward and backward of one operation at one shape."""
    first = check.build(case, dtype)
    arguments = [first, *(check.build(case, dtype, draw) for draw in range(1, sets_beyond_cache(first)))]
    seeds = [check.output_gradients(case, each) for each in arguments]
    functions: dict[str, Callable[..., Any]] = {NATIVE: case.call}
    for rival in rivals:
        if not (case.in_place and rival == "compile"):  # torch's fused optimiser steps do not go through torch.compile
            functions[rival] = _rival(case, rival)

    timed = dict(zip((NATIVE, "reference", "torch"), case.in_place or (), strict=False))

    def work(function: Callable[..., Any], i: int) -> object:
        return function(**arguments[i]) if case.in_place else with_grads(function, case, arguments[i], seeds[i])

    def judge() -> None:
        torch.compiler.reset()
        for name, function in functions.items():
            # A rival must do the same work, but its roundings are its own: compiled code sums 8,192 rows one by one.
            factor = 1 if name == NATIVE else 50
            for finding in check.parity(case, dtype, function):
                require(finding.within(factor), f"{case.id} {dtype}: {name} is wrong, and was not timed: {finding}")

    return Workload(
        case=case.id, dtype=str(dtype).removeprefix("torch."), shape=case.shape,
        contenders={name: partial(work, timed.get(name, f)) for name, f in functions.items()}, check=judge,
        sets=len(arguments), touched=case.touched(first), flops=case.flops,
    )  # fmt: skip
