"""The sections of a recipe: frozen dataclasses that check their own values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from golfcore.config.values import parse_value, require, words


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackConfig:
    """The rules of a contest: what has to fit into what."""

    name: str = "pocket"
    cap_bytes: int = 1_000_000  # code + weights, decimal
    train_s: float = 120.0  # everything that reads training data
    eval_s: float = 120.0

    def __post_init__(self) -> None:
        require(self.cap_bytes > 0, "track.cap_bytes", self.cap_bytes, "a positive number of bytes")
        require(self.train_s >= 0, "track.train_s", self.train_s, "seconds, 0 for no limit")
        require(self.eval_s > 0, "track.eval_s", self.eval_s, "positive seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where the tokens come from."""

    path: str = ""  # a prepared folder or one of contest shards; empty: prepared from text into the cache
    tokenizer: str = ""  # a tokenizer file; empty: the prepared folder's own
    vocab_size: int = 1024
    val_fraction: float = 0.07  # share of documents, chosen by their hash

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
    """Muon for matrices, Adam for the rest, with the contest's names and defaults (`techniques.md` 1b)."""

    matrix_lr: float = 0.04
    matrix_lr_late: float = 0.0  # of the second half of the layers; 0: the same
    tied_embed_lr: float = 0.05
    embed_lr: float = 0.6
    head_lr: float = 0.008
    scalar_lr: float = 0.04
    muon_momentum: float = 0.95
    muon_momentum_warmup_start: float = 0.85
    muon_momentum_warmup_steps: int = 500
    muon_backend_steps: int = 5
    muon_coefficients: Literal["quintic", "polar"] = "quintic"  # Jordan's fixed polynomial, or Polar Express's five
    muon_row_norm: bool = False  # each row of the update to norm 1 before it is orthogonalised (MuonEq-R)
    muon_weight_decay: float = 0.0  # every weight decay is decoupled: it shrinks weights by lr x decay
    embed_weight_decay: float = 0.0
    scalar_weight_decay: float = 0.0
    weight_decay_taper: float = 1.0  # share of the run after which every decay goes linearly to weight_decay_end of it
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
    """The loop: batch, clock, schedule, logging, checkpoints."""

    seed: int = 1337
    iterations: int = 20_000
    batch_tokens: int = 524_288  # a step, over all ranks
    micro_batch_tokens: int = 65_536  # a forward pass, on one rank
    seq_len: int = 1024
    # sequential: the stream as it is; shuffled: rows in a random order, anew each epoch; coprime: rows at a stride that
    # shares no divisor with their number, which needs no memory; random: rows from anywhere, with replacement
    order: Literal["sequential", "shuffled", "coprime", "random"] = "sequential"
    batch_ramp: tuple[int, ...] = ()  # smaller batches first: batch_ramp[i] tokens until ...
    batch_ramp_until: tuple[float, ...] = ()  # ... this share of the run, then the next, at last batch_tokens
    seq_ramp: tuple[int, ...] = ()  # shorter rows first, likewise
    seq_ramp_until: tuple[float, ...] = ()
    warmup_steps: int = 20  # to compile and allocate; state is restored after them, and they are off the clock
    warmdown_iters: int = 1200
    warmdown_fraction: float = 0.0  # share of the clock that decays; replaces warmdown_iters when above 0
    lr_floor: float = 0.0  # what the decay ends at, as a share of the full rate
    log_every: int = 200
    val_every: int = 0  # 0: only at the end
    checkpoint_every_s: float = 0.0  # 0: none
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto measures and the log says what it found
    compile: bool = False  # the loss under torch.compile; what fails to compile runs eagerly, and the log says so
    cuda_graphs: bool = False  # forward and backward replayed as CUDA graphs, likewise
    attention: Literal["auto", "own", "fa3", "sdpa"] = "auto"  # auto measures and the log says what it found
    ema_decay: float = 0.0  # the weights to keep are an exponential average; 0: off
    swa_start: float = 0.0  # the weights to keep are the mean of every swa_every-th step's from this share on; 0: off
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
    """How weights become symbols (docs/quantisation.md). A step is ``clip / (2^(bits-1) - 1)``, one a row."""

    method: Literal["rtn", "lite", "gptq"] = (
        "rtn"  # to nearest; the same with a search of the clip; with error feedback
    )
    matrix_bits: int = 6
    matrix_clip: Clip = "sigma"  # sigma: k standard deviations of the row; absmax; percentile
    matrix_k: float = 12.85
    embed_bits: int = 8
    embed_clip: Clip = "sigma"
    embed_k: float = 20.0
    group_k: tuple[str, ...] = ()  # "up=11.5": k of one group, or of one tensor by its name
    scales: Literal["log8", "fp16"] = "log8"  # log8: eight to the octave, coded in 2 to 3 bits a row; fp16: about 10
    coder: Literal["fast", "smallest"] = "fast"  # smallest: a few hundredths of a percent less, slower to decode
    # Matrices in one bit or three values, with a scale for each group of columns; what is no matrix as above.
    format: Literal["int", "ternary", "binary"] = "int"
    group: int = 128
    rest: Literal["fp16", "fp8"] = "fp16"  # small tensors; fp8: of ternary and binary models, and their embedding too
    # gptq
    states: int = 256  # of the trellis: 4 to 256; 0: each weight to its nearest symbol
    columns: bool = True  # a step of its own for each column
    rate: float = 0.05  # squared steps that a bit is worth
    damping: float = 0.01  # of the mean diagonal of a Hessian
    lqer_rank: int = 1  # rank of the correction that gptq tries for each matrix and keeps where it pays for its bytes
    calibration: Literal["train", "generated"] = "train"  # the Hessians' text: training data, or the model's own
    calibration_tokens: int = 32_768
    reserve_s: float = 0.0  # of the training clock, for Hessians from training data
    fit: bool = False  # choose k by group so that the whole file ends just below the cap
    margin: int = 0  # bytes below the cap that fit leaves free
    # quantisation-aware training: the forward pass sees weights as method rtn would store them, or with noise of a step
    qat: Literal["off", "ste", "noise"] = "off"
    qat_from: float = 0.0  # share of the clock that goes before it

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
    """``"up=11.5"`` -> ``("up", 11.5)``."""
    group, equals, text = entry.partition("=")
    value = parse_value(text)
    good = bool(equals and group) and isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
    require(good, "quant.group_k", entry, "GROUP=K, for example up=11.5")
    return group.strip(), float(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """How the score is read. The number it gives does not depend on ``batch_tokens`` or on the number of ranks."""

    context: int = 0  # tokens a window; 0: train.seq_len
    # Tokens scored a window after the first. 0: the whole window; auto: the finest that ends inside track.eval_s, from
    # the whole window down by halves. A smaller stride gives each token more context and takes more time.
    stride: int | Literal["auto"] = 0
    finest_stride: int = 64  # the smallest that auto takes
    batch_tokens: int = 0  # a forward pass; 0: 4,096 on a processor, 16,384 on a GPU

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
        """The stride of scores that are compared with each other, so that no clock may decide: auto is a quarter."""
        return max(1, context // 4) if self.stride == "auto" else self.stride


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeConfig:
    """A whole run. ``model`` holds the model family's own frozen dataclass (see ``golfcore.model``)."""

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
        """Seconds of the training clock that steps may use, 0 for no limit; Hessians of training text take the rest."""
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
