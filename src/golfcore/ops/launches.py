"""Which kernels an operation launches, with which blocks: its launchers run on the host, its kernels do not.

So a block's dynamic shared memory, which no machine code tells, is known for a shape, and which of a kernel's many
instances serves it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from golfcore.ops.registry import core, using


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch.

    Attributes:
        kernel: ``forward<bf16, 8>``; a template argument that is neither a parameter of the launcher's own template
            nor a number stays as the source has it.
        grid, block: blocks and threads, in all.
        dynamic_shared: bytes a block.
    """

    kernel: str
    grid: int
    block: int
    dynamic_shared: int


def launches_of(function: Callable[[], object]) -> list[Launch]:
    """The launches that ``function`` makes; what they would have computed is left as it was.

    Raises:
        BuildError: this build has no ``_simt``.
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
            instance(row["kernel"], row["scope"]), grid=_product(row["grid"]), block=_product(row["block"]),
            dynamic_shared=row["dynamic_shared"],
        )
        for row in rows
    ]  # fmt: skip


def _product(sizes: tuple[int, int, int]) -> int:
    x, y, z = sizes
    return x * y * z


def instance(kernel: str, scope: str) -> str:
    """``(forward<T, kCount>)`` in ``... [with T = golf::bf16; int kCount = 8]``: ``forward<bf16, 8>``.

    ``scope`` is the launcher's name as gcc or clang (commas, no types of numbers) writes it.
    """
    arguments = scope.partition("[with ")[2].rstrip("]") or scope.rpartition("[")[2].rstrip("]")
    bound = {}
    for part in re.split(r"[;,] ", arguments):
        name, sign, value = part.partition(" = ")
        if sign:
            bound[name.split()[-1]] = value.replace("golf::", "").replace("{anonymous}::", "")
    text = kernel.strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    return re.sub(r"\b[A-Za-z_]\w*\b", lambda match: bound.get(match.group(), match.group()), text)
