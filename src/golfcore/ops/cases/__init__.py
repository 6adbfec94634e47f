"""``OP_CASES``: every operation at every shape that matters, for opcheck, parity, gradcheck and bench."""

from golfcore.ops.cases.activation import CASES as ACTIVATION
from golfcore.ops.cases.attention import CASES as ATTENTION
from golfcore.ops.cases.attention_block import CASES as ATTENTION_BLOCK
from golfcore.ops.cases.base import Case
from golfcore.ops.cases.bitpack import CASES as BITPACK
from golfcore.ops.cases.embed import CASES as EMBED
from golfcore.ops.cases.head import CASES as HEAD
from golfcore.ops.cases.linear import CASES as LINEAR
from golfcore.ops.cases.norm import CASES as NORM
from golfcore.ops.cases.optim import CASES as OPTIM
from golfcore.ops.cases.qk import CASES as QK

OP_CASES: tuple[Case, ...] = (
    *ACTIVATION,
    *ATTENTION,
    *ATTENTION_BLOCK,
    *BITPACK,
    *EMBED,
    *HEAD,
    *LINEAR,
    *NORM,
    *OPTIM,
    *QK,
)

__all__ = ["OP_CASES", "Case"]
