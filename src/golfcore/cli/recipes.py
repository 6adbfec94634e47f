"""``golfcore recipes``: list, show and compare recipes, and explain their keys."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from json import dumps
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from golfcore.cli import output
from golfcore.config import RecipeConfig, to_toml, to_tree
from golfcore.model import get_family
from golfcore.recipes import differences, load_recipe, recipe_names, recipe_text

if TYPE_CHECKING:
    from golfcore.recipes.explain import KeyHelp

app = App(name="recipes", help="List, show, compare and explain recipes.")
Json = Annotated[bool, Parameter(negative="")]


@app.command(name="list")
def list_(*, json: Json = False) -> int:
    """List the recipes that come with golfcore.

    Args:
        json: Print one JSON document instead of the table.
    """
    rows = []
    for name in recipe_names():
        config, text = _load(name), recipe_text(name)
        about = text.splitlines()[0].removeprefix("#").strip()
        rows.append(
            {
                "name": name, "track": config.track.name, "train_s": config.track.train_s,
                "cap_bytes": config.track.cap_bytes, "parameters": _parameters(config), "about": about,
            }
        )  # fmt: skip
    if json:
        output.print_json(rows)
        return 0
    table = output.plain_table(
        "recipe", "seconds", "cap", "parameters", "about", right=("seconds", "cap", "parameters")
    )
    for row in rows:
        numbers = f"{row['train_s']:g}", f"{row['cap_bytes']:,}", f"{row['parameters']:,}"
        table.add_row(str(row["name"]), *numbers, str(row["about"]))
    output.print_table(table)
    return 0


@app.command
def show(recipe: str, /, *, resolved: Json = False, json: Json = False) -> int:
    """Print a recipe: its file, or every key with its value.

    Args:
        recipe: A recipe's name or a .toml file.
        resolved: Print every key, also those left at their default.
        json: Print every key as one JSON document.
    """
    tree = to_tree(_load(recipe))
    if json:
        output.print_json(tree)
    else:
        output.out.print((to_toml(tree) if resolved else recipe_text(recipe)).rstrip("\n"), markup=False)
    return 0


@app.command
def diff(a: str, b: str, /, *, json: Json = False) -> int:
    """Show the keys whose values differ between two recipes, defaults included.

    Args:
        a: A recipe's name or a .toml file.
        b: Another recipe's name or .toml file.
        json: Print one JSON document instead of the table.
    """
    rows = [{"key": key, "a": x, "b": y} for key, x, y in differences(_load(a), _load(b))]
    if json:
        output.print_json(rows)
        return 0
    table = output.plain_table("key", a, b)
    for row in rows:
        table.add_row(str(row["key"]), _text(row["a"]), _text(row["b"]))
    output.print_table(table)
    return 0


@app.command
def explain(key: str = "", /, *, json: Json = False) -> int:
    """Print what a key of a recipe means, with its type, default, and value in each recipe.

    Args:
        key: A key such as quant.rate; without it, all keys with their first sentence.
        json: Print one JSON document instead of text.
    """
    from golfcore.recipes.explain import all_keys
    from golfcore.recipes.explain import explain as explain_key

    if not key:
        entries = all_keys()
        if json:
            output.print_json([asdict(entry) for entry in entries])
            return 0
        table = output.plain_table("key", "meaning")
        table.columns[1].no_wrap = False
        for entry in entries:
            table.add_row(entry.key, entry.summary)
        output.print_table(table)
        return 0
    if json:
        output.print_json(asdict(explain_key(key)))
    else:
        _print_key(explain_key(key))
    return 0


def _print_key(entry: KeyHelp) -> None:
    width = min(output.out.width, 100) if output.out.is_terminal else 100
    output.out.print("\n".join([entry.key, "", *wrap(entry.text, width, break_on_hyphens=False), ""]), markup=False)
    recipes: dict[str, list[str]] = defaultdict(list)
    for recipe, value in entry.recipes.items():
        recipes[dumps(value)].append(recipe)
    in_recipes = [f"{value} in {', '.join(names)}" for value, names in recipes.items()]
    if len(recipes) == 1:
        in_recipes = [f"{next(iter(recipes))} in each"]
    rows = [
        ("type", entry.type),
        ("default", "" if entry.default is None else dumps(entry.default)),
        ("family", entry.family),
        ("environment", entry.environment),
        *(("" if i else "recipes", text) for i, text in enumerate(in_recipes)),
    ]
    output.out.print("\n".join(f"{name:<13}{text}" for name, text in rows if text), markup=False)


def _load(name: str) -> RecipeConfig:
    return load_recipe(name, environment={}).config  # as the file says, whatever the environment holds


def _parameters(config: RecipeConfig) -> int:
    counts = get_family(config.model_family).counts(config.model, config.data.vocab_size)
    return sum(parameters for _, parameters, _ in counts.values())


def _text(value: Any) -> str:
    return "-" if value is None else repr(value) if isinstance(value, str) else str(value)
