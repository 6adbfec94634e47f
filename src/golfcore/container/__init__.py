"""The container of packed models (docs/reference/formats.md): named tensors and a manifest in one file, bytes alone.

What the tensors mean is ``golfcore.artifact``'s business; nothing here knows models or imports torch.
"""

from golfcore.container.directory import TensorInfo
from golfcore.container.file import Container
from golfcore.container.tensors import Tensor
from golfcore.container.writing import encode, predict_size, write

__all__ = ["Container", "Tensor", "TensorInfo", "encode", "predict_size", "write"]
