"""Count the work of single operations of a GPT's training step: bytes, flops, special functions, launches.

Counts belong to the operation, not to the kernel that serves it: each tensor that it needs is read once and each result
written once. Data that several operations read (weights, tables, a chunk's logits) or that fit the L2 cache are counted
once or not at all. Shape suffixes as elsewhere; n is tokens, d the residual stream's width. Activations are bf16,
weights and their gradients fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from golfcore.bench.segments import FLASH2, FLASH3, Segments
from golfcore.gpu_specs import H100

BF16, FP32, INT64 = 2, 4, 8
L2_BYTES = 50e6  # of an H100
TILE = 128  # rows and columns of a result that a multiprocessor computes at a time, at the least, in a fast product
# Warp instructions of csrc/qk, forward and backward, counted in its machine code for sm_90a by nvcc 13.0: a warp takes
# 256 numbers, and nothing of its work is a loop, so that the estimate by loops does not see it. They were 390 and 520
# before it computed in 32 bits, divided by factors from the host and kept a head in registers.
QK_INSTRUCTIONS, QK_NUMBERS = (213.0, 297.0), 256
QK_INSTRUCTIONS_WIDE = (390.0, 520.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of one operation of a step on one GPU.

    Attributes:
        name: name for people.
        op: the operation that serves it (``norm``), or ``cublas``, ``torch``, ``nccl``, ``fa3``, ``host``.
        backward: whether it belongs to the gradient.
        calls: calls per step; all counts below are per call.
        read, written: bytes of memory.
        cached: further bytes that a kernel reads or writes, which the L2 cache holds.
        products: flops of matrix products by cuBLAS, or by other kernels that reach the tensor cores' full rate.
        mma: flops of matrix products inside our kernels, by mma.sync.
        fp32: flops outside the tensor cores.
        special: results of ex2, rcp, rsqrt, tanh.
        issued: warp instructions, where they were counted by hand.
        link: bytes that leave the GPU over NVLink.
        launches: kernels.
        ramps: launches so short that nothing hides their beginning and end.
        fill: share of the multiprocessors that have a tile of the product.
        flops_s: flop/s of ``products`` or ``mma`` that published kernels of its kind reach; 0 for the usual share.
        waited_s: seconds in which the GPU waits for the host.
    """

    name: str
    op: str
    backward: bool = False
    calls: int = 1
    read: float = 0.0
    written: float = 0.0
    cached: float = 0.0
    products: float = 0.0
    mma: float = 0.0
    fp32: float = 0.0
    special: float = 0.0
    issued: float = 0.0
    link: float = 0.0
    launches: int = 1
    ramps: int = 0
    fill: float = 1.0
    flops_s: float = 0.0
    waited_s: float = 0.0


def fill(rows: float, columns: float, count: int = 1) -> float:
    """Return the share of an H100's multiprocessors that have a tile of ``count`` results of rows x columns."""
    return min(1.0, count * -(-rows // TILE) * -(-columns // TILE) / H100.multiprocessors)


def norm(n: int, d: int, *, branch: bool, mixed: bool, calls: int = 1, what: str = "") -> list[Work]:
    """Count ``ops.rms_norm`` or ``mix_norm``, both ways; ``branch`` adds ``s y``, ``mixed`` has ``a`` and ``b x0``."""
    row, stored = BF16 * n * d, branch or mixed
    return [
        Work(
            name=f"norm{what}", op="norm", calls=calls, read=row * (1 + branch + mixed),
            written=row * (1 + stored) + FP32 * n, fp32=n * d * (3 + 2 * branch + 3 * mixed), special=2 * n,
        ),
        Work(  # reads dr, dh, r; x for a's gradient, x0 for b's, y for both s's and a's
            name=f"norm{what}, gradient", op="norm", backward=True, calls=calls,
            read=row * (2 + stored + branch + 2 * mixed) + FP32 * n, written=row * (1 + branch + mixed),
            fp32=n * d * (6 + 3 * branch + 6 * mixed), special=0.0, launches=1 + (branch or mixed),
        ),
    ]  # fmt: skip


def qk(
    n: int, heads: int, kv_heads: int, head_dim: int, calls: int = 1, instructions: Sequence[float] = QK_INSTRUCTIONS
) -> list[Work]:
    """Count ``ops.qk``: norm, rotation and gain of queries and keys."""
    size = n * (heads + kv_heads) * head_dim
    forward, backward = (size / QK_NUMBERS * each for each in instructions)
    return [
        Work(name="q and k", op="qk", calls=calls, read=BF16 * size, written=BF16 * size, fp32=7.0 * size,
             special=2 * n * (heads + kv_heads), issued=forward),
        Work(name="q and k, gradient", op="qk", backward=True, calls=calls, read=2 * BF16 * size, written=BF16 * size,
             fp32=13.0 * size, special=2 * n * (heads + kv_heads), issued=backward, launches=2),
    ]  # fmt: skip


def attention(
    n: int, heads: int, kv_heads: int, head_dim: int, segments: Segments, *, gated: bool, calls: int = 1
) -> list[Work]:
    """Count ``ops.attention``, causal within segments; keys and values come from L2 again.

    A score takes one ex2. Its fp32 work: scale and shift, maximum, sum, half a conversion; backward adds
    ``p (dp - delta)``. Sums in a fixed order need separate blocks for dq and for dk and dv, so scores and dp are
    computed twice: seven products instead of five with atomics. Before them a pass goes back through gate and XSA and
    leaves what XSA adds to dv; it is counted with both, as the frontier has them.
    """
    q, k = BF16 * n * heads * head_dim, BF16 * n * kv_heads * head_dim
    rows, scores = FP32 * n * heads, n * segments.keys * heads
    gate, (forward, backward) = BF16 * n * heads * gated, segments.rates(FLASH2)
    return [
        Work(name="attention", op="attention", calls=calls, read=q + 2 * k + gate, written=2 * q + rows,
             mma=4 * scores * head_dim, fp32=4.5 * scores, special=scores, flops_s=forward),
        Work(name="attention, gradient: prepare", op="attention", backward=True, calls=calls,
             read=2 * q + k + rows + gate, written=q + k + 2 * rows + gate, fp32=16.0 * n * heads * head_dim),
        Work(name="attention, gradient", op="attention", backward=True, calls=calls,
             read=2 * q + 3 * k + 2 * rows, written=q + 2 * k, mma=14 * scores * head_dim,
             fp32=13.0 * scores, special=2 * scores, flops_s=backward, launches=2),
    ]  # fmt: skip


def flash3(
    n: int, heads: int, kv_heads: int, head_dim: int, segments: Segments, *, gated: bool, calls: int = 1
) -> list[Work]:
    """Count the same by FlashAttention-3, with XSA and gate as torch's passes behind it: one each way, and a sum."""
    q, k = BF16 * n * heads * head_dim, BF16 * n * kv_heads * head_dim
    rows, scores = FP32 * n * heads, n * segments.keys * heads
    gate, (forward, backward) = BF16 * n * heads * gated, segments.rates(FLASH3)
    return [
        Work(name="attention", op="fa3", calls=calls, read=q + 2 * k, written=q + rows,
             products=4 * scores * head_dim, fp32=4.5 * scores, special=scores, flops_s=forward),
        Work(name="attention, gradient", op="fa3", backward=True, calls=calls, read=3 * q + 2 * k + rows,
             written=q + 2 * k, products=10 * scores * head_dim, fp32=9.0 * scores, special=scores, flops_s=backward,
             launches=3),
        Work(name="XSA and gate", op="torch", calls=calls, read=q + k + gate, written=q, fp32=8.0 * q / BF16),
        Work(name="XSA and gate, gradient", op="torch", backward=True, calls=calls, read=2 * q + k + gate,
             written=q + k + gate, fp32=16.0 * q / BF16),
        elementwise("gradients of v that meet", k, 2, 1, backward=True, calls=calls),
    ]  # fmt: skip


def activation(n: int, hidden: int, calls: int = 1) -> list[Work]:
    """Count ``ops.leaky2`` or ``ops.relu2``."""
    size = n * hidden
    return [
        Work(name="activation", op="activation", calls=calls, read=BF16 * size, written=BF16 * size, fp32=3.0 * size),
        Work(name="activation, gradient", op="activation", backward=True, calls=calls, read=2 * BF16 * size,
             written=BF16 * size, fp32=4.0 * size),
    ]  # fmt: skip


def residual(n: int, d: int, calls: int = 1) -> list[Work]:
    """Count ``ops.residual``, ``x + s y``; the gradient of x is that of the result."""
    row = BF16 * n * d
    return [
        Work(name="residual", op="residual", calls=calls, read=2 * row, written=row, fp32=2.0 * n * d),
        Work(name="residual, gradient", op="residual", backward=True, calls=calls, read=2 * row, written=row,
             fp32=3.0 * n * d),
    ]  # fmt: skip


def embed(n: int, d: int, vocab: int) -> list[Work]:
    """Count ``ops.embed`` with the smear gate; the table and the token before come from L2."""
    table = FP32 * vocab * d
    return [
        Work(name="embedding", op="embed", read=INT64 * n + table, written=BF16 * n * d, fp32=2.0 * n * d, special=n,
             cached=2.0 * FP32 * n * d),
        Work(name="embedding, gradient", op="embed", backward=True, read=INT64 * n + BF16 * n * d + table,
             written=table, fp32=5.0 * n * d, special=n, launches=4),
    ]  # fmt: skip


def head(n: int, d: int, vocab: int, chunk_logits: int, *, adds_inside: bool = True) -> list[Work]:
    """Count ``ops.linear_cross_entropy``: losses and gradients in one pass, a chunk's logits in L2 if they fit.

    A logit takes three special functions: ex2 and rcp for its tanh, since the GPU's own tanh is too coarse for scores,
    and ex2. The chunks' weight gradients are added up in fp32, inside their product or, without ``adds_inside``, by a
    pass of its own. The backward pass multiplies by the loss's gradient.
    """
    chunks = -(-n // min(n, max(1, chunk_logits // vocab)))
    rows = n / chunks  # the last one may be shorter
    logits, flops, weight = BF16 * rows * vocab, 2.0 * rows * d * vocab, FP32 * vocab * d
    x, w = BF16 * rows * d, BF16 * vocab * d
    outside = logits if logits > L2_BYTES else 0.0  # what goes through memory each time it is read or written
    into = 2 * weight if adds_inside else weight
    found = [
        Work(name="head: logits", op="cublas", calls=chunks, read=x + (w if outside else w / chunks), written=outside,
             products=flops, fill=fill(rows, vocab)),
        Work(name="head: cross-entropy", op="head", calls=chunks, fp32=10.0 * rows * vocab, special=3.0 * rows * vocab,
             read=INT64 * rows + outside, written=FP32 * rows + outside, cached=2 * (logits - outside)),
        Work(name="head: input's gradient", op="cublas", calls=chunks, read=outside, written=x, products=flops,
             fill=fill(rows, d)),
        Work(name="head: weight's gradient", op="cublas", calls=chunks, read=outside + x + into - weight,
             written=weight, products=flops, fill=fill(vocab, d)),
        Work(name="head: gradients times the loss's", op="torch", backward=True, read=BF16 * n * d + weight,
             written=BF16 * n * d + weight, launches=2),
    ]  # fmt: skip
    if not adds_inside:
        found.append(
            Work(name="head: weight gradients of chunks", op="torch", calls=chunks, read=2 * weight, written=weight,
                 fp32=1.0 * vocab * d)
        )  # fmt: skip
    return found


def product(name: str, n: int, inputs: int, outputs: int, calls: int = 1, *, adds: bool = False) -> list[Work]:
    """Count a linear layer by cuBLAS: forward, and the gradients of its input and of its weights.

    With ``adds`` the input's gradient is added to that of a layer that read the same input.
    """
    x, y, flops = BF16 * n * inputs, BF16 * n * outputs, 2.0 * n * inputs * outputs
    w, dw = BF16 * inputs * outputs, FP32 * inputs * outputs
    return [
        Work(name=name, op="cublas", calls=calls, read=x + w, written=y, products=flops),
        Work(name=f"{name}, input's gradient", op="cublas", backward=True, calls=calls, read=y + w + adds * x,
             written=x, products=flops),
        Work(name=f"{name}, weight's gradient", op="cublas", backward=True, calls=calls, read=x + y, written=dw,
             products=flops),
    ]  # fmt: skip


def elementwise(name: str, size: float, reads: int, writes: int, *, backward: bool = False, calls: int = 1) -> Work:
    """Count a pass of torch over ``reads`` tensors of ``size`` bytes that writes ``writes`` tensors."""
    return Work(name=name, op="torch", backward=backward, calls=calls, read=reads * size, written=writes * size,
                fp32=size / BF16 * (reads + writes))  # fmt: skip


def bitpack(rows: int, columns: int, bits: int) -> list[Work]:
    """Count ``ops.bitpack`` on one matrix: decoded to bf16, rounded in a quantizer, and multiplied by one vector.

    No part of a training step without quantization-aware training.
    """
    size, packed, scales = rows * columns, rows * columns * bits / 8, FP32 * rows
    return [
        Work(name="bitpack: dequantize", op="bitpack", read=packed + scales, written=BF16 * size, fp32=size),
        Work(name="bitpack: fake-quantize", op="bitpack", read=BF16 * size + scales, written=BF16 * size,
             fp32=4.0 * size),
        Work(name="bitpack: times a vector", op="bitpack", read=packed + scales + BF16 * columns,
             written=FP32 * rows, fp32=2.0 * size),
    ]  # fmt: skip
