"""Quantize the weights of a trained model into small integers, called symbols, and scales.

docs/guides/quantization.md explains it. ``rtn`` rounds to nearest; ``gptq`` rounds with error feedback, or searches a
trellis code; ``lowbit`` makes ternary and binary matrices; ``lqer`` adds low-rank corrections; ``fit`` chooses step
sizes that fill a number of bytes; ``qat`` lets training see quantized weights; ``measure`` measures the loss.
"""

from golfcore.quant.codings import bits_and_clip, codings
from golfcore.quant.errors import error_rows
from golfcore.quant.size import LARGEST_STEP, group_bytes, predict_bytes
from golfcore.quant.state import quantize_state

__all__ = [
    "LARGEST_STEP", "bits_and_clip", "codings", "error_rows", "group_bytes", "predict_bytes", "quantize_state",
]  # fmt: skip
