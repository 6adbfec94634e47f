"""Optimizer steps over many tensors in one call: AdamW and Muon, with the weight average and the bf16 copy.

A step reads and writes each parameter and its state once. Muon's Newton-Schulz products are torch's, on a bank of
same-shape matrices in the precision that the machine multiplies fast, but for the symmetric ones where a processor has
vector instructions for it: a native kernel computes their lower triangle alone. Units for matrices (AMX, a GPU's tensor
cores) multiply them whole: docs/guides/simt.md says why.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from golfcore import _core
from golfcore.errors import InputError
from golfcore.ops import products
from golfcore.ops.reference import optim as reference
from golfcore.ops.registry import DTYPE_CODE, address, call, check_float, check_shape, core, leaf, native

Tensors = Sequence[torch.Tensor]
Coefficients = Sequence[tuple[float, float, float]]

# Jordan's quintic (kellerjordan.github.io/posts/muon), the steepest at zero, as the contest's baseline uses it.
QUINTIC: Coefficients = ((3.4445, -4.7750, 2.0315),) * 5
# Polar Express (arXiv:2505.16932): the best polynomial for each step in turn, with the safety factor of the contest.
POLAR_EXPRESS: Coefficients = (
    (8.156555, -22.483293, 15.878770),
    (4.042930, -2.808917, 0.500018),
    (3.891678, -2.772484, 0.506065),
    (3.285754, -2.368129, 0.464490),
    (2.346541, -1.709783, 0.423236),
)
NORM_EPS = 1e-7


@torch.no_grad()
def adamw_(
    params: Tensors, grads: Tensors, exp_avgs: Tensors, exp_avg_sqs: Tensors, *, lr: float | Sequence[float],
    weight_decay: float | Sequence[float] = 0.0, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8,
    step: int, grad_scale: float = 1.0, emas: Tensors = (), ema_decay: float = 0.0, shadows: Tensors = (),
) -> None:  # fmt: skip
    """One AdamW step (decoupled weight decay) on every parameter, in place.

    ``p = (1 - lr wd) p - lr m' / (sqrt(v') + eps)`` with bias-corrected moments of ``grad_scale * g``, then
    ``ema = ema_decay ema + (1 - ema_decay) p`` and ``shadow = p`` rounded to bf16.

    Args:
        params: fp32, contiguous.
        grads: fp32 or bf16, the shapes of ``params``.
        exp_avgs, exp_avg_sqs: the moments, fp32.
        lr, weight_decay: one number, or one for each parameter.
        step: the number of this step, from 1.
        grad_scale: factor on every gradient, for clipping by norm without a pass of its own.
        emas: weight averages, fp32; empty for none.
        shadows: bf16 copies for the forward pass; empty for none.

    Raises:
        InputError: lists of different lengths, or a tensor of the wrong shape, dtype or layout.
    """
    rates, decays = _each(lr, len(params)), _each(weight_decay, len(params))
    _check("adamw", params, shadows, grads=grads, exp_avgs=exp_avgs, exp_avg_sqs=exp_avg_sqs, emas=emas or params,
           lr=rates, weight_decay=decays)  # fmt: skip
    if step < 1:
        raise InputError(f"adamw: step = {step}; expected 1 or more, it corrects the moments' bias")
    if not params:
        return
    if native("optim", params[0]):
        _adamw(params, grads, exp_avgs, exp_avg_sqs, rates, decays, list(betas), eps, step, grad_scale, emas, ema_decay,
               shadows)  # fmt: skip
    else:
        reference.adamw_(params, grads, exp_avgs, exp_avg_sqs, rates, decays, betas, eps, step, grad_scale, emas,
                         ema_decay, shadows)  # fmt: skip


@torch.no_grad()
def muon_(
    params: Tensors, grads: Tensors, buffers: Tensors, *, lr: float, momentum: float, weight_decay: float = 0.0,
    coefficients: Coefficients = POLAR_EXPRESS, row_norm: bool = False,
    emas: Tensors = (), ema_decay: float = 0.0, shadows: Tensors = (),
) -> None:  # fmt: skip
    """One Muon step on a bank of matrices of one shape, in place.

    ``m = momentum m + g``, ``u = g + momentum m`` (Nesterov), each row of u divided by its norm where ``row_norm``,
    u orthogonalized, ``p = (1 - lr wd) p - lr sqrt(max(1, rows / columns)) u``; ema and shadow as for ``adamw_``.

    Args:
        params: fp32 [R, C] each, contiguous; a bank parameter [B, R, C] is passed as ``bank.unbind()``.
        grads: fp32 or bf16.
        buffers: the momenta, fp32.
        coefficients: (a, b, c) of each Newton-Schulz step: ``POLAR_EXPRESS`` or ``QUINTIC``.
        emas, shadows: see ``adamw_``.

    Raises:
        InputError: lists of different lengths, matrices of more than one shape, or a tensor of the wrong dtype or
            layout.
    """
    _check("muon", params, shadows, grads=grads, buffers=buffers, emas=emas or params)
    if params:
        update_BRC = muon_update(grads, buffers, momentum=momentum, coefficients=coefficients, row_norm=row_norm)
        muon_apply_(params, update_BRC, lr=lr, weight_decay=weight_decay, emas=emas, ema_decay=ema_decay,
                    shadows=shadows)  # fmt: skip


@torch.no_grad()
def muon_update(
    grads: Tensors, buffers: Tensors, *, momentum: float, coefficients: Coefficients = POLAR_EXPRESS,
    row_norm: bool = False,
) -> torch.Tensor:  # fmt: skip
    """The first half of ``muon_``: moves the momenta and gives the orthogonalized updates.

    Returns:
        [B, R, C] in ``update_dtype(buffers[0])``: all that another rank needs to do the second half.

    Raises:
        InputError: as for ``muon_``, or no matrices.
    """
    _check("muon", buffers, (), grads=grads)
    _matrix_shape(buffers)
    if not native("optim", buffers[0]):
        bank_BRC = reference.muon_momentum_(grads, buffers, momentum, row_norm, NORM_EPS)
        return reference.orthogonalize(bank_BRC, coefficients)
    return orthogonalize(_momentum(grads, buffers, momentum, row_norm), coefficients)


@torch.no_grad()
def muon_apply_(
    params: Tensors, update_BRC: torch.Tensor, *, lr: float, weight_decay: float = 0.0, emas: Tensors = (),
    ema_decay: float = 0.0, shadows: Tensors = (),
) -> None:  # fmt: skip
    """The second half of ``muon_``: moves each matrix by its update, then its average and its bf16 copy.

    Raises:
        InputError: as for ``muon_``, or updates of another shape.
    """
    _check("muon", params, shadows, emas=emas or params)
    rows, columns = _matrix_shape(params)
    check_shape("muon", "update", update_BRC, (len(params), rows, columns))
    factor = max(1.0, rows / columns) ** 0.5
    if native("optim", params[0]):
        _apply(params, update_BRC, lr, weight_decay, factor, emas, ema_decay, shadows)
    else:
        reference.muon_apply_(params, update_BRC, lr, weight_decay, factor, emas, ema_decay, shadows)


def orthogonalize(bank_BRC: torch.Tensor, coefficients: Coefficients = POLAR_EXPRESS) -> torch.Tensor:
    """The nearest semi-orthogonal matrix of each matrix in a bank, by Newton-Schulz iteration.

    Args:
        bank_BRC: [B, R, C] in bf16 or fp32; the Frobenius norm of each matrix is at most 1.
        coefficients: (a, b, c) of each step: ``X <- a X + (b A + c A^2) X`` with ``A = X X^T`` on the short side.

    Raises:
        InputError: ``bank_BRC`` is not a bank of floating-point matrices.
    """
    check_float("orthogonalize", "bank", bank_BRC)
    if bank_BRC.ndim != 3:
        raise InputError(f"orthogonalize: bank has shape {tuple(bank_BRC.shape)}; expected [B, rows, columns]")
    if not len(coefficients) or not bank_BRC.numel():
        return bank_BRC.clone()
    if not native("optim", bank_BRC):
        return reference.orthogonalize(bank_BRC, coefficients)
    result: torch.Tensor = _orthogonalize(bank_BRC, [number for abc in coefficients for number in abc])
    return result


def update_dtype(buffer: torch.Tensor) -> torch.dtype:
    """What ``muon_update`` computes and returns for momenta like ``buffer``: the precision that multiplies fast."""
    if not native("optim", buffer):
        return buffer.dtype
    return products.fast_dtype() if core(buffer) is _core else torch.bfloat16


def _each(value: float | Sequence[float], count: int) -> list[float]:
    return [float(value)] * count if isinstance(value, float | int) else [float(v) for v in value]


def _check(op: str, params: Tensors, shadows: Tensors, **lists: Sequence[Any]) -> None:
    for name, tensors in (*lists.items(), ("shadows", shadows or params)):
        if len(tensors) != len(params):
            raise InputError(f"{op}: {len(tensors)} {name} for {len(params)} params; expected one for each")
    for i, p in enumerate(params):
        check_float(op, f"params[{i}]", p)
        for name, tensors in (("params", params), *lists.items(), ("shadows", shadows)):
            if not tensors or not isinstance(tensors[i], torch.Tensor):
                continue
            t, label = tensors[i], f"{name}[{i}]"
            check_shape(op, label, t, tuple(p.shape))
            expected = {"grads": (p.dtype, torch.bfloat16), "shadows": (torch.bfloat16,)}.get(name, (params[0].dtype,))
            if t.dtype not in expected or t.device != params[0].device:
                raise InputError(
                    f"{op}: {label} is {t.dtype} on {t.device}; expected {' or '.join(map(str, expected))} "
                    f"on {params[0].device}"
                )
            if name != "grads" and not t.is_contiguous():
                raise InputError(f"{op}: {label} is not contiguous; keep it as {label}.contiguous()")
    if params and params[0].dtype == torch.bfloat16:
        raise InputError(f"{op}: params are torch.bfloat16; keep fp32 master weights and pass bf16 copies as shadows")


def _matrix_shape(params: Tensors) -> tuple[int, int]:
    shapes = {tuple(p.shape) for p in params}
    if len(shapes) != 1 or params[0].ndim != 2 or not params[0].numel():
        raise InputError(f"muon: params have shapes {sorted(shapes)}; expected matrices of one shape, none empty")
    return params[0].shape[0], params[0].shape[1]


def _table(
    params: Tensors, grads: Tensors, m: Tensors, v: Tensors, emas: Tensors, shadows: Tensors, lr: Sequence[float],
    weight_decay: Sequence[float],
) -> list[tuple[Any, ...]]:  # fmt: skip
    """The rows that csrc/bindings/optim_arguments.h reads; an empty list leaves its column 0."""

    def at(tensors: Tensors, i: int) -> int:
        return address(tensors[i]) if tensors else 0

    lead = params or m
    return [
        (
            at(params, i), at(grads, i), at(m, i), at(v, i), at(emas, i), at(shadows, i),
            lead[i].numel(), lr[i] if lr else 0.0, weight_decay[i] if lr else 0.0,
            DTYPE_CODE[grads[i].dtype] if grads else 0,
        )
        for i in range(len(lead))
    ]  # fmt: skip


def _adamw_native(
    params: Tensors, grads: Tensors, m: Tensors, v: Tensors, lr: Sequence[float], weight_decay: Sequence[float],
    betas: Sequence[float], eps: float, step: int, grad_scale: float, emas: Tensors, ema_decay: float, shadows: Tensors,
) -> None:  # fmt: skip
    grads = [g.contiguous() for g in grads]
    table = _table(params, grads, m, v, emas, shadows, lr, weight_decay)
    bias1, bias2 = 1 - betas[0] ** step, 1 - betas[1] ** step
    call(params[0], "adamw_step", table, betas[0], betas[1], eps, grad_scale, 1 - ema_decay, bias1, bias2)


def _momentum_native(grads: Tensors, buffers: Tensors, momentum: float, row_norm: bool) -> torch.Tensor:
    rows, columns = buffers[0].shape
    grads = [g.contiguous() for g in grads]
    bank_BRC = buffers[0].new_empty(len(buffers), rows, columns, dtype=update_dtype(buffers[0]))
    norms = buffers[0].new_empty(len(buffers), rows)  # workspace
    table = _table((), grads, buffers, (), (), (), (), ())
    call(
        buffers[0], "muon_momentum", table, rows, columns, momentum, row_norm, NORM_EPS, DTYPE_CODE[bank_BRC.dtype],
        address(bank_BRC), address(norms),
    )  # fmt: skip
    return bank_BRC


def _orthogonalize_cpu(bank_BRC: torch.Tensor, flat: Sequence[float]) -> torch.Tensor:
    (x,) = products.widened(bank_BRC)
    tiles = x.dtype == torch.bfloat16 and products.route().tiles
    if not tiles and x.dtype in DTYPE_CODE and _core.has_symmetric_product(DTYPE_CODE[x.dtype]):
        return _by_symmetric_products(x.contiguous(), _steps(flat)).to(bank_BRC.dtype)
    return _by_torch(x, flat).to(bank_BRC.dtype)


def _steps(flat: Sequence[float]) -> list[tuple[float, ...]]:
    return [tuple(flat[i : i + 3]) for i in range(0, len(flat), 3)]


def _by_symmetric_products(x: torch.Tensor, steps: Sequence[tuple[float, ...]]) -> torch.Tensor:
    """One plain product for each polynomial: a I joins it before it is rounded.

    Where the matrices are at least twice as long as wide, steps go in pairs: the second polynomial comes from the short
    side's products, which saves two of four long ones. In bf16 the first step stands alone, its polynomial is the
    steepest, and so does the last: it starts from the matrices as they are and undoes what the pairs' roundings did to
    the singular values. With a pair at either end results were off two to five times as far as without pairs. In fp32
    pairs from the first step on are as accurate as torch's products.
    """
    wide = x.shape[1] <= x.shape[2]
    short, long = sorted(x.shape[1:])
    size = 2 if long >= 2 * short else 1
    alone = {len(steps) - 1} if x.dtype == torch.bfloat16 else set()
    cuts = sorted({0, *range(len(alone), len(steps), size), *alone, len(steps)})
    code = DTYPE_CODE[x.dtype]
    packed = x.new_empty(_core.polynomial_workspace(code, len(x), short, long), dtype=torch.uint8)
    square, poly = x.new_empty(2 * size - 1, len(x), short, short), x.new_empty(len(x), short, short)
    results = torch.empty_like(x), torch.empty_like(x)  # in turn: the caller's bank is only read
    for turn, (begin, end) in enumerate(itertools.pairwise(cuts)):
        rows, y = x if wide else x.mT, results[turn % 2]
        _core.newton_schulz_polynomial(
            code, rows.data_ptr(), square.data_ptr(), poly.data_ptr(), rows.shape, rows.stride(),
            [number for abc in steps[begin:end] for number in abc], packed.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        x = torch.bmm(poly, x, out=y) if wide else torch.bmm(x, poly, out=y)
    return x


def _by_torch(bank_BRC: torch.Tensor, flat: Sequence[float]) -> torch.Tensor:
    x = bank_BRC.contiguous()
    wide = x.shape[1] <= x.shape[2]
    for a, b, c in _steps(flat):
        gram = torch.bmm(x, x.mT) if wide else torch.bmm(x.mT, x)
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, poly, x, beta=a) if wide else torch.baddbmm(x, x, poly, beta=a)
    return x


def _apply_native(
    params: Tensors, update_BRC: torch.Tensor, lr: float, weight_decay: float, factor: float, emas: Tensors,
    ema_decay: float, shadows: Tensors,
) -> None:  # fmt: skip
    each = [lr] * len(params), [weight_decay] * len(params)
    update_BRC = update_BRC.contiguous()
    table = _table(params, (), (), (), emas, shadows, *each)
    call(params[0], "muon_apply", table, DTYPE_CODE[update_BRC.dtype], address(update_BRC), factor, 1 - ema_decay)


_adamw = leaf(
    "optim",
    "adamw_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] m, Tensor(c!)[] v, float[] lr, float[] weight_decay, "
    "float[] betas, float eps, int step, float grad_scale, Tensor(d!)[] emas, float ema_decay, Tensor(e!)[] shadows)"
    " -> ()",
    _adamw_native,
    lambda *_: None,
    device=_adamw_native,
)
_momentum = leaf(
    "optim",
    "muon_momentum_(Tensor[] grads, Tensor(a!)[] buffers, float momentum, bool row_norm) -> Tensor",
    _momentum_native,
    lambda grads, buffers, momentum, row_norm: buffers[0].new_empty(
        len(buffers), *buffers[0].shape, dtype=update_dtype(buffers[0])
    ),
    device=_momentum_native,
)
_orthogonalize = leaf(
    "optim",
    "orthogonalize(Tensor bank, float[] coefficients) -> Tensor",
    _orthogonalize_cpu,
    lambda bank, coefficients: bank.new_empty(bank.shape),
    device=_by_torch,
)
_apply = leaf(
    "optim",
    "muon_apply_(Tensor(a!)[] params, Tensor update, float lr, float weight_decay, float factor, "
    "Tensor(b!)[] emas, float ema_decay, Tensor(c!)[] shadows) -> ()",
    _apply_native,
    lambda *_: None,
    device=_apply_native,
)
