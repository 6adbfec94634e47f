"""A training that cannot fit into memory is refused before anything is allocated."""

from __future__ import annotations

import dataclasses

import pytest
from tiny import recipe

from golfcore import machine
from golfcore.config import RecipeConfig
from golfcore.errors import InputError
from golfcore.pipeline.setup import require_memory
from golfcore.recipes import load_recipe, recipe_names


def wide(model_dim: int) -> RecipeConfig:
    base = recipe()
    return dataclasses.replace(base, model=dataclasses.replace(base.model, model_dim=model_dim))


def test_a_model_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: (32 << 30, 8 << 30))
    with pytest.raises(
        InputError, match=r"not enough memory: training [\d,]+ parameters .*32\.0 GiB; lower model\.mod"
    ):
        require_memory(wide(100_000), 1024)
    require_memory(wide(1024), 1024)


def test_a_micro_batch_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: (32 << 30, 8 << 30))
    huge = recipe(batch_tokens=1 << 30, micro_batch_tokens=1 << 30)
    with pytest.raises(InputError, match=r"a micro-batch of 1,073,741,824 tokens .*; lower train\.micro_batch_tokens"):
        require_memory(huge, 1024)
    require_memory(huge, 1024, ranks=1 << 20)  # each rank has its share


def test_a_container_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: (1 << 20, 1 << 19))
    with pytest.raises(InputError, match="not enough memory"):
        require_memory(wide(1024), 1024)
    monkeypatch.setattr(machine, "memory_bytes", lambda: None)
    require_memory(wide(100_000), 1024)  # a system that does not say how much it has


@pytest.mark.parametrize("name", [name for name in recipe_names() if "pocket" in name])
def test_the_recipes_for_processors_fit_into_two_gib(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: (2 << 30, 2 << 30))
    config = load_recipe(name, environment={}).config
    require_memory(config, config.data.vocab_size)
