"""The input of a language model: token and hashed-bigram embedding with a smear gate, in one pass.

Backward sorts the tokens by table row and adds each row's sum once, so it is deterministic, and with ``grad_into`` no
gradient of the table's size exists: rows that the tokens do not name are neither cleared nor read. On a GPU torch
sorts, and kernels add.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from golfcore.errors import InputError
from golfcore.ops import kernels
from golfcore.ops.arguments import check_shape
from golfcore.ops.reference.embed import embed as reference
from golfcore.ops.registry import DTYPE_CODE, NULL, address, core, define_op, may_look, native, register_backward


def embed(
    ids: torch.Tensor, table: torch.Tensor, *, bigram: torch.Tensor | None = None,
    bigram_scale: torch.Tensor | None = None, smear_w: torch.Tensor | None = None,
    smear_lambda: torch.Tensor | None = None, bos: int = 1, dtype: torch.dtype = torch.bfloat16,
    grad_into: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Look up token and hashed-bigram embeddings and mix each with the one before it (smear gate), in one pass.

    ``x_t = e_t + gate_t e_{t-1}`` with ``e_t = table[id_t] + bigram_scale bigram[hash(id_{t-1}, id_t)]``.
    ``gate_t = smear_lambda sigmoid(smear_w . e_t[:S])``, and 0 where a document starts: at the first id of each row and
    at every ``bos``. There the bigram takes the table's last slot, ``((36313 id_t) ^ (27191 id_{t-1})) mod (G - 1)``
    elsewhere.

    Args:
        ids: int64 [T] or [B, T], in 0..V-1.
        table: fp32 [V, D].
        bigram, bigram_scale: fp32 [G, D] and one fp32 number (0-d); both or neither.
        smear_w, smear_lambda: fp32 [S] and one fp32 number (0-d); both or neither.
        bos: the id that starts a document.
        dtype: of the result, fp32 or bf16.
        grad_into: fp32 [V, D] to which backward adds the table's gradient, for example ``table.grad``; autograd then
            sees none.

    Returns:
        [..., T, D].

    Raises:
        InputError: shapes or dtypes that do not fit, or an id outside 0..V-1. On a GPU, where looking would wait for
            the device, such an id gives NaN instead, unless GOLF_SYNC=1.
    """
    _check(ids, table, bigram, bigram_scale, smear_w, smear_lambda, grad_into)
    if not native("embed", table) or dtype not in DTYPE_CODE or _smear(smear_w) > core(table).embed_max_smear:
        if grad_into is not None:
            raise InputError("embed: grad_into needs the native operation; on this device or dtype leave it out")
        return reference(ids, table, bigram, bigram_scale, smear_w, smear_lambda, bos, dtype)
    x: torch.Tensor = _leaf(ids, table, bigram, bigram_scale, smear_w, smear_lambda, bos, DTYPE_CODE[dtype], grad_into)[
        0
    ]
    return x


def _check(
    ids: torch.Tensor, table: torch.Tensor, bigram: torch.Tensor | None, bigram_scale: torch.Tensor | None,
    smear_w: torch.Tensor | None, smear_lambda: torch.Tensor | None, grad_into: torch.Tensor | None,
) -> None:  # fmt: skip
    if ids.dtype != torch.int64 or ids.ndim not in (1, 2):
        raise InputError(f"embed: ids are {ids.dtype} {tuple(ids.shape)}; expected int64 [T] or [B, T]")
    if table.ndim != 2 or not table.numel():
        raise InputError(f"embed: table has shape {tuple(table.shape)}; expected [V, D]")
    parts = {
        "table": table, "bigram": bigram, "bigram_scale": bigram_scale, "smear_w": smear_w,
        "smear_lambda": smear_lambda, "grad_into": grad_into,
    }  # fmt: skip
    for name, part in parts.items():
        if part is not None and (part.dtype not in (torch.float32, torch.float64) or part.device != ids.device):
            raise InputError(f"embed: {name} is {part.dtype} on {part.device}; expected fp32 on {ids.device}")
    if (bigram is None) != (bigram_scale is None) or (smear_w is None) != (smear_lambda is None):
        raise InputError("embed: bigram comes with bigram_scale, and smear_w with smear_lambda; pass both or neither")
    if bigram is not None and bigram_scale is not None:
        if bigram.ndim != 2 or bigram.shape[0] < 2 or bigram.shape[1] != table.shape[1]:
            raise InputError(f"embed: bigram has shape {tuple(bigram.shape)}; expected [2 or more, {table.shape[1]}]")
        check_shape("embed", "bigram_scale", bigram_scale, ())
    if smear_w is not None and smear_lambda is not None:
        if smear_w.ndim != 1 or not 1 <= smear_w.shape[0] <= table.shape[1]:
            raise InputError(f"embed: smear_w has shape {tuple(smear_w.shape)}; expected [1 to {table.shape[1]}]")
        check_shape("embed", "smear_lambda", smear_lambda, ())
    if grad_into is not None:
        check_shape("embed", "grad_into", grad_into, tuple(table.shape))
        if not grad_into.is_contiguous():
            raise InputError("embed: grad_into is not contiguous; keep it as grad_into.contiguous()")


MaybeTensor = torch.Tensor | None


def _smear(w: torch.Tensor | None) -> int:
    return 0 if w is None else w.shape[0]


def _native_input(
    ids: torch.Tensor, table: torch.Tensor, bigram: MaybeTensor, scale: MaybeTensor, w: MaybeTensor, lam: MaybeTensor,
    bos: int,
) -> tuple[kernels.EmbedInput, tuple[MaybeTensor, ...]]:  # fmt: skip
    """What every native function begins with, and the tensors whose addresses are in it: they must outlive the call."""
    ids, table = ids.contiguous(), table.contiguous()
    bigram, scale, w, lam = (None if part is None else part.contiguous() for part in (bigram, scale, w, lam))
    given = kernels.embed_input(
        ids=address(ids), table=address(table), bigram=address(bigram), bigram_scale=address(scale), w=address(w),
        lam=address(lam), tokens=ids.numel(), length=max(ids.shape[-1], 1), width=table.shape[1],
        vocab=table.shape[0], slots=0 if bigram is None else bigram.shape[0], smear=_smear(w), bos=bos,
    )  # fmt: skip
    return given, (ids, table, bigram, scale, w, lam)


def _forward(
    ids: torch.Tensor, table: torch.Tensor, bigram: Any, scale: Any, w: Any, lam: Any, bos: int, dtype: int, into: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    if may_look(ids) and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < table.shape[0]:
        raise InputError(f"embed: ids reach from {ids.min()} to {ids.max()}; expected 0 to {table.shape[0] - 1}")
    x, place = _fake(ids, table, bigram, scale, w, lam, bos, dtype, into)
    given, _kept = _native_input(ids, table, bigram, scale, w, lam, bos)
    kernels.embed_forward(table, given, dtype=dtype, x=address(x), place=address(place))
    return x, place


def _fake(ids: torch.Tensor, table: torch.Tensor, bigram: Any, scale: Any, w: Any, lam: Any, bos: int, dtype: int,
          into: Any) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    kind = torch.float32 if dtype == DTYPE_CODE[torch.float32] else torch.bfloat16
    return table.new_empty(*ids.shape, table.shape[1], dtype=kind), ids.new_empty(ids.shape)


def _backward_into_cpu(
    dx: torch.Tensor, place: torch.Tensor, ids: torch.Tensor, table: torch.Tensor, bigram: Any, scale: Any, w: Any,
    lam: Any, bos: int, into: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    dx, n = dx.contiguous(), ids.numel()
    dbigram, scalars = _small_gradients(table, bigram, w)
    given, _kept = _native_input(ids, table, bigram, scale, w, lam, bos)
    de = table.new_empty(n, table.shape[1])
    partial = table.new_empty(-(-n // core(table).embed_grain), _smear(w) + 2, dtype=torch.float64)
    order = ids.new_empty(n + max(table.shape[0], len(dbigram)) + 1)
    kernels.embed_backward(
        table, given, dtype=DTYPE_CODE[dx.dtype], dx=address(dx), place=address(place), dtable=address(into),
        dbigram=address(dbigram), dscalars=address(scalars), de=address(de), partial=address(partial),
        order=address(order),
    )  # fmt: skip
    return dbigram, scalars


def _backward_into_device(
    dx: torch.Tensor, place: torch.Tensor, ids: torch.Tensor, table: torch.Tensor, bigram: Any, scale: Any, w: Any,
    lam: Any, bos: int, into: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    dx, n, sizes = dx.contiguous(), ids.numel(), core(table)
    dbigram, scalars = _small_gradients(table, bigram, w)
    given, _kept = _native_input(ids, table, bigram, scale, w, lam, bos)
    ids_sorted, tokens_by_id = _sorted(ids)
    slots_sorted, tokens_by_slot = (
        (None, None) if bigram is None else _sorted(torch.where(place < 0, -1 - place, place))
    )
    factors, partials = table.new_empty(n, 2), table.new_empty(sizes.embed_partials(n), _smear(w) + 2)
    edges = table.new_empty(sizes.embed_pieces(n), 2, table.shape[1])
    kernels.embed_backward_device(
        table, given, dtype=DTYPE_CODE[dx.dtype], dx=address(dx), place=address(place), dtable=address(into),
        dbigram=NULL if bigram is None else address(dbigram), dscalars=address(scalars),
        ids_sorted=address(ids_sorted), tokens_by_id=address(tokens_by_id), slots_sorted=address(slots_sorted),
        tokens_by_slot=address(tokens_by_slot), factors=address(factors), partials=address(partials),
        edges=address(edges),
    )  # fmt: skip
    return dbigram, scalars


def _sorted(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows in ascending order, and the token of each; equal ones in the text's order. int32 sorts faster."""
    ordered, tokens = torch.sort(rows.reshape(-1).to(torch.int32), stable=True)
    return ordered, tokens


def _small_gradients(table: torch.Tensor, bigram: Any, w: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The bigram table's gradient (empty without one), and those of w, lambda and the bigram's scale in one."""
    dbigram = table.new_empty(0, table.shape[1]) if bigram is None else torch.zeros_like(bigram)
    return dbigram.contiguous(), table.new_empty(_smear(w) + 2)


def _with_table(backward_into: Callable[..., Any]) -> Callable[..., Any]:
    """The backward leaf that gives the table's gradient, from the one that adds to it."""

    def backward(dx: torch.Tensor, place: torch.Tensor, ids: torch.Tensor, table: torch.Tensor, *rest: Any) -> Any:
        dtable = table.new_zeros(table.shape)
        return dtable, *backward_into(dx, place, ids, table, *rest, dtable)

    return backward


_SCHEMA = "Tensor ids, Tensor table, Tensor? bigram, Tensor? scale, Tensor? w, Tensor? lam, int bos"
_leaf = define_op(
    "embed", f"embed({_SCHEMA}, int dtype, Tensor? into) -> (Tensor, Tensor)", _forward, _fake, device=_forward
)
_leaf_backward = define_op(
    "embed",
    f"embed_backward(Tensor dx, Tensor place, {_SCHEMA}) -> (Tensor, Tensor, Tensor)",
    _with_table(_backward_into_cpu),
    lambda dx, place, ids, table, bigram, scale, w, lam, bos: (
        table.new_empty(table.shape), *_small_gradients(table, bigram, w)
    ),
    device=_with_table(_backward_into_device),
)  # fmt: skip
_leaf_backward_into = define_op(
    "embed",
    f"embed_into_backward(Tensor dx, Tensor place, {_SCHEMA}, Tensor(a!) into) -> (Tensor, Tensor)",
    _backward_into_cpu,
    lambda dx, place, ids, table, bigram, scale, w, lam, bos, into: _small_gradients(table, bigram, w),
    device=_backward_into_device,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    *tensors, ctx.bos, _, ctx.into = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], *tensors)


def _gradient(ctx: Any, dx: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
    place, ids, table, bigram, scale, w, lam = ctx.saved_tensors
    arguments = dx, place, ids, table, bigram, scale, w, lam, ctx.bos
    if ctx.into is None:
        dtable, dbigram, scalars = _leaf_backward(*arguments)
    else:
        dtable, (dbigram, scalars) = None, _leaf_backward_into(*arguments, ctx.into)
    return (
        None, dtable, None if bigram is None else dbigram, None if scale is None else scalars[-1],
        None if w is None else scalars[:-2], None if lam is None else scalars[-2], None, None, None,
    )  # fmt: skip


register_backward(_leaf, _setup, _gradient)
