"""Reading and writing recipes: values of each type, from a file and from text, and what errors say."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from golfcore.config import (
    GivenText,
    RecipeConfig,
    TrainConfig,
    from_mapping,
    parse_set,
    parse_value,
    set_key,
    to_toml,
    to_tree,
)  # fmt: skip
from golfcore.errors import UsageError
from golfcore.pipeline.config import read_config
from golfcore.recipes import load_recipe
from golfcore.report import load_run


@dataclass(frozen=True, kw_only=True)
class Example:
    count: int = 1
    rate: float = 0.5
    tied: bool = True
    path: str = ""
    word: Literal["left", "right"] = "left"
    stride: int | Literal["auto"] = 0
    sizes: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    note: str | None = None


def read(key: str, value: Any) -> Any:
    return getattr(from_mapping(Example, {key: value}, "example"), key)


@pytest.mark.parametrize("seed", [-1, 1 << 63, -(10**30)])
def test_a_seed_is_what_both_generators_take(seed: int) -> None:
    with pytest.raises(
        UsageError, match=r"train\.seed = -?\d+: expected a whole number, 0 to 1,000,000,000,000,000,000"
    ):
        TrainConfig(seed=seed)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("rate", 1, 1.0),
        ("count", 1e6, 1_000_000),
        ("tied", 1, True),
        ("tied", 0, False),
        ("stride", "auto", "auto"),
        ("stride", 64.0, 64),
        ("sizes", [1, 2.0], (1, 2)),
        ("sizes", (1, 2), (1, 2)),
        ("shares", [0, 0.5], (0.0, 0.5)),
        ("names", ["up=11.5"], ("up=11.5",)),
        ("word", "right", "right"),
        ("note", None, None),
    ],
)
def test_a_value_of_a_file_becomes_the_fields_type(key: str, value: Any, expected: Any) -> None:
    result = read(key, value)
    assert (result, type(result)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("path", "1.10", "1.10"),
        ("path", "007", "007"),
        ("path", "true", "true"),
        ("path", " two words ", " two words "),
        ("path", "a\"b'c", "a\"b'c"),
        ("path", '"0,3-5"', "0,3-5"),
        ("path", "", ""),
        ("path", "größe", "größe"),
        ("note", "1.10", "1.10"),
        ("count", " 8", 8),
        ("count", "1e6", 1_000_000),
        ("rate", "3", 3.0),
        ("tied", "1", True),
        ("tied", "false", False),
        ("word", "right", "right"),
        ("stride", "auto", "auto"),
        ("stride", "64", 64),
        ("sizes", "[1, 2]", (1, 2)),
        ("names", '["1.10"]', ("1.10",)),
    ],
)
def test_text_is_read_as_its_keys_type(key: str, text: str, expected: Any) -> None:
    result = read(key, GivenText(text))
    assert (result, type(result)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("count", 1.5, "example.count = 1.5: expected a whole number"),
        ("count", True, "example.count = True: expected a whole number"),
        ("count", GivenText("many"), "example.count = 'many': expected a whole number"),
        ("rate", True, "example.rate = True: expected a number"),
        ("tied", 2, "example.tied = 2: expected true or false"),
        ("tied", 1.0, "example.tied = 1.0: expected true or false"),
        ("path", 1.1, "example.path = 1.1: expected a quoted text"),
        ("word", "rigt", "example.word = 'rigt': expected left or right; did you mean 'right'?"),
        ("word", 3, "example.word = 3: expected left or right"),
        ("stride", "aut", "example.stride = 'aut': expected a whole number or auto; did you mean 'auto'?"),
        ("sizes", "3", "example.sizes = '3': expected a list of whole numbers"),
        ("names", ["a", 1], "example.names = ['a', 1]: expected a list of quoted texts"),
        ("cuont", 1, "unknown key example.cuont; did you mean 'count'?"),
    ],
)
def test_an_error_names_the_key_the_value_and_what_is_expected(key: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(key, value)
    assert str(caught.value) == said


def load(*sets: str, **environment: str) -> RecipeConfig:
    return load_recipe("pocket", environment=environment, sets=sets).config


def test_a_path_keeps_the_text_that_was_given() -> None:
    assert load("data.path=1.10").data.path == "1.10"
    assert load(DATA_PATH="007").data.path == "007"
    assert load("model.xsa_layers=2").model.xsa_layers == "2"
    assert load(TIE_EMBEDDINGS="0").model.tie_embeddings is False
    assert load(TRAIN_BATCH_TOKENS="8192", MATRIX_LR="1").optim.matrix_lr == 1.0


def test_a_section_is_a_table(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text("train = 5\n")
    with pytest.raises(UsageError, match=r"train = 5: expected a section, \[train\] and its keys below"):
        load_recipe(str(own), environment={})


def test_toml_brings_every_text_back() -> None:
    awkward = ["", "a \"b\" 'c'", "two\nlines\r\n", "größe, 日本", "C:\\new", "tab\there", "\x1f", '"""', "1.10"]
    for text in awkward:
        recipe = load(f"data.tokenizer={text}")
        assert recipe.data.tokenizer == text
        assert tomllib.loads(to_toml(to_tree(recipe)))["data"]["tokenizer"] == text


def test_toml_brings_every_value_back(tmp_path: Path) -> None:
    recipe = load("train.batch_ramp=[8192]", "train.batch_ramp_until=[0.1]", "optim.adam_eps=1e-12")
    own = tmp_path / "own.toml"
    own.write_text(to_toml(to_tree(recipe)), encoding="utf-8")
    assert load_recipe(str(own), environment={}).config == recipe


def test_parts_of_the_command_line() -> None:
    assert parse_set("optim.matrix-lr = 0.03") == ("optim.matrix_lr", " 0.03")
    assert [parse_value(text) for text in ("8", "0.5", "true", "[1]", "word", "")] == [8, 0.5, True, [1], "word", ""]
    tree: dict[str, Any] = {"name": "x"}
    set_key(tree, "train.seed", 3)
    assert tree == {"name": "x", "train": {"seed": 3}}
    for key in ("seed", "a.b.c", "name.x"):
        with pytest.raises(UsageError):
            set_key(tree, key, 1)
    with pytest.raises(UsageError, match=r"expected section\.key=value"):
        parse_set("train.seed")


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    text = 'name = "mine"\r\n[train]\r\nseed = 7\r\n'
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode("utf-8-sig"))
    assert load_recipe(str(path), environment={}).config == load_recipe_of(text.encode(), tmp_path)
    (tmp_path / "config.toml").write_bytes(path.read_bytes())
    assert read_config(tmp_path).train.seed == 7
    assert load_run(tmp_path).config["train"] == {"seed": 7}


def load_recipe_of(content: bytes, folder: Path) -> RecipeConfig:
    (folder / "other.toml").write_bytes(content)
    return load_recipe(str(folder / "other.toml"), environment={}).config


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("name = 1".encode("utf-16"), "in UTF-16, .* save it in UTF-8"),
        ("\ufeffname = 1".encode("utf-16-be"), "in UTF-16"),
        (b"name = 1 # caf\xe9", "not UTF-8, byte 0xe9 at offset 14"),
    ],
)
def test_a_recipe_in_another_encoding_says_so(content: bytes, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"other\.toml: {expected}"):
        load_recipe_of(content, tmp_path)
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(UsageError, match=expected):
        read_config(tmp_path)


@pytest.mark.parametrize("text", ["[" * 5000, "seed = " + "9" * 5000, "a = {" * 3000, "[train]\nseed = \x00"])
def test_a_file_that_toml_cannot_stand_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(UsageError) as error:
        load_recipe(str(tmp_path / "t.toml"), environment={})
    assert str(error.value).isprintable()


@pytest.mark.parametrize("value", ["[" * 5000, "9" * 5000, "{a=" * 3000])
def test_a_value_that_toml_cannot_stand_is_one_line(value: str) -> None:
    with pytest.raises(UsageError, match=r"train\.batch_ramp"):
        load_recipe("pocket", environment={}, sets=[f"train.batch_ramp={value}"])
