"""A folder of tokens that is not there: the error says the commands that make it."""

from __future__ import annotations

from pathlib import Path

import pytest

from golfcore.data.hints import how_to_prepare
from golfcore.data.shards import ShardSet
from golfcore.data.tokens import open_tokens
from golfcore.data.variants import VARIANTS
from golfcore.errors import InputError
from golfcore.recipes import load_recipe

FETCH = "pip install 'golfcore[hub,sentencepiece]' && golfcore data get fineweb --variant "


@pytest.mark.parametrize("recipe", ["baseline_8xh100", "frontier_8xh100", "smoke_1gpu"])
def test_recipes_of_the_contest_name_the_download(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = load_recipe(recipe, environment={}).config.data
    (variant,) = (name for name, found in VARIANTS.items() if Path(data.path).name == found.dataset)
    with pytest.raises(InputError, match="no such folder") as caught:
        open_tokens(data.path, data.tokenizer)
    assert str(caught.value).endswith(FETCH + variant)
    with pytest.raises(InputError, match="no such folder") as caught:
        ShardSet.of_split(Path(data.path), "train")
    assert str(caught.value).endswith(FETCH + variant)
    Path(data.path).mkdir(parents=True)
    with pytest.raises(InputError, match=r"no fineweb_train_000000\.bin in it") as caught:
        ShardSet.of_split(Path(data.path), "train")
    assert str(caught.value).endswith(FETCH + variant)


def test_the_command_writes_to_where_the_folder_was_looked_for() -> None:
    folder = Path("/some where/datasets/fineweb10B_sp4096")
    assert how_to_prepare(folder).endswith(FETCH + "sp4096 -o '/some where'")


@pytest.mark.parametrize("folder", ["fineweb10B_sp1024", "data/datasets/own", "my data"])
def test_any_other_folder_is_prepared_from_text(folder: str) -> None:
    quoted = f"'{folder}'" if " " in folder else folder
    made = f"make it with: golfcore data prepare --text YOUR_TEXT -o {quoted}"
    assert how_to_prepare(Path(folder)) == made
