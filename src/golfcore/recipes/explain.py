"""Explain the keys of recipes: meaning, type, default, the contest's name, and the value in each shipped recipe.

The texts stand in the ``Attributes:`` sections of the configs' docstrings.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from docstring_parser import google

from golfcore.config import CONTEST_ENV, SECTIONS, RecipeConfig, describe, to_tree
from golfcore.errors import UsageError
from golfcore.model import family_configs
from golfcore.ranges import field_types
from golfcore.recipes import load_recipe, recipe_names
from golfcore.suggest import nearest


@dataclass(frozen=True)
class KeyHelp:
    """The facts about a key of recipes.

    Attributes:
        key: The key as for ``--set``, for example ``train.seed``.
        section: The table of the recipe that holds it; empty for the recipe's ``name``.
        name: The key within its section.
        family: The model family that has the key; empty outside ``[model]``.
        type: The type of its values, in words.
        default: The value if a recipe does not set the key; None if every recipe must.
        text: Meaning, unit and what 0 or an empty value means, in whole sentences of Markdown.
        environment: The contest's environment variable that sets the key; empty if there is none.
        recipes: The value in each shipped recipe that has the key.
    """

    key: str
    section: str
    name: str
    family: str
    type: str
    default: Any
    text: str
    environment: str
    recipes: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """Return the first sentence of the text."""
        return re.split(r"(?<=\.)\s", self.text, maxsplit=1)[0]


def explain(key: str) -> KeyHelp:
    """Return the facts about ``key``, for example ``quant.rate``.

    Raises:
        UsageError: no such key; names the nearest.
    """
    known = {entry.key: entry for entry in reversed(all_keys())}  # the first family to have a key explains it
    wanted = key.strip().replace("-", "_")
    if wanted in known:
        return known[wanted]
    same_name = sorted(entry.key for entry in known.values() if entry.name == wanted)
    hint = f"; did you mean {' or '.join(map(repr, same_name))}?" if same_name else nearest(wanted, known)
    raise UsageError(f"unknown key {key!r}{hint}; golfcore recipes explain lists all keys")


def all_keys() -> list[KeyHelp]:
    """Return every key that a recipe may hold, section by section, and in ``[model]`` family by family."""
    configs = {name: load_recipe(name, environment={}).config for name in recipe_names()}
    trees = {name: to_tree(config) for name, config in configs.items()}
    environment = {key: variable for variable, key in CONTEST_ENV.items()}

    def entries(section: str, cls: type, family: str = "", only: Mapping[str, str] | None = None) -> list[KeyHelp]:
        """Return the keys of one config class; ``only`` selects fields and says how a recipe spells them."""
        kinds, texts = field_types(cls), attribute_texts(cls)
        found = []
        for field in dataclasses.fields(cls):
            if only is not None and field.name not in only:
                continue
            name = field.name if only is None else only[field.name]
            key = f"{section}.{name}" if section else name
            found.append(
                KeyHelp(
                    key=key, section=section, name=name, family=family, type=describe(kinds[field.name]),
                    default=_default(field), text=texts.get(field.name, ""), environment=environment.get(key, ""),
                    recipes={
                        recipe: (tree[section] if section else tree)[name] for recipe, tree in trees.items()
                        if not family or configs[recipe].model_family == family
                    },
                )
            )  # fmt: skip
        return found

    result = entries("", RecipeConfig, only={"name": "name"})
    for section, cls in SECTIONS.items():
        result += entries(section, cls)
        if section == "data":
            result += entries("model", RecipeConfig, only={"model_family": "family"})
            for family, config in family_configs().items():
                result += entries("model", config, family)
    return result


def attribute_texts(cls: type) -> dict[str, str]:
    """Return the texts of the ``Attributes:`` section of a class's docstring, each on one line, as Markdown."""
    found = google.parse(cls.__doc__ or "").params
    return {entry.arg_name: " ".join((entry.description or "").split()).replace("``", "`") for entry in found}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default
