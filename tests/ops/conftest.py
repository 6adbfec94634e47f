"""These tests are about the kernels, whatever GOLF_OPS says."""

from collections.abc import Iterator

import pytest

from golfcore.ops import using


@pytest.fixture(autouse=True)
def native() -> Iterator[None]:
    with using("native"):
        yield
