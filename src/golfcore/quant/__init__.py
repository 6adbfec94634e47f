"""From a trained model to what is stored (docs/guides/quantization.md).

``rtn`` rounds, ``gptq`` rounds or searches a trellis with error feedback, ``lowbit`` makes ternary and binary matrices,
``lqer`` adds corrections, ``fit`` chooses steps for a number of bytes, ``qat`` shows the training what is to come,
``measure`` says what it cost.
"""

from golfcore.quant.codings import bits_and_clip, codings
from golfcore.quant.errors import error_rows
from golfcore.quant.size import LARGEST_STEP, group_bytes, predict_bytes
from golfcore.quant.state import quantize_state

__all__ = [
    "LARGEST_STEP", "bits_and_clip", "codings", "error_rows", "group_bytes", "predict_bytes", "quantize_state",
]  # fmt: skip
