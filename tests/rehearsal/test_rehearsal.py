"""The rehearsal in short: data from the stand-in hub, ranks of eight fake GPUs, and how a stage that fails ends it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import rehearse as rehearsal
import standin
from fake_step import fake_steps
from rehearse import UNSEEN, Broken, Journey, Skipped, Stage, places, rehearse

from golfcore.config import CONTEST_ENV
from golfcore.data.hub import fetch_fineweb
from golfcore.errors import UsageError
from golfcore.recipes import load_recipe

pytest.importorskip("sentencepiece")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``golfcore data get fineweb`` fills."""
    folder = tmp_path_factory.mktemp("rehearsal")
    said = standin.make_hub(folder / "hub")
    assert re.fullmatch(r"\d+ training and \d+ validation shards", said)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "huggingface_hub", standin.module())
        patch.setenv("REHEARSAL_HUB", str(folder / "hub"))
        fetch_fineweb("sp1024", folder / "data", shards=2)
    return folder


def test_the_recipes_find_the_stand_ins_data(data: Path) -> None:
    config = load_recipe(rehearsal.RECIPE, environment={}).config
    assert (config.data.path, config.data.tokenizer) == (rehearsal.SHARDS, rehearsal.MODEL)
    assert (data / rehearsal.SHARDS).is_dir()
    assert (data / rehearsal.MODEL).is_file()


@pytest.mark.parametrize("name", rehearsal.FAKED)
@pytest.mark.parametrize(("ranks", "place"), places(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_rank_on_a_fake_gpu(name: str, ranks: str, place: dict[str, str], data: Path, tmp_path: Path) -> None:
    said = fake_steps(name, data / rehearsal.SHARDS, data / rehearsal.MODEL, place, tmp_path)
    assert said.startswith(ranks if "of" in ranks else "rank 0 of 1")
    loops = load_recipe(name, environment={}).config.model.loop_starts
    assert f"a step of each of {1 + len(set(loops))} phases" in said


def test_the_size_of_the_world_comes_from_the_environment(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="RANK is set and WORLD_SIZE is not"):
        fake_steps(rehearsal.FAKED[0], data / rehearsal.SHARDS, data / rehearsal.MODEL, {"RANK": "7"}, tmp_path)


def test_a_stage_that_fails_ends_the_rehearsal() -> None:
    told: list[str] = []

    def broken() -> str:
        raise Broken("pip ended with 1")

    def wrong() -> str:
        raise AssertionError("a kernel spills")

    def faulty() -> str:
        return str({}["total"])

    def skipped() -> str:
        raise Skipped("no such command")

    fine, later = Stage("fine", lambda: "three\nlines\nof text"), Stage("later", lambda: pytest.fail("it was reached"))
    assert rehearse([fine, Stage("not here", skipped)], told.append) == 0
    assert told[-1] == "\nevery stage that could be tried went well"
    for failing, said in ((broken, "pip ended with 1"), (wrong, "a kernel spills"), (faulty, "KeyError: 'total'")):
        told.clear()
        assert rehearse([fine, Stage("failing", failing), later], told.append) == 1
        assert told[1].startswith("failed   failing")
        assert told[1].endswith(said)
        assert any(line.split()[:3] == ["later", "not", "reached"] for line in told)
        assert told[-1] == "\nfailed: failing"
        assert all(f"- {line}" in told for line in UNSEEN)


def test_a_command_that_fails_leaves_its_last_lines(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('out'); sys.exit('the reason')"]
    with pytest.raises(Broken, match=r"ended with 1; all of it is in .*log\nthe reason"):
        rehearsal.run(command, tmp_path, os.environ, tmp_path / "log")
    assert "out\nthe reason" in (tmp_path / "log").read_text()
    assert rehearsal.run([sys.executable, "-c", "print(5)"], tmp_path, os.environ, tmp_path / "log") == "5\n"


def test_the_stages_are_the_journey_and_their_environment_is_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    journey = Journey(tmp_path, "OFF", "cpu")
    names = [stage.name for stage in journey.stages()]
    assert len(set(names)) == len(names)
    for name in ("wheel", "import", "get data", "train, killed", "resume", "quantize", "pack", "evaluate"):
        assert name in names
    assert sum(name.startswith("fake ") for name in names) == len(rehearsal.FAKED) * len(rehearsal.RANKS)
    assert journey.environment["PYTHONPATH"] == str(tmp_path / "standin")
    assert "ITERATIONS" in CONTEST_ENV  # by which the two ranks' run is cut
