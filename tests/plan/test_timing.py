"""The time model: its split, its fit, its errors on what it has not seen, and the collectives on paper."""

from __future__ import annotations

import dataclasses
import hashlib
from itertools import pairwise

import numpy as np
import pytest
from tiny import recipe

from golfcore.model import get_family
from golfcore.model.gpt.config import GPTConfig, gpt_counts
from golfcore.plan.cost import stage_costs
from golfcore.plan.evidence import logged_runs
from golfcore.plan.scaling import COUNTS, collective_s, scaling_end, simulate
from golfcore.plan.timing import fit_factors, memory_model, time_model, time_terms
from golfcore.recipes import load_recipe

GPT = get_family("gpt")


def test_held_out_errors_are_within_the_figures() -> None:
    time, memory = time_model(), memory_model()
    assert time.median_error <= 0.10
    assert time.max_error <= 0.25
    assert len(time.new_shape_errors) >= 20
    assert np.median(time.new_shape_errors) <= 0.10
    assert np.median(time.entry_errors) <= 0.10
    assert memory.median_error <= 0.05
    assert memory.max_error <= 0.25


def test_no_entry_is_on_both_sides_and_each_side_is_real() -> None:
    fit = time_model()
    seen, unseen = ({run.entry for run, _, _ in part} for part in (fit.fitted, fit.held_out))
    assert not seen & unseen
    assert len(seen) >= 12
    assert len(unseen) >= 12
    assert all(hashlib.sha256(entry.encode()).digest()[-1] % 2 == 0 for entry in seen)
    assert all(hashlib.sha256(entry.encode()).digest()[-1] % 2 == 1 for entry in unseen)
    runs = [(run.params, run.ms_per_step) for run, _, _ in (*fit.fitted, *fit.held_out)]
    assert len(set(runs)) == len(runs)  # no run that is filed twice


def test_errors_are_of_the_logged_values() -> None:
    fit = time_model()
    for run, predicted, error in fit.held_out:
        assert predicted == pytest.approx(run.ms_per_step * (1 + error))
    assert fit.max_error == max(abs(error) for _, _, error in fit.held_out)


def test_the_factors_come_from_the_fitted_part_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shifted = tuple(
        dataclasses.replace(run, ms_per_step=run.ms_per_step * (3 if run.held_out else 1)) for run in logged_runs()
    )
    monkeypatch.setattr("golfcore.plan.timing.logged_runs", lambda: shifted)
    other = time_model.__wrapped__()
    assert (other.factors == time_model().factors).all()
    assert other.median_error > 0.5


def test_the_evidence_has_the_baselines_shape() -> None:
    run = next(run for run in logged_runs() if run.entry == "2026-03-17_NaiveBaseline")
    assert run.params == sum(n for _, n, _ in gpt_counts(GPTConfig(), 1024).values())
    assert (run.batch_tokens, run.seq_len, run.gpus, run.ms_per_step) == (524_288, 1024, 8, 43.544)


def test_fit_factors_finds_what_made_the_values_and_nothing_negative() -> None:
    rng = np.random.default_rng(0)
    terms = rng.uniform(1, 3, (40, 3))
    true = np.array([2.0, 0.5, 4.0])
    prior = np.array([1.0, 1.0, 1.0])
    found = fit_factors(terms, terms @ true, np.ones(40), prior, 0.0)
    np.testing.assert_allclose(found, true, rtol=1e-9)
    found = fit_factors(terms, terms @ np.array([2.0, -0.1, 4.0]), np.ones(40), prior, 0.0)
    assert found[1] == 0
    held = fit_factors(terms, terms @ true, np.ones(40), prior, 1e9)
    np.testing.assert_allclose(held, prior, rtol=1e-3)


def test_time_terms_scale_with_tokens_and_name_one_kernel() -> None:
    (work,) = GPT.work(GPTConfig(), 1024, 1024)
    one, two = time_terms(work, 1000, "sdpa"), time_terms(work, 2000, "sdpa")
    np.testing.assert_allclose(two[:-1], 2 * one[:-1])
    assert one[-1] == two[-1] == 1
    assert one[2] == 0
    assert time_terms(work, 1000, "fa3")[1] == 0


def test_collectives_of_rings() -> None:
    assert collective_s(1e9, 1) == 0
    for few, many in pairwise(COUNTS):
        assert collective_s(1e9, few) < collective_s(1e9, many)
    # Two nodes: beside what eight spend, an eighth of the bytes crosses each card, there and back halved.
    across = collective_s(1e9, 16) - collective_s(1e9, 8)
    assert across == pytest.approx(1e9 / 8 / 40e9 + 14 * 12e-6)


def test_eight_gpus_are_the_fitted_model() -> None:
    config = load_recipe("baseline_8xh100", environment={}).config
    (stage,) = stage_costs(config, GPT, 1024)
    fit = time_model()
    scale = simulate(stage, 8, params=17_059_912, orthogonal=1e11, attention="sdpa", micro_tokens=65_536)
    assert scale is not None
    total = fit(time_terms(stage.work, 65_536, "sdpa"))
    hidden = scale.collective_ms - scale.exposed_ms
    assert scale.ms == pytest.approx(total - hidden)
    assert abs(scale.ms / 43.544 - 1) < 0.10


def test_rows_that_do_not_split_are_not_simulated() -> None:
    config = recipe()  # 8 rows
    (stage,) = stage_costs(config, GPT, 260)
    arguments = {"params": 1000, "orthogonal": 0.0, "attention": "sdpa", "micro_tokens": 128}
    assert simulate(stage, 8, **arguments) is not None
    assert simulate(stage, 16, **arguments) is None


def test_where_scaling_ends() -> None:
    assert scaling_end([(1, 80.0), (2, 41.0), (4, 22.0), (8, 20.0), (16, 19.0)]) == 4
    assert scaling_end([(1, 80.0), (2, 40.0)]) == 2
    assert scaling_end([(1, 10.0), (2, 11.0)]) == 1
