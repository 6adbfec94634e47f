"""The sections of a recipe: frozen dataclasses that check their own values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from golfcore.config.learning import OptimConfig, TrainConfig
from golfcore.config.quantization import QuantConfig
from golfcore.config.values import require

MARGIN_S = 0.25  # seconds of the training clock that no work is planned for


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackConfig:
    """The rules of a contest: the size of the file and the time for training and evaluation.

    Attributes:
        name: Name of the track. It appears in logs, reports and errors and has no other effect.
        cap_bytes: Largest size of the packed model in bytes: tokenizer, code and weights together. A megabyte is
            1,000,000 bytes.
        train_s: Seconds of wall clock that training may take, including everything else that reads training text and
            changes the model. 0 means no limit; then ``train.iterations`` ends the run. The last 0.25 s, or a twelfth
            of a clock below 3 s, stay unused.
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

    @property
    def plan_s(self) -> float:
        """Return the seconds by which all work on the training clock is planned to end, 0 for no limit.

        The margin is for what no plan knows: a step or a pass that the machine holds up.
        """
        return self.train_s - min(MARGIN_S, self.train_s / 12)


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
        """Return the seconds of the clock that steps may use, 0 for no limit; Hessians and a margin take the rest."""
        plan_s, reserve_s = self.track.plan_s, self.quant.reserve_s if self.quant.reads_training_text else 0.0
        return max(plan_s - reserve_s, min(0.01, plan_s))


SECTIONS: Mapping[str, type] = {
    "track": TrackConfig,
    "data": DataConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
    "quant": QuantConfig,
    "eval": EvalConfig,
}
