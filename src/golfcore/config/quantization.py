"""The section of a recipe that says how weights become symbols: [quant]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from golfcore.config.values import parse_value, require, words
from golfcore.ranges import SOME_FACTOR, Bytes, Factor, Part, Positive, Range, Seconds, Size, SomeFactor, check_fields

Bits = Annotated[int, Range(2, 8)]
Clip = Literal["sigma", "absmax", "percentile"]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantConfig:
    """Quantization: how trained weights become small integers (docs/guides/quantization.md).

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
            method gptq. At least as much is kept as one pass over calibration text took in the warm-up.
        fit: Whether method gptq searches the steps of all tensors so that the whole file ends just below the cap. It
            replaces ``matrix_k``, ``embed_k`` and ``group_k``.
        margin: Bytes below the cap that the search of ``fit`` leaves free.
        qat: Quantization-aware training. ste lets the forward pass see each weight as it would be stored and passes
            gradients straight through; noise adds uniform noise of one step to each weight; off trains the weights as
            they are.
        qat_from: Share of the run after which quantization-aware training begins. 0 means from the first step.
    """

    method: Literal["rtn", "lite", "gptq"] = "rtn"
    matrix_bits: Bits = 6
    matrix_clip: Clip = "sigma"
    matrix_k: SomeFactor = 12.85
    embed_bits: Bits = 8
    embed_clip: Clip = "sigma"
    embed_k: SomeFactor = 20.0
    group_k: tuple[str, ...] = ()
    scales: Literal["log8", "fp16"] = "log8"
    coder: Literal["fast", "smallest"] = "fast"
    format: Literal["int", "ternary", "binary"] = "int"
    group: Positive = 128
    rest: Literal["fp16", "fp8"] = "fp16"
    states: Annotated[int, Range(0, 256)] = 256
    columns: bool = True
    rate: Factor = 0.05
    damping: Factor = 0.01
    lqer_rank: Size = 1
    calibration: Literal["train", "generated"] = "train"
    calibration_tokens: Positive = 32_768
    reserve_s: Seconds = 0.0
    fit: bool = False
    margin: Bytes = 0
    qat: Literal["off", "ste", "noise"] = "off"
    qat_from: Part = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "quant")
        for name, known in words(QuantConfig).items():
            require(getattr(self, name) in known, f"quant.{name}", getattr(self, name), " or ".join(known))
        for entry in self.group_k:
            parse_group_k(entry)
        states = (0, 4, 8, 16, 32, 64, 128, 256)
        require(self.states in states, "quant.states", self.states, " or ".join(map(str, states)))
        require(not self.fit or self.method == "gptq", "quant.fit", self.fit, 'false, or quant.method = "gptq"')
        whole = self.method == "rtn" or self.format == "int"
        require(whole, "quant.method", self.method, f'"rtn" with quant.format = {self.format!r}')

    @property
    def reads_training_text(self) -> bool:
        """Return whether the symbols depend on training text, so that reading it belongs to the training clock."""
        return self.method == "gptq" and self.calibration == "train"


def parse_group_k(entry: str) -> tuple[str, float]:
    """Split ``"up=11.5"`` into the name of a group or tensor and its k."""
    group, equals, text = entry.partition("=")
    value = parse_value(text)
    require(bool(equals and group) and value in SOME_FACTOR, "quant.group_k", entry, "GROUP=K, for example up=11.5")
    return group.strip(), float(value)
