"""The file format GCF1 (docs/reference/formats.md): named tensors and a manifest, coded in few bytes.

Nothing here knows models or imports torch; ``golfcore.artifact`` knows what the tensors mean.
"""

from golfcore.container.directory import TensorInfo
from golfcore.container.file import Container
from golfcore.container.tensors import Tensor
from golfcore.container.writing import encode, predict_size, write

__all__ = ["Container", "Tensor", "TensorInfo", "encode", "predict_size", "write"]
