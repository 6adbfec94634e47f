"""The sections of a recipe: frozen dataclasses that check their own values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from golfcore.config.learning import OptimConfig, TrainConfig
from golfcore.config.quantization import QuantConfig
from golfcore.config.values import require, require_utf8
from golfcore.ranges import Seconds, SomeBytes, SomePart, SomeSeconds, SomeWindow, Tokens, Vocab, Window, check_fields

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
    cap_bytes: SomeBytes = 1_000_000
    train_s: Seconds = 120.0
    eval_s: SomeSeconds = 120.0

    def __post_init__(self) -> None:
        check_fields(self, "track")

    @property
    def plan_s(self) -> float:
        """Return the seconds by which all work on the training clock is planned to end, 0 for no limit.

        The margin is for what no plan knows: a step or a pass that the machine holds up.
        """
        return self.train_s - min(MARGIN_S, self.train_s / 12)


DATA_HASHES = ("text_sha256", "tokenizer_sha256", "tokens_sha256")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The tokens that a run reads.

    Attributes:
        path: Folder with tokens, as ``golfcore data prepare`` writes it or with shards of the contest. If empty, the
            text given with ``--text``, or else the default text, is prepared into the cache. A path that is not
            absolute is looked up from the working folder, also one in a recipe's file, and ``~`` at its start is the
            home folder; the config.toml of a run has the absolute path.
        tokenizer: File of the tokenizer, a SentencePiece ``.model`` or a ``.bpe`` file. Shards of the contest need it;
            leave it empty for a prepared folder, which has its own. It is looked up as ``path`` is.
        vocab_size: Number of tokens in the vocabulary, 260 to 65,536. It is the size of the tokenizer that is trained
            if text is prepared, and is checked against the tokenizer of contest shards.
        val_fraction: Share of the documents that is held out for validation, above 0 and below 1. The hash of a
            document decides, so the same document always goes to the same split. It has no effect on tokens that are
            already prepared.
        skip_invalid: Whether documents that are no text (not UTF-8, no JSON line with a text, half of a surrogate pair)
            are left out and counted. If false, the first one is an error. It has no effect on tokens that are already
            prepared.
        text: Files and folders of text that are prepared if ``path`` is empty and no ``--text`` is given. Empty means
            the default text. A run writes the text that it prepared here.
        tokens_sha256: Hash of the tokens and their tokenizer. Tokens with another hash are refused. Empty means any. A
            run writes the hash of its tokens here, so that each later stage reads the same.
        text_sha256: Hash of the documents of a prepared folder, written and checked like ``tokens_sha256``.
        tokenizer_sha256: Hash of the tokenizer, written and checked like ``tokens_sha256``.
    """

    path: str = ""
    tokenizer: str = ""
    vocab_size: Vocab = 1024
    val_fraction: SomePart = 0.07
    skip_invalid: bool = False
    text: tuple[str, ...] = ()
    tokens_sha256: str = ""
    text_sha256: str = ""
    tokenizer_sha256: str = ""

    def __post_init__(self) -> None:
        check_fields(self, "data")
        for name, value in (
            ("path", self.path),
            ("tokenizer", self.tokenizer),
            *(("text", path) for path in self.text),
        ):
            require_utf8(value, f"data.{name}")
        for name, value in self.identity().items():
            require(
                not value or (len(value) == 64 and not set(value) - set("0123456789abcdef")),
                f"data.{name}", value, "a SHA-256 as 64 hexadecimal digits",
            )  # fmt: skip

    def identity(self) -> dict[str, str]:
        """Return the hashes that identify the data, by the names of their keys; those that are empty fit any."""
        return {name: getattr(self, name) for name in DATA_HASHES}

    def with_identity(self, hashes: Mapping[str, str]) -> DataConfig:
        """Return a copy that holds these hashes; those that are not among them are empty."""
        text, tokenizer, tokens = (hashes.get(name, "") for name in DATA_HASHES)
        return replace(self, text_sha256=text, tokenizer_sha256=tokenizer, tokens_sha256=tokens)


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
        adapt: What the evaluation learns from tokens that it has already scored. mix counts them, and mixes the counts
            into the model's distribution of each later token. none scores the model as it was packed.
    """

    context: Window = 0
    stride: Window | Literal["auto"] = 0
    finest_stride: SomeWindow = 64
    batch_tokens: Tokens = 0
    adapt: Literal["none", "mix"] = "none"

    def __post_init__(self) -> None:
        check_fields(self, "eval")
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
