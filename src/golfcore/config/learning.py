"""The sections of a recipe that say how a model learns: [optim] and [train]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from golfcore.config.values import require
from golfcore.ranges import (
    Count,
    Factor,
    Part,
    Positive,
    Range,
    Seconds,
    Seed,
    Share,
    SomeFactor,
    SomePart,
    SomeTokens,
    SomeWindow,
    check_fields,
)


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

    matrix_lr: Factor = 0.04
    matrix_lr_late: Factor = 0.0
    tied_embed_lr: Factor = 0.05
    embed_lr: Factor = 0.6
    head_lr: Factor = 0.008
    scalar_lr: Factor = 0.04
    muon_momentum: Part = 0.95
    muon_momentum_warmup_start: Part = 0.85
    muon_momentum_warmup_steps: Count = 500
    muon_backend_steps: Annotated[int, Range(1, 64)] = 5
    muon_coefficients: Literal["quintic", "polar"] = "quintic"
    muon_row_norm: bool = False
    muon_weight_decay: Factor = 0.0
    embed_weight_decay: Factor = 0.0
    scalar_weight_decay: Factor = 0.0
    weight_decay_taper: Share = 1.0
    weight_decay_end: Share = 1.0
    beta1: Part = 0.9
    beta2: Part = 0.95
    adam_eps: SomeFactor = 1e-8
    grad_clip_norm: Factor = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "optim")
        require(
            self.muon_coefficients == "quintic" or self.muon_backend_steps <= 5,
            "optim.muon_backend_steps", self.muon_backend_steps, "at most 5, which is what Polar Express has",
        )  # fmt: skip


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
            the capture fails, the run ends before its clock starts. On a CPU it has no effect.
        require_gpu: Whether the run refuses to start unless golfcore's kernels on a GPU serve every operation. Set it
            to false to run a recipe for GPUs on a CPU or by plain torch all the same, which is far slower.
        attention: Implementation of attention: own is golfcore's kernel, fa3 FlashAttention 3, sdpa torch's. auto times
            them on the shapes of the run and writes the choice into the log.
        ema_decay: Decay per step of an exponential moving average of the weights, which replaces the weights at the
            end; 0.98 averages about the last 50 steps. 0 means no average.
        swa_start: Share of the run from which weights are averaged with equal weight (stochastic weight averaging);
            their mean replaces the weights at the end. 0 means no average. It excludes ``ema_decay``.
        swa_every: Steps between two weights that enter the mean of ``swa_start``.
    """

    seed: Seed = 1337
    iterations: Positive = 20_000
    batch_tokens: SomeTokens = 524_288
    micro_batch_tokens: SomeTokens = 65_536
    seq_len: SomeWindow = 1024
    order: Literal["sequential", "shuffled", "coprime", "random"] = "sequential"
    batch_ramp: tuple[SomeTokens, ...] = ()
    batch_ramp_until: tuple[SomePart, ...] = ()
    seq_ramp: tuple[SomeWindow, ...] = ()
    seq_ramp_until: tuple[SomePart, ...] = ()
    warmup_steps: Count = 20
    warmdown_iters: Count = 1200
    warmdown_fraction: Share = 0.0
    lr_floor: Share = 0.0
    log_every: Positive = 200
    val_every: Count = 0
    checkpoint_every_s: Seconds = 0.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = False
    cuda_graphs: bool = False
    require_gpu: bool = False
    attention: Literal["auto", "own", "fa3", "sdpa"] = "auto"
    ema_decay: Part = 0.0
    swa_start: Part = 0.0
    swa_every: Positive = 50

    def __post_init__(self) -> None:
        check_fields(self, "train")
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
            require(
                len(until) == len(values) and list(until) == sorted(set(until)),
                f"train.{name}_until", until, f"a rising share of the run for each of train.{name} = {values}",
            )  # fmt: skip
