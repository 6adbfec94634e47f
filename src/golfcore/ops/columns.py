"""Quantising a matrix column by column with error feedback, by rounding or along a trellis; on the CPU, no gradient.

The inner loops of GPTQ (arXiv:2210.17323): ``golfcore.quant.gptq`` cuts a matrix into blocks of columns and calls this
for each. Every instruction set and any number of threads gives the same symbols.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from golfcore import _core
from golfcore.artifact.trellis import MASKS
from golfcore.errors import InputError
from golfcore.ops.registry import check_shape, threads

LIMIT = 127  # the largest symbol of int8


def quantise_columns(
    w_CO: Tensor, u_CC: Tensor, step_O: Tensor, *, shrink_C: Tensor | None = None, limit: int = LIMIT, trellis: int = 0,
    ranges: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Symbols of a block of columns; each column's error is pulled into the ones after it.

    Args:
        w_CO: fp32 [C, O], a column of the layer a row, contiguous; overwritten with the weights that were rounded.
        u_CC: fp32 [C, C], this block of the upper Cholesky factor of the inverse Hessian; rows may be strided.
        step_O: fp32 [O], what a symbol is worth; 0 for a row of zeros.
        shrink_C: fp32 [C], factors on the weights before symbols are chosen, 1 where absent: a rate term.
        limit: symbols lie in -limit .. limit.
        trellis: 0 to round, or 2 to 8 bits of trellis state.
        ranges: where stacked matrices begin along O, and O at the end; a trellis starts anew in each. Default: one.

    Returns:
        int8 symbols [C, O] and fp32 ``(w - w_q) / u_jj`` [C, O], which later blocks are to pull in.

    Raises:
        InputError: shapes or values that do not fit.
    """
    columns, rows = w_CO.shape
    shrink_C = torch.ones(columns) if shrink_C is None else shrink_C
    check_shape("columns", "u", u_CC, (columns, columns))
    check_shape("columns", "step", step_O, (rows,))
    check_shape("columns", "shrink", shrink_C, (columns,))
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in (w_CO, u_CC, step_O, shrink_C)):
        raise InputError("columns: expected fp32 tensors on the CPU; convert with .float().cpu()")
    if not w_CO.is_contiguous() or not step_O.is_contiguous() or not shrink_C.is_contiguous() or u_CC.stride(1) != 1:
        raise InputError("columns: w, step and shrink must be contiguous, and the rows of u")
    bounds = list(ranges) or [0, rows]
    if bounds[0] != 0 or bounds[-1] != rows or bounds != sorted(bounds):
        raise InputError(f"columns: ranges = {bounds}; expected ascending offsets from 0 to {rows}")
    if trellis not in (0, *MASKS) or not 1 <= limit <= LIMIT:
        raise InputError(f"columns: trellis = {trellis}, limit = {limit}; expected 0 or 2 to 8, and 1 to {LIMIT}")
    symbols_CO = torch.empty(columns, rows, dtype=torch.int8)
    error_CO = torch.empty(columns, rows)
    if trellis:
        workspace = torch.empty(_core.quant_workspace(rows), dtype=torch.uint8)
        square = float(step_O.square().mean())
        weight = 1 / square if square > 0 else 1.0
    else:
        workspace, weight = symbols_CO.new_empty(0), 1.0
        bounds = [*range(0, rows, 256), rows]  # rows do not depend on each other: enough of them for every thread
    _core.quant_columns(
        (w_CO.data_ptr(), u_CC.data_ptr(), step_O.data_ptr(), shrink_C.data_ptr(), symbols_CO.data_ptr(),
         error_CO.data_ptr(), workspace.data_ptr()),
        (columns, rows, u_CC.stride(0)), bounds, limit, weight, trellis, MASKS.get(trellis, (0, 0, 0, 0)), threads(),
    )  # fmt: skip
    return symbols_CO, error_CO
