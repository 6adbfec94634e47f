"""The kernels that an operation launches, with their blocks: its launchers run on the host, its kernels do not.

So a block's dynamic shared memory, which no machine code tells, is known for a shape, and which of a kernel's many
instances serves it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from golfcore.ops.registry import core, using


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch.

    Attributes:
        folder: of csrc, where the kernel's source is; an operation may launch another's kernels.
        kernel: ``forward<bf16, 8>``, the name that machine code has for it too.
        grid, block: blocks and threads, in all.
        dynamic_shared: bytes a block.
    """

    folder: str
    kernel: str
    grid: int
    block: int
    dynamic_shared: int


def launches_of(function: Callable[[], object]) -> list[Launch]:
    """Record the launches that ``function`` makes; what they would have computed is left as it was.

    Raises:
        BuildError: there is no ``_simt`` here (`make simt`).
    """
    with using("simt"):
        model = core(torch.empty(0))
        model.record_launches(True)
        try:
            function()
        finally:
            model.record_launches(False)
            rows: list[dict[str, Any]] = model.take_launches()
    return [
        Launch(
            Path(row["file"]).parent.name, row["kernel"], grid=_product(row["grid"]), block=_product(row["block"]),
            dynamic_shared=row["dynamic_shared"],
        )
        for row in rows
    ]  # fmt: skip


def _product(sizes: tuple[int, int, int]) -> int:
    x, y, z = sizes
    return x * y * z
