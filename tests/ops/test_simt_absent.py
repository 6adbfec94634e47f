"""Without ``golfcore._simt``, as in every wheel, the rest works and the mode that needs it says what to do."""

import pytest

from golfcore.bench import resources
from golfcore.bench.launch_shapes import launches
from golfcore.bench.step_work import shape_of
from golfcore.errors import BuildError
from golfcore.ops import registry, using
from golfcore.recipes import load_recipe


@pytest.fixture(autouse=True)
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_simt", None)


def test_the_mode_says_how_to_build_it() -> None:
    with pytest.raises(BuildError, match="make simt"), using("simt"):
        pass
    with pytest.raises(BuildError, match="make simt"):
        launches(shape_of(load_recipe("frontier_8xh100", environment={}).config), tokens=256)


def test_resources_are_shown_without_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(resources, "built_kernels", lambda image: [image])
    monkeypatch.setattr(resources, "rows_of", lambda gpu, kernels, how: seen.append(how) or [gpu])
    assert resources.resources() == list(resources.GPUS)
    assert seen == [{}] * len(resources.GPUS)
