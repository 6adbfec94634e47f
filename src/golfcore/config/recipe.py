"""A whole recipe as a tree of tables, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from golfcore.config.sections import (
    DataConfig,
    EvalConfig,
    OptimConfig,
    QuantConfig,
    RecipeConfig,
    TrackConfig,
    TrainConfig,
)
from golfcore.config.values import from_mapping
from golfcore.errors import UsageError
from golfcore.suggest import nearest


def build_recipe(tree: Mapping[str, Any], families: Mapping[str, type], source: str) -> RecipeConfig:
    """A checked recipe from a tree of tables as TOML gives it.

    Args:
        tree: ``name`` and the sections; ``[model]`` holds ``family`` and that family's keys.
        families: the config class of each model family.
        source: the file's name, for errors.
    """
    sections = {f.name: f for f in dataclasses.fields(RecipeConfig)}
    known = {"name", "track", "data", "model", "optim", "train", "quant", "eval"}
    for key in tree:
        if key not in known:
            raise UsageError(f"{source}: unknown section {key!r}{nearest(key, known)}")
    model = dict(tree.get("model", {}))
    family = model.pop("family", sections["model_family"].default)
    if family not in families:
        raise UsageError(f"{source}: unknown model family {family!r}{nearest(str(family), families)}")
    parts: dict[str, Any] = {
        name: from_mapping(cls, tree.get(name, {}), name)
        for name, cls in {
            "track": TrackConfig, "data": DataConfig, "optim": OptimConfig,
            "train": TrainConfig, "quant": QuantConfig, "eval": EvalConfig,
        }.items()
    }  # fmt: skip
    return RecipeConfig(
        name=str(tree.get("name", source)),
        model_family=family,
        model=from_mapping(families[family], model, "model"),
        **parts,
    )


def to_tree(recipe: RecipeConfig) -> dict[str, Any]:
    """The inverse of ``build_recipe``: every resolved key, ready to be written as TOML or JSON."""
    tree = dataclasses.asdict(recipe)
    family = tree.pop("model_family")
    tree["model"] = {"family": family, **tree["model"]}
    return tree
