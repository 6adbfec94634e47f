"""Recipe auto: a run sized to what the clock allows on the machine at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from golfcore.pipeline import start as starting
from golfcore.pipeline.start import Wish, begin, measured_size
from golfcore.recipes import load_recipe, recipe_names
from golfcore.recipes.sizing import AUTO, BASE, BOUNDS, size_for


@pytest.mark.parametrize("steps", [1, 60, 130, 370, 449, 450, 800, 1500, 100_000])
def test_every_machine_gets_a_recipe_that_is_valid(steps: float) -> None:
    size = size_for(steps)
    config = load_recipe(BASE, environment={}, changes=size.keys).config
    assert config.train.batch_tokens % config.train.seq_len == 0
    assert config.track == load_recipe(BASE, environment={}).config.track
    assert 0 <= config.train.ema_decay < 1
    assert str(round(steps)) in size.lines()[0]


def test_fewer_steps_mean_smaller_batches_and_higher_rates() -> None:
    few, many = size_for(100).keys, size_for(1200).keys
    assert few["train.batch_tokens"] < many["train.batch_tokens"]
    assert few["optim.matrix_lr"] > many["optim.matrix_lr"]
    assert few["train.ema_decay"] < many["train.ema_decay"]
    assert size_for(BOUNDS[0] / 2).keys == size_for(BOUNDS[0]).keys


def test_the_users_own_keys_win_over_the_size() -> None:
    loaded = load_recipe(
        BASE, environment={"MATRIX_LR": "0.5"}, sets=["train.batch_tokens=512"], changes=size_for(100).keys
    )
    assert loaded.config.optim.matrix_lr == 0.5 and loaded.config.train.batch_tokens == 512
    assert len(loaded.overrides) == 2  # the size is no override of the user's


def test_the_step_of_this_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "SIZING_S", 0.05)
    alone = measured_size(Wish(AUTO, sets=["train.batch_tokens=512", "train.micro_batch_tokens=512"]), 1)
    assert alone.steps > 0


def test_a_given_size_is_not_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other ranks take rank 0's."""
    monkeypatch.setattr(starting, "measured_size", lambda *_, **__: pytest.fail("measured"))
    monkeypatch.setattr(starting, "prepare_data", lambda config, *_: config)
    size = size_for(300)
    start = begin(Wish(AUTO, runs=tmp_path, run_id="a"), size=size)
    assert start.config.name == AUTO and start.size == size
    assert start.config.train.batch_tokens == size.keys["train.batch_tokens"]


def test_no_recipe_has_the_name_that_is_taken() -> None:
    assert AUTO not in recipe_names()
