"""The recipes that come with golfcore: shown, compared, and each run whole at a reduced size."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from golfcore.cli import main
from golfcore.cli.run import closing_panel
from golfcore.data.tokens import open_tokens, prepare_data
from golfcore.errors import UsageError
from golfcore.model import get_family
from golfcore.pipeline.config import check_fits
from golfcore.pipeline.score import score_artifact, validation_of
from golfcore.pipeline.start import Start
from golfcore.pipeline.whole import run_stages
from golfcore.ranks.world import World
from golfcore.recipes import load_recipe, recipe_names, recipe_text
from golfcore.run_folder import METRICS
from golfcore.training.runlog import read_metrics

# Small enough for a second or two; everything that makes a recipe what it is stays.
REDUCED = (
    "track.train_s=0", "data.path=", "data.tokenizer=", "data.vocab_size=260", "model.model_dim=96",
    "train.batch_tokens=256", "train.micro_batch_tokens=128", "train.seq_len=64", "train.warmup_steps=1",
    "train.iterations=10", "train.log_every=1", "train.compile=false", "eval.context=64", "eval.batch_tokens=1024",
    "quant.group=32",
)  # fmt: skip


def reduced(name: str) -> list[str]:
    full = load_recipe(name, environment={}).config
    model = full.model
    sets = [*REDUCED, f"eval.finest_stride={math.ceil(full.eval.finest_stride / 4)}"]
    if full.eval.stride != "auto":
        sets.append(f"eval.stride={math.ceil(full.eval.stride / 4)}")
    sets += [f"model.num_heads={min(8, model.num_heads)}", "train.require_gpu=false"]
    if model.rope_dims:
        sets.append("model.rope_dims=4")
    if model.max_segment:
        sets.append("model.max_segment=16")
    if full.train.batch_ramp:
        sets.append(f"train.batch_ramp={[128] * len(full.train.batch_ramp)}")
    if full.train.seq_ramp:
        sets.append(f"train.seq_ramp={[32] * len(full.train.seq_ramp)}")
    return sets


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_runs_from_text_to_score(
    name: str, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path / "cache"))
    config = prepare_data(load_recipe(name, environment={}, sets=reduced(name)).config, [text_file])
    world = World(rank=0, size=1, device=torch.device("cpu"))
    tokens = open_tokens(config.data.path)

    def evaluate(artifact: Path) -> dict[str, object]:
        return score_artifact(artifact, validation_of(tokens), world, batch_tokens=1024)

    result = run_stages(Start(tmp_path / "run", config), world, evaluate)
    assert result is not None and 0 < result.score["val_bpb"] < 8.5
    log = (tmp_path / "run" / "log.txt").read_text()
    mixed = config.eval.adapt == "mix"
    assert (result.score["adapt"] == "mix", "eval_adapt:mix" in log) == (mixed, mixed)
    shown = Console(width=100, file=io.StringIO(), record=True)
    shown.print(closing_panel(result))
    assert ("are mixed in" in shown.export_text()) == mixed
    assert log.count("stage: ") == len(set(config.model.loop_starts)) + len(config.train.batch_ramp)
    assert sum(row["kind"] == "train" for row in read_metrics(tmp_path / "run" / METRICS)) == 10


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_says_what_it_is_and_fits_its_cap(name: str) -> None:
    text = recipe_text(name)
    assert text.startswith("# ")
    config = load_recipe(name, environment={}).config
    assert config.name == name
    assert check_fits(config, config.data.vocab_size) < 1.02 * config.track.cap_bytes


def test_a_stride_is_a_number_or_auto() -> None:
    def stride(value: str, **environment: str) -> int | str:
        sets = [f"eval.stride={value}"] if value else []
        return load_recipe("pocket_frontier", environment=environment, sets=sets).config.eval.stride

    assert (stride(""), stride("64"), stride("auto"), stride("", EVAL_STRIDE="32")) == ("auto", 64, "auto", 32)
    wrong = (("aut", "or auto; did you mean 'auto'"), ("-1", "0 to 1,048,576"), ("1.5", "a whole number"))
    for value, said in wrong:
        with pytest.raises(UsageError, match=said):
            stride(value)
    config = load_recipe("pocket_frontier", environment={}).config.eval
    assert (config.fixed_stride(256), config.fixed_stride(1)) == (64, 1)


def counts(name: str) -> int:
    config = load_recipe(name, environment={}).config
    rows = get_family(config.model_family).counts(config.model, config.data.vocab_size)
    return sum(parameters for _, parameters, _ in rows.values())


def test_the_contests_parameter_counts() -> None:
    assert counts("baseline_8xh100") == 17_059_912  # "17.06 M"
    assert counts("frontier_8xh100") == 35_945_671


def output(capsys: pytest.CaptureFixture[str], *words: str, expect: int = 0) -> str:
    capsys.readouterr()
    assert main(["recipes", *words]) == expect
    return capsys.readouterr().out


def test_list_names_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(output(capsys, "list", "--json"))
    assert [row["name"] for row in rows] == recipe_names()
    assert {row["name"]: row["parameters"] for row in rows}["frontier_8xh100"] == 35_945_671
    table = output(capsys, "list")
    assert all(name in table for name in recipe_names())


def test_show_prints_the_file_and_every_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert output(capsys, "show", "pocket").strip() == recipe_text("pocket").strip()
    own = tmp_path / "own.toml"
    own.write_text(output(capsys, "show", "pocket", "--resolved"))
    assert load_recipe(str(own), environment={}).config == load_recipe("pocket", environment={}).config
    tree: dict[str, Any] = json.loads(output(capsys, "show", "pocket", "--json"))
    assert tree["optim"]["beta1"] == 0.9


def test_diff_shows_what_differs_and_nothing_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(recipe_text("pocket").replace("matrix_lr = 0.03", "matrix_lr = 0.02"))
    rows = json.loads(output(capsys, "diff", "pocket", str(own), "--json"))
    assert rows == [{"key": "optim.matrix_lr", "a": 0.03, "b": 0.02}]
    assert json.loads(output(capsys, "diff", "pocket", "pocket", "--json")) == []
    assert "optim.matrix_lr" in output(capsys, "diff", "pocket", str(own))
    assert output(capsys, "diff", "pocket", "poket", expect=2) == ""


def test_show_is_not_moved_by_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATRIX_LR", "0.5")
    assert json.loads(output(capsys, "show", "pocket", "--json"))["optim"]["matrix_lr"] == 0.03


def test_explain_prints_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "explain", "optim.matrix_lr")
    for part in ("Peak learning rate of Muon", "0.04", "MATRIX_LR", "0.014 in pocket_frontier"):
        assert part in text
    assert "[model]" in output(capsys, "explain", "model.family")  # not taken for markup
    entry = json.loads(output(capsys, "explain", "optim.matrix_lr", "--json"))
    assert entry["recipes"]["pocket"] == 0.03 and entry["text"].endswith(".")


def test_explain_lists_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    entries = json.loads(output(capsys, "explain", "--json"))
    text = output(capsys, "explain")
    assert all(f"{entry['key']} " in text for entry in entries)
    assert "How much squared error" in text and "above 0.1" not in text  # the first sentence alone


def test_explain_names_the_nearest_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "explain", "quant.rat"]) == 2
    assert "did you mean 'quant.rate'" in capsys.readouterr().err
