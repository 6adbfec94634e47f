"""Load recipes: the TOML files beside this module, or a TOML file of the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from golfcore.config import (
    CONTEST_ENV,
    DATA_HASHES,
    GivenText,
    RecipeConfig,
    build_recipe,
    decode_toml,
    from_toml,
    parse_set,
    set_key,
    to_tree,
)
from golfcore.errors import UsageError
from golfcore.model import family_configs
from golfcore.suggest import nearest


@dataclass(frozen=True)
class LoadedRecipe:
    """A resolved recipe, and which values came from elsewhere than its file: ``"optim.matrix_lr=0.03 (MATRIX_LR)"``."""

    config: RecipeConfig
    overrides: tuple[str, ...]


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with golfcore."""
    return sorted(f.name.removesuffix(".toml") for f in files(__name__).iterdir() if f.name.endswith(".toml"))


def recipe_text(name_or_path: str) -> str:
    """Read the file of a recipe that comes with golfcore, by name, or a TOML file, by path.

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
        return decode_toml(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(f"cannot read recipe {path}: {error.strerror or error}") from error


def read_recipe(name_or_path: str) -> dict[str, Any]:
    """Read the tables of a recipe's file.

    Raises:
        UsageError: no such recipe or file, or the file is not TOML.
    """
    text = recipe_text(name_or_path)
    try:
        return from_toml(text)
    except ValueError as error:
        raise UsageError(f"recipe {name_or_path}: {error}") from error


def without_hashes(data: Any) -> Any:
    """Return the keys of ``[data]`` without the hashes of the tokens, for a run on other tokens."""
    return {key: value for key, value in data.items() if key not in DATA_HASHES} if isinstance(data, dict) else data


def differences(a: RecipeConfig, b: RecipeConfig) -> list[tuple[str, Any, Any]]:
    """Return ``(section.key, value in a, value in b)`` for each difference; None if a model family lacks the key."""
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
    name_or_path: str, *, environment: Mapping[str, str], sets: Sequence[str] = (), data: Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> LoadedRecipe:  # fmt: skip
    """Load a recipe: its file, changed by ``changes``, then by the environment, then by ``sets``, over the defaults.

    Args:
        name_or_path: ``pocket``, or a TOML file.
        environment: variables, like ``os.environ``; the contest's names are looked up in it.
        sets: ``section.key=value`` each, as on the command line.
        data: a folder of tokens, which replaces every other ``data.path``.
        changes: values by ``section.key``, for example from ``golfcore.recipes.sizing``.

    Raises:
        UsageError: an unknown recipe, section or key, or a value out of range.
    """
    tree = read_recipe(name_or_path)
    given = [variable_key for variable, variable_key in CONTEST_ENV.items() if variable in environment]
    if "data.path" in [*(changes or {}), *given, *(parse_set(option)[0] for option in sets)]:
        tree["data"] = without_hashes(tree.get("data", {}))
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
    if data is not None:
        set_key(tree, "data.path", str(data))
        overrides.append(f"data.path={data} (--data)")
    tree.setdefault("name", Path(name_or_path).stem)
    return LoadedRecipe(build_recipe(tree, family_configs(), name_or_path), tuple(overrides))
