"""The operations between the matrix products, each with a reference in plain torch and native kernels.

Shapes: B batch, T time, N tokens or heads, D model width, H head width, K key/value heads, V vocabulary.
"""

from golfcore.ops.activation import leaky2, relu2
from golfcore.ops.attention import attention
from golfcore.ops.bitpack import dequantize, fake_quantize, pack, packed_linear, row_bytes, unpack
from golfcore.ops.embed import embed
from golfcore.ops.head import linear_cross_entropy
from golfcore.ops.linear import linear
from golfcore.ops.norm import mix_norm, rms_norm
from golfcore.ops.optim import POLAR_EXPRESS, QUINTIC, adamw_, muon_, muon_apply_, muon_update, orthogonalize
from golfcore.ops.qk import qk
from golfcore.ops.registry import backends, using
from golfcore.ops.residual import residual

__all__ = [
    "POLAR_EXPRESS",
    "QUINTIC",
    "adamw_",
    "attention",
    "backends",
    "dequantize",
    "embed",
    "fake_quantize",
    "leaky2",
    "linear",
    "linear_cross_entropy",
    "mix_norm",
    "muon_",
    "muon_apply_",
    "muon_update",
    "orthogonalize",
    "pack",
    "packed_linear",
    "qk",
    "relu2",
    "residual",
    "rms_norm",
    "row_bytes",
    "unpack",
    "using",
]
