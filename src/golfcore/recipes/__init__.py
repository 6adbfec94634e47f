"""Recipes: the TOML files beside this module, or any of the user's."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from golfcore.config import CONTEST_ENV, GivenText, RecipeConfig, build_recipe, parse_set, set_key, to_tree
from golfcore.errors import UsageError
from golfcore.model import family_configs
from golfcore.suggest import nearest


@dataclass(frozen=True)
class LoadedRecipe:
    """A resolved recipe, and where values other than the file's came from (``"optim.matrix_lr=0.03 (MATRIX_LR)"``)."""

    config: RecipeConfig
    overrides: tuple[str, ...]


def recipe_names() -> list[str]:
    """The recipes that come with golfcore."""
    return sorted(f.name.removesuffix(".toml") for f in files(__name__).iterdir() if f.name.endswith(".toml"))


def recipe_text(name_or_path: str) -> str:
    """The file of a recipe: one of ours by name, or a TOML file by path.

    Raises:
        UsageError: no such recipe or file.
    """
    if name_or_path in recipe_names():
        return files(__name__).joinpath(f"{name_or_path}.toml").read_text(encoding="utf-8")
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError(
            f"no recipe {name_or_path!r}{nearest(name_or_path, recipe_names())}; "
            f"known: {', '.join(recipe_names())}, or a path to a .toml file"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read recipe {path}: {error}") from error


def read_recipe(name_or_path: str) -> dict[str, Any]:
    """The tables of a recipe's file.

    Raises:
        UsageError: no such recipe or file, or not TOML.
    """
    text = recipe_text(name_or_path)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"recipe {name_or_path}: {error}") from error


def differences(a: RecipeConfig, b: RecipeConfig) -> list[tuple[str, Any, Any]]:
    """``(section.key, value in a, value in b)`` wherever they differ; None where a model family lacks the key."""
    found = []
    trees = to_tree(a), to_tree(b)
    for section, table in trees[0].items():
        if section == "name":
            continue
        for key in dict.fromkeys((*table, *trees[1][section])):
            values = table.get(key), trees[1][section].get(key)
            if values[0] != values[1]:
                found.append((f"{section}.{key}", *values))
    return found


def load_recipe(
    name_or_path: str, *, environment: Mapping[str, str], sets: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
) -> LoadedRecipe:  # fmt: skip
    """Command line (``sets``) over environment over ``changes`` over file over default.

    Args:
        name_or_path: ``pocket``, or a TOML file.
        environment: as ``os.environ``; the contest's names are looked up in it.
        sets: ``section.key=value`` each.
        changes: values by ``section.key``, as what ``golfcore.recipes.sizing`` found for this machine.

    Raises:
        UsageError: an unknown recipe, section or key, or a value out of range.
    """
    tree = read_recipe(name_or_path)
    for key, value in (changes or {}).items():
        set_key(tree, key, value)
    overrides = []
    for variable, key in CONTEST_ENV.items():
        if variable in environment:
            set_key(tree, key, GivenText(environment[variable]))
            overrides.append(f"{key}={environment[variable]} ({variable})")
    for option in sets:
        key, value = parse_set(option)
        set_key(tree, key, value)
        overrides.append(f"{option} (--set)")
    tree.setdefault("name", Path(name_or_path).stem)
    return LoadedRecipe(build_recipe(tree, family_configs(), name_or_path), tuple(overrides))
