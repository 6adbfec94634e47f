"""Build a whole recipe from a tree of tables, and turn it back into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from golfcore.config.sections import SECTIONS, RecipeConfig
from golfcore.config.values import convert, from_mapping, require
from golfcore.errors import UsageError
from golfcore.suggest import nearest


def build_recipe(tree: Mapping[str, Any], families: Mapping[str, type], source: str) -> RecipeConfig:
    """Build and check a recipe from a tree of tables as TOML gives it.

    Args:
        tree: ``name`` and the sections; ``[model]`` holds ``family`` and that family's keys.
        families: the config class of each model family.
        source: the file's name, for errors.

    Raises:
        UsageError: an unknown section, family or key, or a value of the wrong type or out of range.
    """
    known = {"name", "model", *SECTIONS}
    for key, table in tree.items():
        if key not in known:
            raise UsageError(f"{source}: unknown section {key!r}{nearest(key, known)}")
        require(key == "name" or isinstance(table, Mapping), key, table, f"a section, [{key}] and its keys below")
    model = dict(tree.get("model", {}))
    family = convert(model.pop("family", "gpt"), str, "model.family")
    if family not in families:
        raise UsageError(f"{source}: unknown model family {family!r}{nearest(family, families)}")
    parts: dict[str, Any] = {name: from_mapping(cls, tree.get(name, {}), name) for name, cls in SECTIONS.items()}
    return RecipeConfig(
        name=convert(tree.get("name", source), str, "name"),
        model_family=family,
        model=from_mapping(families[family], model, "model"),
        **parts,
    )


def to_tree(recipe: RecipeConfig) -> dict[str, Any]:
    """Return every resolved key as a tree of tables, from which ``build_recipe`` builds the same recipe."""
    tree = dataclasses.asdict(recipe)
    family = tree.pop("model_family")
    tree["model"] = {"family": family, **tree["model"]}
    return tree
