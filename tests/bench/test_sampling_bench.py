"""The case ``sampling``: both contenders draw the same tokens, or nothing is timed."""

from __future__ import annotations

import dataclasses

import pytest

from golfcore.bench import sampling as case
from golfcore.config import RecipeConfig
from golfcore.errors import RuleError
from golfcore.recipes import load_recipe


@pytest.fixture(scope="module")
def recipe() -> RecipeConfig:
    pocket = load_recipe("pocket", environment={}).config
    small = dataclasses.replace(pocket.model, model_dim=64, num_layers=2)
    return dataclasses.replace(pocket, model=small, data=dataclasses.replace(pocket.data, vocab_size=260))


def test_plain_torch_draws_our_tokens(recipe: RecipeConfig) -> None:
    workload = case.sampling(recipe, ("torch",))
    workload.check()
    first, second = (work(0) for work in workload.contenders.values())
    assert first == second and isinstance(first, list) and len(first) == case.DRAWN
    assert list(workload.contenders) == ["golfcore", "torch"]
    assert list(case.sampling(recipe, ()).contenders) == ["golfcore"]


def test_a_rival_that_draws_other_tokens_is_not_timed(recipe: RecipeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = case.sampling(recipe, ("torch",))
    monkeypatch.setattr(case, "plain_tokens", lambda model, prompt: iter(range(case.DRAWN)))
    with pytest.raises(RuleError, match="torch draws other tokens"):
        workload.check()
