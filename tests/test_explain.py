"""Help for the keys of recipes: every key of every section and family has a text that stands alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest

from golfcore.config import CONTEST_ENV, SECTIONS, RecipeConfig
from golfcore.errors import UsageError
from golfcore.model import family_configs
from golfcore.recipes import recipe_names
from golfcore.recipes.explain import KeyHelp, all_keys, attribute_texts, explain

FAMILIES = {name: cls for name, cls in family_configs().items() if cls.__module__.startswith("golfcore.")}
KEYS = [entry for entry in all_keys() if not entry.family or entry.family in FAMILIES]


@pytest.mark.parametrize("cls", [*SECTIONS.values(), *FAMILIES.values(), RecipeConfig], ids=lambda cls: cls.__name__)
def test_a_configs_docstring_has_a_text_for_each_field_and_for_nothing_else(cls: type) -> None:
    assert list(attribute_texts(cls)) == [field.name for field in dataclasses.fields(cls)]


def test_every_key_is_listed_once() -> None:
    expected = {"name", "model.family"}
    for section, cls in SECTIONS.items():
        expected |= {f"{section}.{field.name}" for field in dataclasses.fields(cls)}
    for cls in FAMILIES.values():
        expected |= {f"model.{field.name}" for field in dataclasses.fields(cls)}
    assert {entry.key for entry in KEYS} == expected
    assert len({(entry.key, entry.family) for entry in KEYS}) == len(KEYS)
    assert set(CONTEST_ENV) == {entry.environment for entry in KEYS} - {""}


@pytest.mark.parametrize("entry", KEYS, ids=lambda entry: entry.key)
def test_a_text_is_made_of_whole_sentences(entry: KeyHelp) -> None:
    assert entry.text.endswith(".") and len(entry.text.split()) >= 5, entry.text
    assert entry.text[0].isupper() and entry.summary.endswith("."), entry.text
    assert "``" not in entry.text and "\n" not in entry.text, entry.text


def test_a_key_is_explained() -> None:
    entry = explain("optim.matrix-lr")
    assert (entry.key, entry.section, entry.name, entry.family) == ("optim.matrix_lr", "optim", "matrix_lr", "")
    assert (entry.type, entry.default, entry.environment) == ("a number, 0 to 1,000,000", 0.04, "MATRIX_LR")
    assert set(entry.recipes) == set(recipe_names()) and entry.recipes["pocket"] == 0.03
    assert "learning rate of Muon" in entry.summary
    stride = explain("eval.stride")
    assert (stride.type, stride.summary) == (
        "a whole number, 0 to 1,048,576 or auto",
        "Tokens that are scored per window; the rest of the window is context.",
    )
    assert explain("model.num_layers").family == "gpt"
    assert explain("model.family").default == "gpt"
    assert explain("name").default is None


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("quant.rat", "unknown key 'quant.rat'; did you mean 'quant.rate'?"),
        ("rate", "did you mean 'quant.rate'?"),
        ("batch_tokens", "did you mean 'eval.batch_tokens' or 'train.batch_tokens'?"),
        ("", "unknown key ''"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        explain(key)
    assert said in str(caught.value)


def test_a_class_without_texts_has_none() -> None:
    @dataclass(frozen=True)
    class Plain:
        width: int = 1

    assert attribute_texts(Plain) == {}
