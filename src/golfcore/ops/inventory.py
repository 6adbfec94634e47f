"""The operations of this build, and whether each is right on this machine, for ``golfcore kernels``."""

from __future__ import annotations

from typing import Any

import torch

from golfcore.errors import UsageError
from golfcore.ops import check
from golfcore.ops.cases import OP_CASES
from golfcore.ops.registry import backends, leaves, on_device, why_not
from golfcore.suggest import nearest

GPU = "cuda:0"


def names(op: str | None = None) -> list[str]:
    """Return the names of all operations, or the one asked for.

    Raises:
        UsageError: there is no such operation.
    """
    known = list(leaves())
    if op is None:
        return known
    if op not in known:
        raise UsageError(f"no operation {op!r}{nearest(op, known)}; there are {', '.join(known)}")
    return [op]


def inventory() -> list[dict[str, Any]]:
    """Return one row per operation: op, backend, levels, dtypes, leaves, cases."""
    served = backends()
    return [
        {
            "op": op,
            "backend": served[op],
            "levels": list(check.levels()),
            "dtypes": sorted({str(d).removeprefix("torch.") for c in OP_CASES if c.op == op for d in c.dtypes}),
            "leaves": found,
            "cases": sum(case.op == op for case in OP_CASES),
        }
        for op, found in leaves().items()
    ]


def kernel_owners() -> tuple[list[str], list[str]]:
    """Return the operations that have kernels for GPUs, and those that have none."""
    known, own = list(leaves()), on_device()
    return [op for op in known if op in own], [op for op in known if op not in own]


def examine(op: str) -> list[dict[str, Any]]:
    """Check each instruction set; one row each: results checked, worst error against plain torch's, what failed.

    And one for the first GPU, where there is one that the operation's kernels run on.
    """
    gpus = [GPU] if torch.cuda.is_available() and op in on_device() and not why_not(0) else []
    rows: dict[str, dict[str, Any]] = {
        level: {"op": op, "level": level, "checked": 0, "worst": 0.0, "failures": []}
        for level in (*check.levels(), *gpus)
    }
    for case in OP_CASES:
        if case.op != op or case.bench:
            continue
        for dtype in case.dtypes:
            for level, row in rows.items():
                if level == GPU:
                    _add(row, f"{case.id} {dtype}", check.parity(case, dtype, device=GPU))
                    continue
                with check.at_level(level):
                    _add(row, f"{case.id} {dtype}", check.parity(case, dtype))
                    if check.promises_same_bits(case, dtype) and not check.same_for_any_threads(case, dtype):
                        row["failures"].append(f"{case.id} {dtype}: depends on the number of threads")
    return list(rows.values())


def _add(row: dict[str, Any], label: str, findings: list[check.Finding]) -> None:
    for finding in findings:
        row["checked"] += 1
        if finding.plain + finding.floor > 0:
            row["worst"] = max(row["worst"], finding.ours / (finding.plain + finding.floor))
        if not finding.ok:
            row["failures"].append(f"{label}: {finding}")
