"""Time the operations under pytest-benchmark, for its histograms, storage and comparisons:

    python -m pytest bench/test_ops.py --benchmark-only [-k norm]

``golfcore bench`` times the same work against its rivals in turn and knows the machine's ceilings. Both check results
before they time.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from golfcore.bench.workloads import of_case
from golfcore.ops.cases import OP_CASES
from golfcore.ops.memory import keep_freed_memory

keep_freed_memory()
ROWS = [pytest.param(c, d, id=f"{c.id}-{str(d)[6:]}") for c in OP_CASES if c.bench for d in c.dtypes]


@pytest.mark.parametrize("backend", ["golfcore", "torch", "compile"])
@pytest.mark.parametrize(("case", "dtype"), ROWS)
def test_operation(benchmark: Any, case: Any, dtype: torch.dtype, backend: str) -> None:
    rivals = () if backend == "golfcore" else (backend,)
    workload = of_case(case, dtype, rivals)
    workload.check()
    turns = itertools.cycle(range(workload.sets))
    benchmark.group = f"{case.id} {case.shape} {str(dtype)[6:]}"
    benchmark.pedantic(
        workload.contenders[backend], setup=lambda: ((next(turns),), {}), rounds=30, warmup_rounds=3, iterations=1
    )
