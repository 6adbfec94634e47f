"""Select workloads to time: every case of the table of operations that has a bench, and whole steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from typing import Any

import torch

from golfcore.bench.device_cases import ATTENTIONS, attention_rivals, device_cases
from golfcore.bench.harness import NATIVE, Workload, require, sets_beyond_cache
from golfcore.bench.ranks import checkpoint, ranks
from golfcore.bench.sampling import sampling
from golfcore.bench.step_work import shape_of
from golfcore.bench.train_step import train_step
from golfcore.config import RecipeConfig
from golfcore.errors import UsageError
from golfcore.ops import check
from golfcore.ops.cases import OP_CASES, Case
from golfcore.ops.cases.base import with_grads
from golfcore.recipes import load_recipe
from golfcore.suggest import nearest

STEP = "train_step"
# Cases of a whole step: each builds its workload from a recipe.
STEPS: dict[str, Callable[[RecipeConfig, Sequence[str]], Workload]] = {
    STEP: train_step,
    "ranks": lambda recipe, _: ranks(recipe),
    "checkpoint": lambda recipe, _: checkpoint(recipe),
    "sampling": sampling,
}
RIVALS = ("torch", "compile", "reference", *ATTENTIONS)


def parse_rivals(text: str) -> tuple[str, ...]:
    """Parse ``"torch,compile"`` to its names; an empty text to none.

    Raises:
        UsageError: an unknown name.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in RIVALS:
            raise UsageError(f"--vs {name}: expected some of {', '.join(RIVALS)}{nearest(name, RIVALS)}")
    return names


def select(pattern: str | None, rivals: Sequence[str], device: str = "cpu") -> Iterator[Workload]:
    """Yield the workloads of an operation (``norm``), a case (``norm/all-pocket``), a pattern (``*/*-pocket``), or all.

    On the processor ``train_step`` is the whole step of the pocket recipe, ``ranks`` the same on two ranks,
    ``checkpoint`` the cost of saving during steps, and ``sampling`` tokens drawn from the packed model; on a GPU the
    cases are those of ``device_cases``, in bf16. A workload is built when its turn comes.

    Raises:
        UsageError: nothing matches.
    """
    on_gpu = device != "cpu"
    if pattern in STEPS and not on_gpu:
        return iter([_step(pattern, rivals)])
    if on_gpu:
        pairs = device_cases(shape_of(load_recipe("frontier_8xh100", environment={}).config))
    else:
        pairs = [(case, case) for case in OP_CASES if case.bench]
    cases = [case for case, _ in pairs]
    if pattern is not None:
        chosen = [pair for pair in pairs if pattern == pair[0].op or fnmatchcase(pair[0].id, pattern)]
        if not chosen:
            known = [*dict.fromkeys(case.op for case in cases), *(case.id for case in cases)]
            known = known if on_gpu else [*STEPS, *known]
            raise UsageError(f"no bench case {pattern!r}{nearest(pattern, known)}; known: {', '.join(known)}")
        pairs = chosen
    workloads = (
        of_case(case, dtype, rivals, device, checked)
        for case, checked in pairs
        for dtype in ((torch.bfloat16,) if on_gpu else case.dtypes)
    )
    return workloads if pattern is not None or on_gpu else chain(workloads, (_step(name, rivals) for name in STEPS))


def _step(name: str, rivals: Sequence[str]) -> Workload:
    return STEPS[name](load_recipe("pocket", environment={}).config, rivals)


def _rival(case: Case, name: str) -> Callable[..., Any]:
    if name == "compile":
        return torch.compile(case.plain, dynamic=False)  # shapes do not change in training either
    return case.plain if name == "torch" else case.reference


def of_case(
    case: Case, dtype: torch.dtype, rivals: Sequence[str], device: str = "cpu", checked: Case | None = None
) -> Workload:
    """Return the workload of one operation, forward and backward; ``checked`` is a smaller case that can be checked."""
    first = check.build(case, dtype, device=device)
    sets = sets_beyond_cache(first) if device == "cpu" else 1  # a GPU's cache is filled before each call
    arguments = [first, *(check.build(case, dtype, draw, device) for draw in range(1, sets))]
    seeds = [check.output_gradients(case, each) for each in arguments]
    functions: dict[str, Callable[..., Any]] = {NATIVE: case.call}
    for rival in rivals:
        # torch's fused optimizer steps do not go through torch.compile
        if rival not in ATTENTIONS and not (case.in_place and rival == "compile"):
            functions[rival] = _rival(case, rival)
    functions |= dict(attention_rivals(case, rivals))

    timed = dict(zip((NATIVE, "reference", "torch"), case.in_place or (), strict=False))

    def work(function: Callable[..., Any], i: int) -> object:
        return function(**arguments[i]) if case.in_place else with_grads(function, case, arguments[i], seeds[i])

    def judge() -> None:
        torch.compiler.reset()
        for name, function in functions.items():
            # A rival must do the same work, but its roundings are its own: compiled code sums 8,192 rows one by one.
            factor = 1 if name == NATIVE else 50
            for finding in check.parity(checked or case, dtype, function, device):
                require(finding.within(factor), f"{case.id} {dtype}: {name} is wrong, and was not timed: {finding}")

    return Workload(
        case=case.id, dtype=str(dtype).removeprefix("torch."), shape=case.shape,
        contenders={name: partial(work, timed.get(name, f)) for name, f in functions.items()}, check=judge,
        sets=len(arguments), touched=case.touched(first), flops=case.flops,
    )  # fmt: skip
