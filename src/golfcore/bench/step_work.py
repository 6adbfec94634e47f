"""Count the work of a GPT's training step on one GPU: bytes, flops, special functions, calls.

Counts belong to the operation, not to the kernel that serves it: each tensor that it needs is read once and each result
written once. Data that several operations read (weights, tables, a chunk's logits) or that fit the L2 cache are counted
once or not at all. Shape suffixes as elsewhere; n is tokens, d the residual stream's width. Activations are bf16,
weights and their gradients fp32.
"""

from __future__ import annotations

from dataclasses import dataclass

from golfcore.config import RecipeConfig
from golfcore.errors import UsageError
from golfcore.model import get_family
from golfcore.model.gpt.config import GATE_INPUTS, GPTConfig, layer_order
from golfcore.ops.head import CHUNK_LOGITS_DEVICE

BF16, FP32, INT64 = 2, 4, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of one operation of a step on one GPU.

    Attributes:
        name: name for people.
        op: the operation that serves it (``norm``), or ``cublas``, ``torch``, ``nccl``.
        backward: whether it belongs to the gradient.
        calls: calls per step; all counts below are per call.
        read, written: bytes of memory.
        cached: further bytes that a kernel reads or writes, which the L2 cache holds.
        products: flops of matrix products by cuBLAS.
        mma: flops of matrix products inside our kernels, by mma.sync.
        fp32: flops outside the tensor cores.
        special: results of ex2, rcp, rsqrt, tanh.
        link: bytes that leave the GPU over NVLink.
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
    link: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a step: those of the GPT, one GPU's tokens, and the layers that run.

    Attributes:
        tokens: tokens of one GPU per step.
        order: layers in the order in which they run, repeats included.
        lanes_from: layers from here on have two lanes; 0 for none.
        skips: ``gated``, ``weighted`` or ``none``.
        keys: keys that a query sees on average.
        matrices: rows and columns of every matrix that Muon updates.
        others: number of parameters that AdamW updates.
    """

    tokens: int
    d: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocab: int
    order: tuple[int, ...]
    keys: float
    lanes_from: int = 0
    skips: str = "none"
    mixed: bool = True
    gated: bool = False
    averaged: bool = False
    clipped: bool = False
    newton_schulz: int = 5
    matrices: tuple[tuple[int, int], ...] = ()
    others: int = 0
    gpus: int = 8

    @property
    def kv(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def matrix_parameters(self) -> int:
        return sum(rows * columns for rows, columns in self.matrices)


def shape_of(recipe: RecipeConfig, phase: int = 0, gpus: int = 8) -> Shape:
    """Return the shape of a GPT recipe in a phase of its depth recurrence.

    Raises:
        UsageError: another family, or an activation other than relu2 and leaky2.
    """
    config, train = recipe.model, recipe.train
    if not isinstance(config, GPTConfig) or config.activation == "swiglu":
        raise UsageError(
            f"bench roofline supports GPT recipes with activation relu2 or leaky2; {recipe.name} is not one. "
            "Try frontier_8xh100."
        )
    vocab = recipe.data.vocab_size
    d, kv, hidden = config.model_dim, config.kv_dim, config.model_dim * config.mlp_mult
    layer = ((d, d), (kv, d), (kv, d), (d, d), (hidden, d), (d, hidden))
    counts = get_family(recipe.model_family).counts(config, vocab)
    segment = min(train.seq_len, config.max_segment or train.seq_len)
    return Shape(
        tokens=train.batch_tokens // gpus, d=d, heads=config.num_heads, kv_heads=config.num_kv_heads,
        head_dim=config.head_dim, hidden=hidden, vocab=vocab, order=tuple(layer_order(config, phase)),
        keys=(segment + 1) / 2, lanes_from=config.lanes_from, skips=config.skips, mixed=config.resid_mix != "none",
        gated=config.attn_gate != "none", averaged=train.ema_decay > 0, clipped=recipe.optim.grad_clip_norm > 0,
        newton_schulz=recipe.optim.muon_backend_steps, matrices=layer * config.num_layers,
        others=sum(number for kind, number, _ in counts.values() if kind != "matrix"), gpus=gpus,
    )  # fmt: skip


# --- operations -------------------------------------------------------------------------------------------------------


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
            fp32=n * d * (6 + 3 * branch + 6 * mixed), special=0.0,
        ),
    ]  # fmt: skip


def qk(n: int, heads: int, kv_heads: int, head_dim: int, calls: int = 1) -> list[Work]:
    """Count ``ops.qk``: norm, rotation and gain of queries and keys."""
    size = n * (heads + kv_heads) * head_dim
    return [
        Work(name="q and k", op="qk", calls=calls, read=BF16 * size, written=BF16 * size, fp32=7.0 * size,
             special=2 * n * (heads + kv_heads)),
        Work(name="q and k, gradient", op="qk", backward=True, calls=calls, read=2 * BF16 * size, written=BF16 * size,
             fp32=13.0 * size, special=2 * n * (heads + kv_heads)),
    ]  # fmt: skip


def attention(
    n: int, heads: int, kv_heads: int, head_dim: int, keys: float, *, gated: bool, calls: int = 1
) -> list[Work]:
    """Count ``ops.attention``, causal: ``keys`` keys per query on average; keys and values come from L2 again.

    A score takes one ex2. Its fp32 work: scale and shift, maximum, sum, half a conversion; backward adds
    ``p (dp - delta)``. Sums in a fixed order need separate blocks for dq and for dk and dv, so scores and dp are
    computed twice: seven products instead of five with atomics.
    """
    q, k = BF16 * n * heads * head_dim, BF16 * n * kv_heads * head_dim
    rows, scores = FP32 * n * heads, n * keys * heads
    gate = BF16 * n * heads * gated
    return [
        Work(name="attention", op="attention", calls=calls, read=q + 2 * k + gate, written=q + rows,
             mma=4 * scores * head_dim, fp32=4.5 * scores, special=scores),
        Work(name="attention, gradient", op="attention", backward=True, calls=calls,
             read=3 * q + 2 * k + rows + gate, written=q + 2 * k + gate, mma=14 * scores * head_dim,
             fp32=13.0 * scores, special=2 * scores),
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
             written=table, fp32=5.0 * n * d, special=n),
    ]  # fmt: skip


def head(n: int, d: int, vocab: int) -> list[Work]:
    """Count ``ops.linear_cross_entropy``: losses and gradients in one pass, a chunk's logits in L2.

    A logit takes three special functions: ex2 and rcp for its tanh, since the GPU's own tanh is too coarse for scores,
    and ex2. The chunks' weight gradients are added up in fp32. The backward pass multiplies by the loss's
    gradient.
    """
    weight, chunks = n * d * vocab, -(-n * vocab // CHUNK_LOGITS_DEVICE)
    return [
        Work(name="head: products", op="cublas", read=BF16 * (n * d + vocab * d), written=BF16 * n * d,
             products=6.0 * weight),
        Work(name="head: cross-entropy", op="head", fp32=10.0 * n * vocab, special=3.0 * n * vocab, read=INT64 * n,
             written=FP32 * n, cached=2.0 * BF16 * n * vocab),
        Work(name="head: weight gradients of chunks", op="head", calls=chunks, read=(BF16 + FP32) * vocab * d,
             written=FP32 * vocab * d, fp32=1.0 * vocab * d),
        Work(name="head: gradients times the loss's", op="torch", backward=True, read=BF16 * n * d + FP32 * vocab * d,
             written=BF16 * n * d + FP32 * vocab * d),
    ]  # fmt: skip


def product(name: str, n: int, inputs: int, outputs: int, calls: int = 1) -> list[Work]:
    """Count a linear layer by cuBLAS: forward, and the gradients of its input and of its weights."""
    x, y, flops = BF16 * n * inputs, BF16 * n * outputs, 2.0 * n * inputs * outputs
    w, dw = BF16 * inputs * outputs, FP32 * inputs * outputs
    return [
        Work(name=name, op="cublas", calls=calls, read=x + w, written=y, products=flops),
        Work(name=f"{name}, input's gradient", op="cublas", backward=True, calls=calls, read=y + w, written=x,
             products=flops),
        Work(name=f"{name}, weight's gradient", op="cublas", backward=True, calls=calls, read=x + y, written=dw,
             products=flops),
    ]  # fmt: skip


def elementwise(name: str, size: float, reads: int, writes: int, *, backward: bool = False, calls: int = 1) -> Work:
    """Count a pass of torch over ``reads`` tensors of ``size`` bytes that writes ``writes`` tensors."""
    return Work(name=name, op="torch", backward=backward, calls=calls, read=reads * size, written=writes * size,
                fp32=size / BF16 * (reads + writes))  # fmt: skip


def adamw(parameters: int, *, averaged: bool) -> list[Work]:
    """Count ``ops.adamw_``: parameter, two moments, the average; reads an fp32 gradient."""
    kept = 3 + averaged
    return [
        Work(name="AdamW", op="optim", read=FP32 * parameters * (kept + 1), written=FP32 * parameters * kept,
             fp32=(12.0 + 3 * averaged) * parameters, special=2.0 * parameters),
    ]  # fmt: skip


def newton_schulz_flops(rows: int, columns: int, steps: int) -> float:
    """Return the flops for one matrix, by three products per iteration: ``A = X X^T``, ``A^2``, ``(b A + c A^2) X``."""
    small, large = min(rows, columns), max(rows, columns)
    return steps * float(4 * small * small * large + 2 * small**3)


def muon(shape: Shape) -> list[Work]:
    """Count ``ops.muon_`` over the ranks: each orthogonalizes its share and updates every matrix."""
    parameters, share = shape.matrix_parameters, -(-shape.matrix_parameters // shape.gpus)
    flops = sum(newton_schulz_flops(r, c, shape.newton_schulz) for r, c in shape.matrices) / shape.gpus
    kept = 1 + shape.averaged
    return [
        Work(name="Muon: momentum", op="optim", read=2 * FP32 * share, written=(FP32 + BF16) * share, fp32=5.0 * share),
        Work(name="Muon: Newton-Schulz", op="optim", products=flops),  # a bank's matrices fit L2 one by one
        Work(name="Muon: apply", op="optim", read=(FP32 * kept + BF16) * parameters, written=FP32 * kept * parameters,
             fp32=(4.0 + 3 * shape.averaged) * parameters),
    ]  # fmt: skip


def collectives(shape: Shape) -> list[Work]:
    """Count the bytes over NVLink, by rings: each GPU sends all but its own part of every buffer."""
    if shape.gpus == 1:
        return []
    others = (shape.gpus - 1) / shape.gpus
    return [
        Work(name="gradients of matrices, reduce-scatter", op="nccl", link=FP32 * shape.matrix_parameters * others),
        Work(name="updates of matrices, all-gather", op="nccl", link=BF16 * shape.matrix_parameters * others),
        Work(name="other gradients, all-reduce", op="nccl", link=2 * FP32 * shape.others * others),
    ]


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


# --- a step -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Path:
    """The number of passes of each kind over the residual stream, through the layers of ``golfcore.model.gpt``.

    Attributes:
        plain, adding: first norms of a block, without and with an MLP's output that still has to be added.
        last_adds: whether the norm behind the last block adds such an output.
        sums: outputs that are added by a pass of their own, since a skip or a second lane needs the stream itself.
        skips, lanes: passes that a skip joins, and passes with two lanes.
    """

    plain: int = 0
    adding: int = 0
    last_adds: bool = False
    sums: int = 0
    skips: int = 0
    lanes: int = 0


def walk(shape: Shape) -> Path:
    """Count the passes over the stream; outputs of the first half come back in the second, the last one first."""
    path, waits, kept, half = Path(), False, 0, len(shape.order) // 2
    for place, layer in enumerate(shape.order):
        in_lanes = place >= half and (path.lanes > 0 or (shape.lanes_from > 0 and layer >= shape.lanes_from))
        pops = place >= half and kept > 0
        if waits and (pops or in_lanes):
            path.sums, waits = path.sums + 1, False
        path.skips += pops
        kept -= pops
        path.lanes += in_lanes
        path.adding += waits
        path.plain += not waits
        waits = not in_lanes
        if place < half and shape.skips != "none":
            path.sums, waits, kept = path.sums + 1, False, kept + 1
    path.last_adds = waits
    return path


def step_work(shape: Shape) -> list[Work]:
    """Count the whole step, as ``golfcore.model.gpt`` and ``golfcore.optim`` run it with torch.compile."""
    parts = [
        *_stream_work(shape, walk(shape)), *_layer_work(shape), *head(shape.tokens, shape.d, shape.vocab),
        *adamw(shape.others, averaged=shape.averaged), *muon(shape), *collectives(shape),
    ]  # fmt: skip
    if shape.clipped:
        size = FP32 * (shape.matrix_parameters / shape.gpus + shape.others)
        parts.append(elementwise("norm of the gradients", size, 1, 0))
    return [work for work in parts if work.calls]


def _stream_work(shape: Shape, path: Path) -> list[Work]:
    n, d, passes = shape.tokens, shape.d, len(shape.order)
    row = BF16 * n * d
    # Of x0 with every block that mixes it in, of a skip with the layer after it, of both lanes with their norms.
    meetings = passes * shape.mixed + path.skips + 2 * path.lanes
    return [
        *embed(n, d, shape.vocab),
        *norm(n, d, branch=False, mixed=False, calls=1 + path.lanes + (not path.last_adds), what=": plain"),
        *norm(n, d, branch=False, mixed=shape.mixed, calls=path.plain, what=": block's start"),
        *norm(n, d, branch=True, mixed=shape.mixed, calls=path.adding, what=": block's start, adding the MLP"),
        *norm(n, d, branch=True, mixed=False, calls=passes - path.lanes + path.last_adds, what=": after attention"),
        *residual(n, d, path.sums),
        elementwise("skips", row, 2, 1, calls=path.skips),
        elementwise("skips, gradient", row, 3, 2, backward=True, calls=path.skips),
        elementwise("lanes", row, 4, 2, calls=path.lanes),
        elementwise("lanes, gradient", row, 6, 4, backward=True, calls=path.lanes),
        elementwise("lanes: mean", row, 2, 1, calls=int(path.lanes > 0)),
        elementwise("gradients that meet", row, 2, 1, backward=True, calls=meetings),
    ]


def _layer_work(shape: Shape) -> list[Work]:
    n, d, passes = shape.tokens, shape.d, len(shape.order)
    gates = n * BF16 * (GATE_INPUTS + shape.heads)
    weights = d * (2 * d + 2 * shape.kv + 2 * shape.hidden)
    return [
        *product("q, k, v", n, d, d + 2 * shape.kv, passes),
        *qk(n, shape.heads, shape.kv_heads, shape.head_dim, passes),
        *attention(n, shape.heads, shape.kv_heads, shape.head_dim, shape.keys, gated=shape.gated, calls=passes),
        *product("o", n, d, d, passes),
        *product("up", n, d, shape.hidden, passes),
        *activation(n, shape.hidden, passes),
        *product("down", n, shape.hidden, d, passes),
        Work(name="weights to bf16", op="torch", calls=passes, read=FP32 * weights, written=BF16 * weights),
        elementwise("attention gate", gates, 1, 1, calls=passes * shape.gated),
        elementwise("attention gate, gradient", gates, 2, 1, backward=True, calls=passes * shape.gated),
    ]
