"""The role of a parameter, which decides how it is trained, quantized and stored."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["matrix", "embedding", "head", "vector"]


class Role(NamedTuple):
    """The role of a parameter: ``kind`` decides its optimizer and its bits, ``group`` its chunk in the artifact.

    ``depth`` is the place of its layer, 0 for the first and towards 1 for the last; learning rates may depend on it.
    """

    kind: Kind
    group: str
    depth: float = 0.0
