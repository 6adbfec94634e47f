"""List the kernels and blocks of a recipe's operations, by calling each once at the model's widths.

Nothing is computed; ``golfcore.ops.launches`` records the launches. A few thousand tokens are enough, since more tokens
only make grids longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from golfcore import ops
from golfcore.bench.step_work import Shape
from golfcore.ops.cubin import Kernel
from golfcore.ops.launches import Launch, launches_of
from golfcore.ops.registry import address, call, on_device

TOKENS, HEAD_TOKENS = 2048, 256  # the head's products are torch's, on the processor

Launches = dict[str, list[Launch]]  # an operation of ``step_work`` by name -> what it launches, in order


@dataclass
class _Call:
    """A call of a public function that does ``work``; all of ``inputs`` get gradients."""

    op: str
    work: str
    function: Callable[..., object]
    inputs: Sequence[Tensor] = ()
    outputs: list[Tensor] = field(default_factory=list)

    def forward(self) -> None:
        result = self.function(*(x.requires_grad_() for x in self.inputs))
        results = result if isinstance(result, tuple) else (result,)
        self.outputs = [y for y in results if isinstance(y, Tensor) and y.requires_grad]

    def backward(self) -> None:
        if self.outputs:
            seeds = [torch.ones_like(y) for y in self.outputs]
            torch.autograd.grad(self.outputs, list(self.inputs), seeds, allow_unused=True)


def launches(shape: Shape, tokens: int = TOKENS) -> Launches:
    """Return the launches of every operation that has kernels for GPUs.

    Raises:
        BuildError: ``golfcore._simt`` is not built (`make simt`).
    """
    found: Launches = {}
    for row in _calls(shape, tokens):
        if row.op in on_device():
            found[row.work] = launches_of(row.forward)
            found[f"{row.work}, gradient"] = launches_of(row.backward)
    return {work: list(dict.fromkeys(rows)) for work, rows in found.items() if rows}


def served(found: Launches, kernels: Sequence[Kernel]) -> dict[str, list[tuple[Kernel, Launch]]]:
    """Return the machine code behind each launch; a launch without machine code in this build is left out."""
    known = {(kernel.op, kernel.name): kernel for kernel in kernels}
    return {
        work: [(known[row.folder, row.kernel], row) for row in rows if (row.folder, row.kernel) in known]
        for work, rows in found.items()
    }


def _bf16(*sizes: int) -> Tensor:
    return torch.zeros(*sizes, dtype=torch.bfloat16)


def _calls(shape: Shape, n: int) -> list[_Call]:
    d, heads, kv, h = shape.d, shape.heads, shape.kv_heads, shape.head_dim
    x, y, x0 = (_bf16(n, d) for _ in range(3))
    a, s, b = (torch.ones(d) for _ in range(3))
    q, k, v = _bf16(1, n, heads, h), _bf16(1, n, kv, h), _bf16(1, n, kv, h)
    angles = torch.zeros(n, h // 8)
    ids, bounds = torch.ones(n, dtype=torch.int64), torch.tensor([0, n], dtype=torch.int32)
    table, smear = torch.zeros(shape.vocab, d), torch.zeros(12)
    weight, scales = torch.zeros(shape.hidden, d), torch.ones(shape.hidden, 1)
    packed = torch.zeros(shape.hidden, ops.row_bytes("int6", d), dtype=torch.uint8)
    return [
        _Call("norm", "norm: plain", lambda x: ops.rms_norm(x)[1], (x,)),
        _Call("norm", "norm: block's start", lambda x, x0, a, b: ops.rms_norm(x, None, x0, a=a, b=b), (x, x0, a, b)),
        _Call("norm", "norm: after attention", lambda x, y, s: ops.rms_norm(x, y, s=s), (x, y, s)),
        _Call("residual", "residual", ops.residual, (x, y, s)),
        _Call("qk", "q and k", lambda q, k, gain: ops.qk(q, k, angles, angles, gain), (q, k, torch.ones(heads))),
        _Call(
            "attention", "attention",
            lambda q, k, v, gate: ops.attention(q, k, v, gate, cu_seqlens=bounds, xsa=True),
            (q, k, v, _bf16(1, n, heads)),
        ),
        _Call("activation", "activation", ops.leaky2, (_bf16(n, shape.hidden),)),
        _Call(
            "embed", "embedding", lambda table, w, lam: ops.embed(ids, table, smear_w=w, smear_lambda=lam),
            (table, smear, torch.zeros(())),
        ),
        _Call(
            "head", "head: cross-entropy", lambda x, w: ops.linear_cross_entropy(x, w, ids[:HEAD_TOKENS], 30.0),
            (_bf16(HEAD_TOKENS, d), table),
        ),
        _Call("head", "head: weight gradients of chunks", lambda: _accumulate(shape)),
        _Call("optim", "AdamW", lambda: _adamw(shape)),
        _Call("optim", "Muon: momentum", lambda: _momentum(shape)),
        _Call("optim", "Muon: apply", lambda: _apply(shape)),
        _Call("bitpack", "bitpack: fake-quantize", lambda: ops.fake_quantize(weight.bfloat16(), scales, "int6")),
        _Call(
            "bitpack", "bitpack: dequantize",
            lambda: ops.dequantize(packed, scales, "int6", d, dtype=torch.bfloat16),
        ),
        _Call("bitpack", "bitpack: times a vector", lambda: ops.packed_linear(_bf16(1, d), packed, scales, "int6")),
    ]  # fmt: skip


def _accumulate(shape: Shape) -> None:
    """Call the accumulation alone: the head calls it from its second chunk on, which would take seconds here."""
    total, part = torch.zeros(shape.vocab, shape.d), _bf16(shape.vocab, shape.d)
    call(part, "head_accumulate", address(total), address(part), part.numel())


def _adamw(shape: Shape) -> None:
    weights, gradients, first, second, averages = ([torch.zeros(shape.vocab, shape.d)] for _ in range(5))
    ops.adamw_(weights, gradients, first, second, lr=0.1, step=1, emas=averages, ema_decay=0.9)


def _momentum(shape: Shape) -> None:
    gradients, buffers = ([torch.zeros(shape.d, shape.d)] for _ in range(2))
    ops.muon_update(gradients, buffers, momentum=0.9, row_norm=True)


def _apply(shape: Shape) -> None:
    weights, averages = ([torch.zeros(shape.d, shape.d)] for _ in range(2))
    update = torch.zeros(1, shape.d, shape.d, dtype=torch.bfloat16)
    ops.muon_apply_(weights, update, lr=0.1, emas=averages, ema_decay=0.9)
