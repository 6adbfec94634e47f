"""The sections of a recipe: frozen dataclasses that check their own values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from golfcore.config.values import parse_value, require, words


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackConfig:
    """The rules of a contest: the size of the file and the time for training and evaluation.

    Attributes:
        name: Name of the track. It appears in logs, reports and errors and has no other effect.
        cap_bytes: Largest size of the packed model in bytes: tokenizer, code and weights together. A megabyte is
            1,000,000 bytes.
        train_s: Seconds of wall clock that training may take, including everything else that reads training text. 0
            means no limit; then ``train.iterations`` ends the run.
        eval_s: Seconds of wall clock that evaluation may take. A stride of auto is chosen so that evaluation ends
            within them.
    """

    name: str = "pocket"
    cap_bytes: int = 1_000_000
    train_s: float = 120.0
    eval_s: float = 120.0

    def __post_init__(self) -> None:
        require(self.cap_bytes > 0, "track.cap_bytes", self.cap_bytes, "a positive number of bytes")
        require(self.train_s >= 0, "track.train_s", self.train_s, "seconds, 0 for no limit")
        require(self.eval_s > 0, "track.eval_s", self.eval_s, "positive seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The tokens that a run reads.

    Attributes:
        path: Folder with tokens, as ``golfcore data prepare`` writes it or with shards of the contest. If empty, the
            text given with ``--text``, or else the default text, is prepared into the cache.
        tokenizer: File of the tokenizer, a SentencePiece ``.model`` or a ``.bpe`` file. Shards of the contest need it;
            leave it empty for a prepared folder, which has its own.
        vocab_size: Number of tokens in the vocabulary, 260 to 65,536. It is the size of the tokenizer that is trained
            if text is prepared, and is checked against the tokenizer of contest shards.
        val_fraction: Share of the documents that is held out for validation, above 0 and below 1. The hash of a
            document decides, so the same document always goes to the same split. It has no effect on tokens that are
            already prepared.
    """

    path: str = ""
    tokenizer: str = ""
    vocab_size: int = 1024
    val_fraction: float = 0.07

    def __post_init__(self) -> None:
        require(
            260 <= self.vocab_size <= 65536,
            "data.vocab_size",
            self.vocab_size,
            "260 to 65536 (ids are uint16)",
        )
        require(0 < self.val_fraction < 1, "data.val_fraction", self.val_fraction, "a share between 0 and 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """The optimizers: Muon for matrices, AdamW for embeddings, the output head and vectors.

    Names and defaults are those of the contest's baseline. The learning rates are peak rates; the schedule of
    ``[train]`` multiplies all of them by the same factor. Weight decay is decoupled: per step it shrinks a weight by
    rate x decay.

    Attributes:
        matrix_lr: Peak learning rate of Muon, for the matrices of attention and MLP.
        matrix_lr_late: Peak learning rate of Muon in the second half of the layers. 0 means the same as ``matrix_lr``.
        tied_embed_lr: Peak learning rate of AdamW for the embedding table if it is also the output head.
        embed_lr: Peak learning rate of AdamW for the embedding table if the output head is a matrix of its own, that
            is, if ``model.tie_embeddings`` is false.
        head_lr: Peak learning rate of AdamW for the output head if it is a matrix of its own.
        scalar_lr: Peak learning rate of AdamW for everything that is neither a matrix nor a table: scales, gains and
            gates.
        muon_momentum: Momentum of Muon after its warm-up, at least 0 and below 1.
        muon_momentum_warmup_start: Momentum of Muon at the first step, from where it rises linearly to
            ``muon_momentum``.
        muon_momentum_warmup_steps: Number of steps over which the momentum of Muon rises. 0 means no warm-up.
        muon_backend_steps: Number of Newton-Schulz iterations that orthogonalize each update, 1 to 64, with polar
            coefficients at most 5.
        muon_coefficients: Polynomial of the Newton-Schulz iteration. quintic uses one fixed polynomial in every
            iteration (Keller Jordan), polar a different one in each of up to five (Polar Express, arXiv:2505.16932).
        muon_row_norm: Whether each row of an update is scaled to norm 1 before the update is orthogonalized (MuonEq-R).
        muon_weight_decay: Weight decay of the matrices that Muon trains. 0 means none.
        embed_weight_decay: Weight decay of the embedding tables and of the output head. 0 means none.
        scalar_weight_decay: Weight decay of scales, gains and gates. 0 means none.
        weight_decay_taper: Share of the run after which every weight decay changes linearly towards
            ``weight_decay_end`` times its value. 1 means that it never changes.
        weight_decay_end: Factor on every weight decay at the end of the run, 0 to 1, reached linearly from
            ``weight_decay_taper`` on.
        beta1: Decay of the first moment of AdamW, at least 0 and below 1.
        beta2: Decay of the second moment of AdamW, at least 0 and below 1.
        adam_eps: Constant that AdamW adds to the root of the second moment, so that it never divides by zero.
        grad_clip_norm: Largest norm of all gradients together, after averaging over ranks; larger gradients are scaled
            down to it. 0 means no clipping.
    """

    matrix_lr: float = 0.04
    matrix_lr_late: float = 0.0
    tied_embed_lr: float = 0.05
    embed_lr: float = 0.6
    head_lr: float = 0.008
    scalar_lr: float = 0.04
    muon_momentum: float = 0.95
    muon_momentum_warmup_start: float = 0.85
    muon_momentum_warmup_steps: int = 500
    muon_backend_steps: int = 5
    muon_coefficients: Literal["quintic", "polar"] = "quintic"
    muon_row_norm: bool = False
    muon_weight_decay: float = 0.0
    embed_weight_decay: float = 0.0
    scalar_weight_decay: float = 0.0
    weight_decay_taper: float = 1.0
    weight_decay_end: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.95
    adam_eps: float = 1e-8
    grad_clip_norm: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "matrix_lr",
            "tied_embed_lr",
            "embed_lr",
            "head_lr",
            "scalar_lr",
            "matrix_lr_late",
            "muon_weight_decay",
            "embed_weight_decay",
            "scalar_weight_decay",
            "grad_clip_norm",
        ):
            require(getattr(self, name) >= 0, f"optim.{name}", getattr(self, name), "0 or more")
        for name in ("muon_momentum", "muon_momentum_warmup_start", "beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"optim.{name}", getattr(self, name), "0 <= x < 1")
        require(1 <= self.muon_backend_steps <= 64, "optim.muon_backend_steps", self.muon_backend_steps, "1 to 64")
        require(
            self.muon_coefficients == "quintic" or self.muon_backend_steps <= 5,
            "optim.muon_backend_steps", self.muon_backend_steps, "at most 5, which is what Polar Express has",
        )  # fmt: skip
        for name in ("weight_decay_taper", "weight_decay_end"):
            require(0 <= getattr(self, name) <= 1, f"optim.{name}", getattr(self, name), "0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The training loop: batches, clock, schedule, logging, checkpoints and averaged weights.

    "Share of the run" is the share of the training clock that is spent or of the iterations that are done, whichever is
    larger.

    Attributes:
        seed: Seed of the initial weights, of the order of the text and of generated calibration text.
        iterations: Number of steps after which the run ends if the training clock has not ended it before.
        batch_tokens: Tokens per step over all ranks; a multiple of ``seq_len`` times the number of ranks.
        micro_batch_tokens: Most tokens per forward pass on one rank. A larger share of the batch is split and its
            gradients are summed, which saves memory.
        seq_len: Tokens per row of a batch, the context length in training.
        order: Order in which rows of text are read. sequential reads the text as it stands; shuffled visits all rows in
            a new random order in each epoch; coprime visits all rows at a stride that shares no divisor with their
            number, which needs no memory for the order; random draws rows from anywhere, with replacement.
        batch_ramp: Tokens per step in the early stages of the run, one number per stage; after the last stage
            ``batch_tokens`` applies. Empty means no ramp.
        batch_ramp_until: Share of the run at which each stage of ``batch_ramp`` ends, in rising order; as many numbers
            as in ``batch_ramp``.
        seq_ramp: Tokens per row in the early stages of the run, one number per stage; after the last stage ``seq_len``
            applies. Empty means no ramp.
        seq_ramp_until: Share of the run at which each stage of ``seq_ramp`` ends, in rising order; as many numbers as
            in ``seq_ramp``.
        warmup_steps: Steps per stage that run before the clock starts, to compile and to allocate memory. All weights
            and optimizer states are restored afterwards. 0 means none.
        warmdown_iters: Number of last steps over which the learning rates fall linearly, if ``warmdown_fraction`` is 0.
            Under a clock their duration is estimated from the mean step so far. 0 means constant rates.
        warmdown_fraction: Last share of the run over which the learning rates fall linearly, 0 to 1. Above 0 it
            replaces ``warmdown_iters``; 0 means that ``warmdown_iters`` applies.
        lr_floor: Learning rate below which the fall stops, as a share of the peak rate, 0 to 1. 0 means that rates fall
            to zero.
        log_every: Steps between two lines of the log with the training loss; the first ten steps are always logged.
        val_every: Steps between two measurements of the validation loss during training. 0 means none, only the score
            at the end.
        checkpoint_every_s: Seconds between two checkpoints, from which an interrupted run can go on. 0 means no
            checkpoints on the way.
        precision: Number format of activations. auto measures which one is faster on this machine and writes the choice
            into the log. Weights are fp32 either way.
        compile: Whether the loss runs under torch.compile. If compilation fails, the run goes on without it and the log
            says why.
        cuda_graphs: Whether forward and backward pass are replayed as CUDA graphs, which saves launch time on a GPU. If
            that fails, the run goes on without it and the log says why.
        attention: Implementation of attention: own is golfcore's kernel, fa3 FlashAttention 3, sdpa torch's. auto times
            them on the shapes of the run and writes the choice into the log.
        ema_decay: Decay per step of an exponential moving average of the weights, which replaces the weights at the
            end; 0.98 averages about the last 50 steps. 0 means no average.
        swa_start: Share of the run from which weights are averaged with equal weight (stochastic weight averaging);
            their mean replaces the weights at the end. 0 means no average. It excludes ``ema_decay``.
        swa_every: Steps between two weights that enter the mean of ``swa_start``.
    """

    seed: int = 1337
    iterations: int = 20_000
    batch_tokens: int = 524_288
    micro_batch_tokens: int = 65_536
    seq_len: int = 1024
    order: Literal["sequential", "shuffled", "coprime", "random"] = "sequential"
    batch_ramp: tuple[int, ...] = ()
    batch_ramp_until: tuple[float, ...] = ()
    seq_ramp: tuple[int, ...] = ()
    seq_ramp_until: tuple[float, ...] = ()
    warmup_steps: int = 20
    warmdown_iters: int = 1200
    warmdown_fraction: float = 0.0
    lr_floor: float = 0.0
    log_every: int = 200
    val_every: int = 0
    checkpoint_every_s: float = 0.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = False
    cuda_graphs: bool = False
    attention: Literal["auto", "own", "fa3", "sdpa"] = "auto"
    ema_decay: float = 0.0
    swa_start: float = 0.0
    swa_every: int = 50

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_tokens", "micro_batch_tokens", "seq_len", "log_every", "swa_every"):
            require(getattr(self, name) > 0, f"train.{name}", getattr(self, name), "1 or more")
        for name in ("warmup_steps", "warmdown_iters", "val_every", "checkpoint_every_s"):
            require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "0 or more")
        require(0 <= self.warmdown_fraction <= 1, "train.warmdown_fraction", self.warmdown_fraction, "0 to 1")
        require(0 <= self.lr_floor <= 1, "train.lr_floor", self.lr_floor, "0 to 1")
        for name in ("ema_decay", "swa_start"):
            require(0 <= getattr(self, name) < 1, f"train.{name}", getattr(self, name), "0 <= x < 1")
        require(
            not (self.ema_decay and self.swa_start), "train.swa_start", self.swa_start,
            "0 with train.ema_decay: one average is kept",
        )  # fmt: skip
        self._check_ramps()
        require(
            self.precision in ("auto", "bf16", "fp32"),
            "train.precision",
            self.precision,
            "auto, bf16 or fp32",
        )
        require(
            self.batch_tokens % self.seq_len == 0, "train.batch_tokens", self.batch_tokens,
            f"a multiple of train.seq_len = {self.seq_len}",
        )  # fmt: skip

    def _check_ramps(self) -> None:
        for name in ("batch_ramp", "seq_ramp"):
            values, until = getattr(self, name), getattr(self, f"{name}_until")
            require(all(v > 0 for v in values), f"train.{name}", values, "positive numbers of tokens")
            require(
                len(until) == len(values) and list(until) == sorted(set(until)) and all(0 < u < 1 for u in until),
                f"train.{name}_until", until, f"a rising share of the run for each of train.{name} = {values}",
            )  # fmt: skip


Clip = Literal["sigma", "absmax", "percentile"]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantConfig:
    """Quantization: how trained weights become small integers (docs/quantisation.md).

    A matrix is stored as integers times a step per row. The step of a row is ``clip / (2^(bits-1) - 1)``, so a larger
    clip means coarser steps, smaller files and larger errors. Methods rtn and lite cut weights beyond the clip; gptq
    keeps them, so there the clip only sets the step.

    Attributes:
        method: How integers are chosen. rtn rounds each weight to the nearest; lite does the same with the best of five
            clips per row; gptq corrects each rounding error in the columns that follow, which needs Hessians of
            calibration text.
        matrix_bits: Nominal bits per weight of matrices, 2 to 8, which together with the clip set the step. Integers
            are entropy-coded afterwards, which takes fewer bits.
        matrix_clip: What sets the clip of a row of a matrix: sigma is ``matrix_k`` standard deviations of the row,
            absmax its largest magnitude, percentile the 99.99984th percentile of its magnitudes.
        matrix_k: Clip of the rows of matrices in standard deviations of the row, if ``matrix_clip`` is sigma. Twice the
            value saves about one bit per weight.
        embed_bits: Nominal bits per weight of embedding tables and the output head, 2 to 8, as in ``matrix_bits``.
        embed_clip: What sets the clip of a row of an embedding table or the output head: sigma, absmax or percentile,
            as in ``matrix_clip``.
        embed_k: Clip of the rows of embedding tables and the output head in standard deviations of the row, if
            ``embed_clip`` is sigma.
        group_k: Exceptions from ``matrix_k`` and ``embed_k`` for a group of tensors or for one tensor by its name, for
            example ``["up=11.5"]``. Empty means none.
        scales: Number format of the steps per row. log8 rounds them to eight values per octave, which cost 2 to 3 bits
            per row; fp16 costs about 10 bits per row.
        coder: Entropy coder of the integers. smallest makes the file a few hundredths of a percent smaller than fast
            and takes longer to decode.
        format: Values that a weight of a matrix may take: int is an integer of ``matrix_bits`` bits, ternary one of
            three values, binary one of two. ternary and binary need method rtn and are meant to be trained with a
            ``qat`` of ste.
        group: Columns of a matrix that share one scale, with format ternary or binary. It must divide the number of
            columns.
        rest: Number format of small tensors such as gains and gates. fp8 holds only with format ternary or binary and
            then for embedding tables and the output head too.
        states: States of the trellis along which method gptq chooses integers: 4, 8, 16, 32, 64, 128 or 256. More
            states give smaller errors for the same bytes and take longer. 0 means no trellis: each weight goes to the
            nearest integer.
        columns: Whether method gptq gives each column a step of its own besides the steps of the rows. It costs 2 to 3
            bits per column.
        rate: How much squared error, in squared steps, method gptq accepts for one bit less. 0 means that only the
            error counts; above 0.1 results get worse.
        damping: Share of the mean diagonal of a Hessian that method gptq adds to its diagonal, so that it can be
            factorized.
        lqer_rank: Rank of the low-rank correction that method gptq tries for each matrix and keeps only if it is worth
            its bytes (LQER, arXiv:2402.02446). 0 means no corrections.
        calibration: Text from which method gptq computes Hessians: training text, or text that the trained model
            generates itself.
        calibration_tokens: Number of tokens of calibration text over all ranks, for the Hessians of method gptq.
        reserve_s: Seconds of the training clock that are kept free for computing Hessians from training text, with
            method gptq. 0 means that steps may use the whole clock.
        fit: Whether method gptq searches the steps of all tensors so that the whole file ends just below the cap. It
            replaces ``matrix_k``, ``embed_k`` and ``group_k``.
        margin: Bytes below the cap that the search of ``fit`` leaves free.
        qat: Quantization-aware training. ste lets the forward pass see each weight as it would be stored and passes
            gradients straight through; noise adds uniform noise of one step to each weight; off trains the weights as
            they are.
        qat_from: Share of the run after which quantization-aware training begins. 0 means from the first step.
    """

    method: Literal["rtn", "lite", "gptq"] = "rtn"
    matrix_bits: int = 6
    matrix_clip: Clip = "sigma"
    matrix_k: float = 12.85
    embed_bits: int = 8
    embed_clip: Clip = "sigma"
    embed_k: float = 20.0
    group_k: tuple[str, ...] = ()
    scales: Literal["log8", "fp16"] = "log8"
    coder: Literal["fast", "smallest"] = "fast"
    format: Literal["int", "ternary", "binary"] = "int"
    group: int = 128
    rest: Literal["fp16", "fp8"] = "fp16"
    states: int = 256
    columns: bool = True
    rate: float = 0.05
    damping: float = 0.01
    lqer_rank: int = 1
    calibration: Literal["train", "generated"] = "train"
    calibration_tokens: int = 32_768
    reserve_s: float = 0.0
    fit: bool = False
    margin: int = 0
    qat: Literal["off", "ste", "noise"] = "off"
    qat_from: float = 0.0

    def __post_init__(self) -> None:
        for role in ("matrix", "embed"):
            bits, k = getattr(self, f"{role}_bits"), getattr(self, f"{role}_k")
            require(2 <= bits <= 8, f"quant.{role}_bits", bits, "2 to 8")
            require(k > 0, f"quant.{role}_k", k, "a positive number of standard deviations")
        for name, known in words(QuantConfig).items():
            require(getattr(self, name) in known, f"quant.{name}", getattr(self, name), " or ".join(known))
        for entry in self.group_k:
            parse_group_k(entry)
        states = (0, 4, 8, 16, 32, 64, 128, 256)
        require(self.states in states, "quant.states", self.states, " or ".join(map(str, states)))
        for name, low in (("group", 1), ("calibration_tokens", 1), ("lqer_rank", 0), ("margin", 0)):
            require(getattr(self, name) >= low, f"quant.{name}", getattr(self, name), f"{low} or more")
        for name in ("rate", "damping", "reserve_s"):
            require(getattr(self, name) >= 0, f"quant.{name}", getattr(self, name), "0 or more")
        require(0 <= self.qat_from < 1, "quant.qat_from", self.qat_from, "a share of the clock, 0 <= x < 1")
        require(not self.fit or self.method == "gptq", "quant.fit", self.fit, 'false, or quant.method = "gptq"')
        whole = self.method == "rtn" or self.format == "int"
        require(whole, "quant.method", self.method, f'"rtn" with quant.format = {self.format!r}')


def parse_group_k(entry: str) -> tuple[str, float]:
    """Split ``"up=11.5"`` into the name of a group or tensor and its k."""
    group, equals, text = entry.partition("=")
    value = parse_value(text)
    good = bool(equals and group) and isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
    require(good, "quant.group_k", entry, "GROUP=K, for example up=11.5")
    return group.strip(), float(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """Evaluation: the windows of text in which a model is scored.

    The score does not depend on ``batch_tokens`` or on the number of ranks.

    Attributes:
        context: Tokens per window, the most that the model sees at once in evaluation. 0 means ``train.seq_len``.
        stride: Tokens that are scored per window; the rest of the window is context. A smaller stride gives each token
            more context and takes more time. 0 means the whole window without overlap. auto takes the finest stride
            that ends within ``track.eval_s``, out of the whole window, its half, its quarter and so on.
        finest_stride: Smallest stride in tokens that a stride of auto may take.
        batch_tokens: Tokens per forward pass in evaluation. It changes speed and memory only. 0 means 4,096 on a CPU
            and 16,384 on a GPU.
    """

    context: int = 0
    stride: int | Literal["auto"] = 0
    finest_stride: int = 64
    batch_tokens: int = 0

    def __post_init__(self) -> None:
        require(self.context >= 0, "eval.context", self.context, "0 or more")
        require(self.stride == "auto" or self.stride >= 0, "eval.stride", self.stride, "0 or more, or auto")
        require(self.finest_stride >= 1, "eval.finest_stride", self.finest_stride, "1 or more")
        require(self.batch_tokens >= 0, "eval.batch_tokens", self.batch_tokens, "0 or more")
        if self.context and self.stride != "auto":
            require(
                self.stride <= self.context,
                "eval.stride",
                self.stride,
                f"at most eval.context = {self.context}",
            )

    def fixed_stride(self, context: int) -> int:
        """Return the stride for scores that are compared: auto is a quarter, so that no clock decides."""
        return max(1, context // 4) if self.stride == "auto" else self.stride


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeConfig:
    """A whole run.

    Attributes:
        name: Name of the recipe, which appears in logs and reports and has no other effect. A recipe without it is
            called like its file.
        track: The rules of the contest.
        data: The tokens.
        model_family: Family of models that ``[model]`` configures, written as ``family`` in that section.
        model: The family's own frozen dataclass (see ``golfcore.model``).
        optim: The optimizers.
        train: The training loop.
        quant: The quantization.
        eval: The evaluation.
    """

    name: str
    track: TrackConfig = field(default_factory=TrackConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model_family: str = "gpt"
    model: Any = None
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    @property
    def steps_s(self) -> float:
        """Return the seconds of the clock that steps may use, 0 for no limit; Hessians take the rest."""
        reserve_s = self.quant.reserve_s if self.quant.method == "gptq" else 0.0
        if not reserve_s:
            return self.track.train_s
        return max(self.track.train_s - reserve_s, 0.01) if self.track.train_s else 0.0


SECTIONS: Mapping[str, type] = {
    "track": TrackConfig,
    "data": DataConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
    "quant": QuantConfig,
    "eval": EvalConfig,
}
