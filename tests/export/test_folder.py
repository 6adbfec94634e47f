"""An entry from a run of every shipped recipe, cut small: its script gives golfcore's score without golfcore."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import golfcore
from golfcore.artifact.model_io import load_model
from golfcore.cli import main
from golfcore.contest.logs import final_score, parse_log
from golfcore.data.tokens import open_run
from golfcore.errors import InputError, UsageError
from golfcore.export.folder import Entry, export_run
from golfcore.export.papers import schema
from golfcore.export.trial import TOLERANCE, fp32_score, run_alone
from golfcore.pipeline.config import read_config
from golfcore.recipes import recipe_names
from golfcore.training.runlog import read_json

LOOPED = {"model__loop_layers": "1", "model__loop_starts": [0.5], "model__lanes_from": 2}
CHANGES: dict[str, dict[str, Any]] = {
    "frontier_8xh100": {**LOOPED, "quant__coder": "smallest"},
    "smoke_1gpu": LOOPED,
    "ternary": {"quant__group": 32},
    "binary": {"quant__group": 32},
}


@pytest.mark.parametrize("recipe", recipe_names())
def test_the_script_of_every_recipe_gives_golfcores_score(
    recipe: str, finished: Callable[..., Path], tmp_path: Path
) -> None:
    entry = export_run(finished(recipe, **CHANGES.get(recipe, {})), tmp_path / "entry")
    assert entry.trial is not None and entry.trial["difference"] <= TOLERANCE
    assert entry.facts["bytes_code"] == (tmp_path / "entry/train_gpt.py").stat().st_size
    assert entry.total == entry.facts["bytes_code"] + (tmp_path / "entry/model.golf").stat().st_size
    assert (tmp_path / "entry/train_gpt.py").read_text().isascii()


@pytest.fixture(scope="module")
def entry(finished: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Entry]:
    run_dir = finished("pocket")
    return run_dir, export_run(run_dir, tmp_path_factory.mktemp("entries") / "entry", tried=False, author="A. Person")


@pytest.mark.parametrize("recipe", ["pocket", "ternary"])
def test_the_script_trains_a_model_that_golfcore_reads(
    recipe: str, finished: Callable[..., Path], tmp_path: Path
) -> None:
    run_dir = finished(recipe, **CHANGES.get(recipe, {}))
    export_run(run_dir, tmp_path / "entry", tried=False)
    _, tokens = open_run(read_config(run_dir))
    printed = run_alone(tmp_path / "entry/train_gpt.py", tokens, "", ["--precision", "float32"], tmp_path)
    made, events = tmp_path / "final_model.golf", parse_log(printed)
    assert load_model(made).manifest["recipe"] == recipe
    own = fp32_score(made, tokens, read_json(run_dir / "score.json", dict) | {"precision": "bfloat16"}, 0)
    assert final_score(events)["val_bpb"] == pytest.approx(own, abs=TOLERANCE)  # type: ignore[index]
    ours = [e["train_loss"] for e in parse_log((run_dir / "log.txt").read_text()) if e["kind"] == "train"]
    theirs = [e["train_loss"] for e in events if e["kind"] == "train"]
    assert theirs == pytest.approx(ours, abs=2e-3)  # the same batches, weights and updates, step by step


def test_the_papers_say_what_the_run_says(entry: tuple[Path, Entry]) -> None:
    run_dir, made = entry
    names = {path.name for path in made.folder.iterdir()}
    assert names == {
        "README.md", "submission.json", "train_gpt.py", "model.golf", "requirements.txt", "train_seed1337.log"
    }  # fmt: skip
    papers = json.loads((made.folder / "submission.json").read_text())
    score = read_json(run_dir / "score.json", dict)
    assert papers["val_bpb"] == score["val_bpb"] and papers["author"] == "A. Person" and papers["github_id"] == "TODO"
    assert papers["bytes_total"] == papers["bytes_code"] + papers["bytes_model"] == made.total
    assert f"{score['val_bpb']:.8f}" in (made.folder / "README.md").read_text()
    assert final_score(parse_log((made.folder / "train_seed1337.log").read_text())) is not None


def test_submission_json_keeps_to_its_schema(entry: tuple[Path, Entry]) -> None:
    papers, about = json.loads((entry[1].folder / "submission.json").read_text()), schema()
    kinds = {"string": str, "number": (int, float), "integer": int, "array": list, "object": dict}
    assert set(about["required"]) <= set(papers) == set(about["properties"])
    for key, value in papers.items():
        assert isinstance(value, kinds[about["properties"][key]["type"]]), key


def test_the_command_says_if_the_entry_is_above_the_cap(
    finished: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = finished("pocket", track__cap_bytes=40_000)
    assert main(["export", str(run_dir), "-o", str(tmp_path / "entry"), "--no-try", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["fits"] and found["bytes_total"] > found["bytes_cap"] == 40_000
    assert "above the cap" in (tmp_path / "entry/README.md").read_text()


def test_a_run_that_was_not_scored_or_an_old_folder_is_refused(entry: tuple[Path, Entry], tmp_path: Path) -> None:
    run_dir, made = entry
    with pytest.raises(InputError, match="not an empty folder"):
        export_run(run_dir, made.folder, tried=False)
    (tmp_path / "config.toml").write_bytes((run_dir / "config.toml").read_bytes())
    with pytest.raises(InputError, match="was not scored"):
        export_run(tmp_path, tmp_path / "entry")
    assert not (tmp_path / "entry").exists()


def test_a_family_without_an_exporter_is_refused(
    entry: tuple[Path, Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("golfcore.export.folder.FAMILIES", ("other",))
    with pytest.raises(UsageError, match="family 'gpt'"):
        export_run(entry[0], tmp_path / "entry")


def test_golfcore_cannot_be_imported_where_a_script_is_tried(entry: tuple[Path, Entry], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import golfcore")
    tokens = open_run(read_config(entry[0]))[1]
    with pytest.raises(golfcore.errors.RuleError, match="golfcore is not here"):
        run_alone(tmp_path / "script.py", tokens, "", [])
