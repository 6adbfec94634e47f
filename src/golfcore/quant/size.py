"""Predict the bytes that quantized weights take, from their shapes."""

from __future__ import annotations

from golfcore.config import QuantConfig, parse_group_k
from golfcore.model import Family
from golfcore.quant.codings import bits_and_clip
from golfcore.quant.matrix import gaussian_bits

SCALE_BYTES = {"log8": 0.4, "fp16": 1.3}  # a row: measured 2.1 to 3.2 and about 10 bits
LARGEST_STEP = 2.0  # standard deviations: 1.2 bits per weight, where the search for k ends


def predict_bytes(family: Family, model_config: object, vocab_size: int, config: QuantConfig) -> int:
    """Predict the bytes of the weights before training: Gaussian rows at their entropy; absmax is taken as 4 sigma.

    The coders come within 0.1 % of that entropy, and below it if columns differ. With ``quant.fit`` the prediction is
    the least number of bytes that the search would go to.
    """
    step = LARGEST_STEP if config.fit else 0.0
    counts = family.counts(model_config, vocab_size).items()
    return round(sum(group_bytes(group, *count, config, step=step) for group, count in counts))


def group_bytes(
    group: str, kind: str, parameters: int, rows: int, config: QuantConfig, *, step: float = 0.0, sigmas: float = 4.0,
    row_bytes: float = -1.0,
) -> float:  # fmt: skip
    """Return the bytes that a group of parameters takes if its rows are Gaussian.

    Args:
        group, kind, parameters, rows: as in ``Family.counts``.
        config: the quantizer's settings.
        step: step size in standard deviations of a row, if the search chose one; 0: from the config.
        sigmas: standard deviations at which absmax and percentile clip.
        row_bytes: bytes per row's scale; below 0: as measured.
    """
    bits, clip, k = bits_and_clip(kind, config, group)
    if bits == 0:
        return (1 if config.rest == "fp8" and config.format != "int" else 2) * parameters
    if kind == "matrix" and config.format != "int":
        return parameters * (1.585 if config.format == "ternary" else 1.0) / 8 + 2 * parameters / config.group
    if step:
        k = step * ((1 << (bits - 1)) - 1)
    else:
        k = dict(map(parse_group_k, config.group_k)).get(group, k if clip == "sigma" else sigmas)
    return parameters * gaussian_bits(bits, k) / 8 + (SCALE_BYTES[config.scales] if row_bytes < 0 else row_bytes) * rows
