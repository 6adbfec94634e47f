"""The role of a parameter: how it is trained, quantized and stored."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["matrix", "embedding", "head", "vector"]


class Role(NamedTuple):
    """What a parameter is: ``kind`` decides its optimizer and its bits, ``group`` its chunk in the artifact.

    ``depth`` is its layer's place, 0 for the first and towards 1 for the last: rates may differ by depth.
    """

    kind: Kind
    group: str
    depth: float = 0.0
