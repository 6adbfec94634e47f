"""``golfcore plan``: what it prints, for people and for programs, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import recipe

from golfcore.cli import main
from golfcore.config import to_toml, to_tree
from golfcore.data.contracts import Documents
from golfcore.pipeline.measure import AT_LEAST, RandomTokens, measure_step


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(to_toml(to_tree(recipe())))
    return str(path)


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["plan", *words, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_h100s(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, "baseline_8xh100", "--gpus", "8", "--price", "3")
    run = plan["run"]
    assert plan["parameters"]["total"] == 17_059_912
    assert plan["artifact"]["low"] < plan["artifact"]["expected"] < plan["artifact"]["high"]
    assert plan["artifact"]["expected"] < 16_000_000
    assert (run["basis"], plan["scaling"]["basis"], plan["parameters"]["basis"]) == ("fitted", "simulated", "counted")
    assert run["ms_low"] < run["ms_a_step"] < run["ms_high"]
    assert run["steps"] == pytest.approx(600_000 / run["ms_a_step"], rel=1e-3)
    assert run["tokens"] == pytest.approx(run["steps"] * 524_288, rel=1e-3)
    assert run["dollars"] == pytest.approx(8 * 3 * 599.75 / 3600)
    assert 0.1 < run["mfu"] < 0.4
    assert [row["gpus"] for row in plan["scaling"]["rows"]] == [1, 2, 4, 8, 16, 32, 64]
    assert plan["scaling"]["ends_at"] in (8, 16, 32, 64)
    more = planned(capsys, "baseline_8xh100", "--gpus", "16")
    assert more["run"]["basis"] == "simulated"
    assert more["run"]["dollars"] is None


def test_steps_leave_the_hessians_their_share_of_the_clock(capsys: pytest.CaptureFixture[str]) -> None:
    run = planned(capsys, "pocket", "--gpus", "8", "--set", "train.iterations=1000000", "--set", "track.train_s=14")[
        "run"
    ]
    assert run["steps"] * run["ms_a_step"] == pytest.approx(9_750, rel=1e-2)  # less a margin and quant.reserve_s = 4


def test_more_steps_than_the_recipe_has_are_not_promised(capsys: pytest.CaptureFixture[str]) -> None:
    run = planned(capsys, "baseline_8xh100", "--gpus", "64")["run"]
    assert run["steps"] == 20_000
    assert run["seconds"] < 600


def test_this_machine_is_measured(tiny_recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, tiny_recipe, "--seconds", "0.2", "--price", "0.5")
    run = plan["run"]
    assert (run["basis"], run["gpus"], run["steps"]) == ("measured", 1, 6)
    assert run["ms_a_step"] > 0
    assert run["memory_bytes"] > 50e6
    assert "scaling" not in plan
    assert plan["artifact"]["fits"] == "yes"


def test_a_step_too_long_to_run_is_a_line_through_two_shorter_ones() -> None:
    long = recipe(batch_tokens=32 * 60_000, micro_batch_tokens=256)
    found = measure_step(long, 64, 0.3)
    assert found.tokens < long.train.batch_tokens
    assert found.steps >= 2 * AT_LEAST
    assert found.ms > 300


def test_random_tokens_are_batches_of_the_loaders_shape() -> None:
    loader = RandomTokens(64, 256, 32)
    inputs, targets, bounds = next(loader)
    assert bounds is None
    assert inputs.shape == targets.shape == (8, 32)
    assert (inputs[:, 1:] == targets[:, :-1]).all()
    loader.reshape(64, 16)
    assert next(loader)[0].shape == (4, 16)
    assert inputs.max() < 64
    loader.reshape(64, 16, Documents(bos=1, max_segment=5))
    batch = loader.peek()
    assert batch.bounds is not None
    assert batch.bounds[-1] == 64
    assert np.diff(batch.bounds).max() <= 5


def test_the_parts_of_a_step_add_up_over_stages(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, "frontier_8xh100", "--gpus", "8", "--attention", "fa3")
    assert len(plan["operations"]["stages"]) == 2  # the layers that are repeated join later
    for row in plan["scaling"]["rows"]:
        parts = ("compute_ms", "exposed_ms", "optimiser_ms", "constant_ms")
        assert row["ms_a_step"] == pytest.approx(sum(row[part] for part in parts), rel=1e-3)
    assert plan["scaling"]["ends_by"] == "rows"  # a row a GPU
    # The entry that this recipe follows: 4,945 steps of 121.3 ms, 15.95 MB, 41.7 GB at the peak.
    assert abs(plan["run"]["ms_a_step"] / 121.3 - 1) < 0.10
    assert plan["artifact"]["low"] < 15_952_086 < plan["artifact"]["high"]
    assert abs(plan["run"]["memory_bytes"] / (41_710 * 2**20) - 1) < 0.10


def test_tables(tiny_recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "pocket", "--gpus", "8", "--price", "2"]) == 0
    text = capsys.readouterr().out
    for words in (
        "embed",
        "tokenizer",
        "fits into" if "may fit" not in text else "may fit",
        "simulated",
        "extrapolates",
    ):
        assert words in text
    assert main(["plan", tiny_recipe, "--seconds", "0.1"]) == 0
    assert "measured" in capsys.readouterr().out


def test_the_fit_prints_split_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--fit"]) == 0
    text = capsys.readouterr().out
    assert "held-out error: median" in text
    assert "2026-03-17_NaiveBaseline" in text
    fit = planned(capsys, "--fit")
    assert {row["part"] for row in fit["time"]["rows"]} == {"fitted", "held_out"}
    assert fit["excluded"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--gpus", "-1"), "--gpus -1"),
        (("--gpus", "100000"), "--gpus 100000"),
        (("--gpus", "8", "--price", "-2"), "--price"),
        (("--gpus", "8", "--price", "nan"), "--price"),
        (("--seconds", "0"), "--seconds"),
        (("--gpus", "8", "--set", "model.num_layer=3"), "num_layers"),
        (("--gpus", "8", "--data", "/nowhere/at/all"), "no such folder"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "pocket", *words]) in (1, 2)
    assert said in capsys.readouterr().err


def test_gpus_that_the_batch_does_not_split_over(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, "baseline_8xh100", "--gpus", "7")
    assert "run" not in plan
    assert any("does not split over 7 GPUs" in note for note in plan["notes"])
    assert 7 not in [row["gpus"] for row in plan["scaling"]["rows"]]
