"""When a run is given up: the rule's margins, its patience, and curves from damaged folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import recipe

from golfcore.errors import InputError
from golfcore.sweep.early_stopping import Curve, Rule, Watch, read_curve, read_reference

SHARES = np.linspace(0.01, 1.0, 100)


def curve(loss: float, until: float = 1.0) -> Curve:
    inside = until + 1e-9 >= SHARES
    return Curve(SHARES[inside], np.full(int(inside.sum()), loss))


def test_a_run_is_behind_beyond_the_margin_and_after_the_start() -> None:
    rule = Rule(margin=0.05, after=0.3)
    assert rule.behind(curve(2.2, 0.5), curve(2.0)) == (pytest.approx(0.5), pytest.approx(0.1))
    assert rule.behind(curve(2.2, 0.2), curve(2.0)) is None
    assert rule.behind(curve(2.09, 0.5), curve(2.0)) is None
    assert rule.behind(curve(1.0, 0.5), curve(2.0)) is None
    assert Rule(margin=0.0).behind(curve(9.0), curve(2.0)) is None


def test_curves_are_compared_at_the_same_share() -> None:
    falling = Curve(SHARES, 4 - 2 * SHARES)
    early = Curve(SHARES[:50], 4 - 2 * SHARES[:50])  # the same run, half done: its loss is far above the other's last
    assert Rule().behind(early, falling) is None


def test_nothing_to_compare_with_is_not_behind() -> None:
    assert Rule().behind(curve(9.0), Curve(np.empty(0), np.empty(0))) is None
    assert Rule().behind(curve(9.0), curve(2.0, 0.2)) is None
    assert Rule().behind(Curve(np.empty(0), np.empty(0)), curve(2.0)) is None


def test_one_bad_look_is_forgiven() -> None:
    watch, reference = Watch(Rule(margin=0.05, after=0.3)), curve(2.0)
    assert watch.hopeless(1, curve(2.5, 0.40), reference) is None
    assert watch.hopeless(1, curve(2.5, 0.40), reference) is None  # the same point is no second look
    assert watch.hopeless(1, curve(2.0, 0.41), reference) is None
    assert watch.hopeless(1, curve(2.5, 0.42), reference) is None
    assert watch.hopeless(2, curve(2.5, 0.43), reference) is None  # another run has looks of its own
    assert watch.hopeless(1, curve(2.5, 0.44), reference) is not None


def test_curves_are_read_by_the_clock_and_by_steps(tmp_path: Path) -> None:
    config = recipe(iterations=10)  # without a clock
    rows = [{"kind": "train", "step": step, "train_loss": 3.0 - step / 10, "train_s": 1.0} for step in (1, 5)]
    rows += [{"kind": "val", "step": 6, "val_loss": 9.0}, {"kind": "train", "step": 7, "train_loss": None}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"torn')
    found = read_curve(tmp_path, config)
    assert found.share_N.tolist() == [0.1, 0.5]
    assert found.loss_N.tolist() == [2.9, 2.5]
    (tmp_path / "metrics.jsonl").write_text("nonsense\n{}\n")
    assert read_curve(tmp_path, config).spent == 0
    with pytest.raises(InputError, match="no training curve"):
        read_reference(tmp_path, config)
