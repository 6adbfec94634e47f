"""Count the work of a GPT's whole training step on one GPU, by the counts of ``golfcore.bench.operations``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from golfcore.bench.operations import (
    BF16,
    FP32,
    QK_INSTRUCTIONS,
    QK_INSTRUCTIONS_WIDE,
    Work,
    activation,
    attention,
    elementwise,
    embed,
    fill,
    flash3,
    head,
    norm,
    product,
    qk,
    residual,
)
from golfcore.bench.segments import Segments, documents
from golfcore.config import RecipeConfig
from golfcore.errors import UsageError
from golfcore.model import get_family
from golfcore.model.gpt.config import GATE_INPUTS, GPTConfig, layer_order
from golfcore.ops.head import CHUNK_LOGITS_DEVICE
from golfcore.optim.shards import rows_by_round

# torch's passes of frontier_8xh100 without a compiler: bytes and launches, fixed and of each layer that runs; counted
# on meta tensors at its shapes (48.6 GB in 497 launches with 11 layers, 60.7 GB in 713 with 17).
EAGER_BYTES, EAGER_LAUNCHES = (26.4e9, 2.017e9), (101, 36)
DRAIN_S = 1.5e-3  # of a GPU at rest until the host's next launches: assumed, between 1 and 2 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """The ways in which a step does its work; the defaults are those of today's code, without FlashAttention-3.

    Attributes:
        compiled: torch's passes are fused by torch.compile.
        waits: in every step the host waits for the GPU before it launches the next one.
        chunk_logits: logits of a chunk of the head.
        adds_inside: the head's weight gradients are added up inside their product.
        narrow: q and k are prepared in 32-bit arithmetic.
        flash3: FlashAttention-3 serves attention.
    """

    compiled: bool = True
    waits: bool = False
    chunk_logits: int = CHUNK_LOGITS_DEVICE
    adds_inside: bool = True
    narrow: bool = True
    flash3: bool = False


TODAY = Ways()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a step: those of the GPT, one GPU's tokens, and the layers that run.

    Attributes:
        tokens: tokens of one GPU per step.
        order: layers in the order in which they run, repeats included.
        lanes_from: layers from here on have two lanes; 0 for none.
        skips: ``gated``, ``weighted`` or ``none``.
        segments: the lengths of the segments that attention keeps apart.
        matrices: rows and columns of every matrix that Muon updates.
        others: number of parameters that AdamW updates.
        other_tensors: number of tensors that they are in.
    """

    tokens: int
    d: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocab: int
    order: tuple[int, ...]
    segments: Segments
    lanes_from: int = 0
    skips: str = "none"
    mixed: bool = True
    gated: bool = False
    averaged: bool = False
    clipped: bool = False
    newton_schulz: int = 5
    matrices: tuple[tuple[int, int], ...] = ()
    others: int = 0
    other_tensors: int = 0
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
    most = min(train.seq_len, config.max_segment or train.seq_len)
    return Shape(
        tokens=train.batch_tokens // gpus, d=d, heads=config.num_heads, kv_heads=config.num_kv_heads,
        head_dim=config.head_dim, hidden=hidden, vocab=vocab, order=tuple(layer_order(config, phase)),
        segments=documents(most) if config.packed_documents else Segments((train.seq_len,)),
        lanes_from=config.lanes_from, skips=config.skips, mixed=config.resid_mix != "none",
        gated=config.attn_gate != "none", averaged=train.ema_decay > 0, clipped=recipe.optim.grad_clip_norm > 0,
        newton_schulz=recipe.optim.muon_backend_steps, matrices=layer * config.num_layers,
        others=sum(number for kind, number, _ in counts.values() if kind != "matrix"),
        other_tensors=_other_tensors(config), gpus=gpus,
    )  # fmt: skip


def _other_tensors(config: GPTConfig) -> int:
    """A layer's gain of q, scales of both branches, mix and gate; tables, and what smears, skips and lanes have."""
    layer = 3 + (config.resid_mix != "none") + (config.attn_gate != "none")
    smear = {"none": 0, "token": 2}.get(config.smear, 1)
    skips = {"none": 0, "weighted": 1, "gated": 2}[config.skips]
    return config.num_layers * layer + 2 - config.tie_embeddings + smear + skips + 2 * (config.lanes_from > 0)


# --- updates ----------------------------------------------------------------------------------------------------------


def adamw(parameters: int, *, averaged: bool) -> list[Work]:
    """Count ``ops.adamw_``: parameter, two moments, the average; reads an fp32 gradient."""
    kept = 3 + averaged
    return [
        Work(name="AdamW", op="optim", read=FP32 * parameters * (kept + 1), written=FP32 * parameters * kept,
             fp32=(12.0 + 3 * averaged) * parameters, special=2.0 * parameters),
    ]  # fmt: skip


def banks(shape: Shape) -> list[tuple[int, int, int, int]]:
    """Return rows, columns, matrices and the matrices that a rank holds at most, of each bank."""
    return [
        (rows, columns, count, sum(rows_by_round(count, FP32 * rows * columns, shape.gpus)))
        for (rows, columns), count in Counter(shape.matrices).items()
    ]


def muon(shape: Shape) -> list[Work]:
    """Count ``golfcore.optim`` on the rank with most matrices: its own are orthogonalized, all are updated.

    The products of an iteration, and each bank's, follow each other. They are small: two or three matrices at a time
    have no tiles for all multiprocessors.
    """
    held, parameters = banks(shape), shape.matrix_parameters
    share, kept, turns = sum(r * c * own for r, c, _, own in held), 1 + shape.averaged, shape.newton_schulz
    products = []
    for rows, columns, _, own in held:
        short, long = sorted((rows, columns))
        for name, depth, width in (("X X^T", long, short), ("polynomial", short, short), ("times X", short, long)):
            flops = 2.0 * own * short * depth * width
            products.append(
                Work(name=f"Muon: {name}, {rows} x {columns}", op="cublas", calls=turns, products=flops, ramps=1,
                     fill=fill(short, width, own))
            )  # fmt: skip
    return [
        Work(name="Muon: momentum", op="optim", read=2 * FP32 * share, written=(FP32 + BF16) * share, fp32=5.0 * share,
             launches=2 * len(held)),
        *products,
        Work(name="Muon: apply", op="optim", read=(FP32 * kept + BF16) * parameters, written=FP32 * kept * parameters,
             fp32=(4.0 + 3 * shape.averaged) * parameters,
             launches=sum(min(count, shape.gpus) for _, _, count, _ in held)),
    ]  # fmt: skip


def collectives(shape: Shape) -> list[Work]:
    """Count the bytes over NVLink, by rings: each GPU sends all but its own part of every buffer, padding included.

    Before them every gradient is copied into its buffer.
    """
    if shape.gpus == 1:
        return []
    others, held = (shape.gpus - 1) / shape.gpus, banks(shape)
    padded = sum(r * c * own * shape.gpus for r, c, _, own in held)
    rounds = sum(len(rows_by_round(count, FP32 * r * c, shape.gpus)) for r, c, count, _ in held)
    size = FP32 * (shape.matrix_parameters + shape.others)
    return [
        Work(name="gradients into their buffers", op="torch", read=size, written=size,
             launches=len(shape.matrices) + shape.other_tensors),
        Work(name="gradients of matrices, reduce-scatter", op="nccl", link=FP32 * padded * others, launches=rounds),
        Work(name="updates of matrices, all-gather", op="nccl", link=BF16 * padded * others, launches=len(held)),
        Work(name="other gradients, all-reduce", op="nccl", link=2 * FP32 * shape.others * others),
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


def step_work(shape: Shape, ways: Ways = TODAY) -> list[Work]:
    """Count the whole step, as ``golfcore.model.gpt`` and ``golfcore.optim`` run it."""
    passes = [*_stream_work(shape, walk(shape)), *_layer_work(shape, ways)]
    if not ways.compiled:
        passes = [*(work for work in passes if work.op != "torch"), _eager(len(shape.order))]
    parts = [
        *passes, *head(shape.tokens, shape.d, shape.vocab, ways.chunk_logits, adds_inside=ways.adds_inside),
        *adamw(shape.others, averaged=shape.averaged), *muon(shape), *collectives(shape),
    ]  # fmt: skip
    if shape.clipped:
        size = FP32 * (shape.matrix_parameters / shape.gpus + shape.others)
        parts.append(elementwise("norm of the gradients", size, 1, 0))
    if ways.waits:
        parts.append(Work(name="the host's next launches", op="host", launches=0, waited_s=DRAIN_S))
    return [work for work in parts if work.calls]


def _eager(passes: int) -> Work:
    moved, launches = (fixed + passes * each for fixed, each in (EAGER_BYTES, EAGER_LAUNCHES))
    return Work(name="torch's passes, not compiled", op="torch", read=moved, launches=round(launches))


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


def _layer_work(shape: Shape, ways: Ways) -> list[Work]:
    n, d, passes = shape.tokens, shape.d, len(shape.order)
    gates, gated = n * BF16 * (GATE_INPUTS + shape.heads), passes * shape.gated
    weights = d * (2 * d + 2 * shape.kv + 2 * shape.hidden)
    serve = flash3 if ways.flash3 else attention
    instructions = QK_INSTRUCTIONS if ways.narrow else QK_INSTRUCTIONS_WIDE
    return [
        *product("q", n, d, d, passes),
        *product("k", n, d, shape.kv, passes, adds=True),
        *product("v", n, d, shape.kv, passes, adds=True),
        *qk(n, shape.heads, shape.kv_heads, shape.head_dim, passes, instructions),
        *serve(n, shape.heads, shape.kv_heads, shape.head_dim, shape.segments, gated=shape.gated, calls=passes),
        *product("o", n, d, d, passes),
        *product("up", n, d, shape.hidden, passes),
        *activation(n, shape.hidden, passes),
        *product("down", n, shape.hidden, d, passes),
        Work(name="weights to bf16", op="torch", calls=passes, read=FP32 * weights, written=BF16 * weights, launches=6),
        Work(name="attention gate", op="torch", calls=gated, read=gates, written=gates, launches=2),
        Work(name="attention gate, gradient", op="torch", backward=True, calls=gated, read=2 * gates, written=gates,
             launches=3),
        elementwise("gate's gradient joins its input's", BF16 * n * d, 1, 1, backward=True, calls=gated),
    ]  # fmt: skip
