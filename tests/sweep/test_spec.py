"""Axes, jobs and specs: what a sweep's words mean."""

from __future__ import annotations

import json

import pytest

from golfcore.errors import UsageError
from golfcore.sweep.spec import Axis, differences, grid_jobs, parse_axis, spec_text


def test_values_and_ranges() -> None:
    assert parse_axis("optim.matrix_lr=0.02, 0.03") == Axis("optim.matrix_lr", ("0.02", "0.03"))
    assert parse_axis("model.smear=none") == Axis("model.smear", ("none",))
    assert parse_axis("train.batch-ramp=[8192,16384],[]") == Axis("train.batch_ramp", ("[8192,16384]", "[]"))
    assert parse_axis('model.loop_layers="0,1","all"').values == ('"0,1"', '"all"')
    assert parse_axis("optim.matrix_lr=0.01..0.1:log") == Axis("optim.matrix_lr", low=0.01, high=0.1, log=True)
    assert parse_axis("model.num_layers=2..8") == Axis("model.num_layers", low=2.0, high=8.0, whole=True)
    assert parse_axis("optim.beta1=1e-3..0.9").low == 1e-3


@pytest.mark.parametrize(
    "option",
    [
        "optim.matrix_lr", "=1,2", "optim.matrix_lr=", "a.b=1,,2", "a.b=1,1", "a.b=2..1", "a.b=1..1", "a.b=0..1:log",
        "a.b=-1..1:log", "a.b=..2", "a.b=1..e", "train.seed=1,2", "a.b=1e999..2",
    ],
)  # fmt: skip
def test_words_that_mean_nothing(option: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        parse_axis(option)


def test_a_grid_has_every_combination_once_and_first_seeds_first() -> None:
    jobs = grid_jobs([parse_axis("a.x=1,2"), parse_axis("b.y=u,v,w")], [7, 8])
    assert len(jobs) == len({job.name for job in jobs}) == 12
    assert [job.seed for job in jobs] == [7] * 6 + [8] * 6
    assert jobs[0].sets == ("a.x=1", "b.y=u")
    assert jobs[0].name == "000-x=1_y=u-s7"
    assert {job.sets for job in jobs[:6]} == {job.sets for job in jobs[6:]}


def test_names_are_plain_file_names_whatever_the_values() -> None:
    (job,) = grid_jobs([parse_axis("data.path=../../etc/$(x)`y`;z")], [1])
    assert "/" not in job.name
    assert set(job.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-=_.")
    (job,) = grid_jobs([parse_axis("a.b=" + "long" * 100)], [1])
    assert len(job.name) < 80


def test_too_many_and_twice() -> None:
    with pytest.raises(UsageError, match="at most 10,000"):
        grid_jobs([parse_axis(f"a.b{i}=" + ",".join(map(str, range(20)))) for i in range(4)], [1])
    with pytest.raises(UsageError, match="given twice"):
        grid_jobs([parse_axis("a.b=1,2"), parse_axis("a.b=3,4")], [1])


def test_a_spec_names_what_differs() -> None:
    axes = [parse_axis("a.b=1,2")]
    one = spec_text({"train": {"seq_len": 256}}, axes, [1], 0, {})
    two = spec_text({"train": {"seq_len": 512}}, axes, [1, 2], 0, {})
    assert json.loads(one)["axes"] == {"a.b": ["1", "2"]}
    assert differences(one, two) == ["recipe.train.seq_len: 256, now 512", "seeds: [1], now [1, 2]"]
    assert differences(one, one) == []
