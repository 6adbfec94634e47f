"""Contest shards with a tokenizer beside them, and a recipe that reads them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tiny import recipe

from golfcore.config import RecipeConfig
from golfcore.data.shards import ShardWriter
from golfcore.tokenizer import Tokenizer


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder of two training shards and one of validation, of bytes."""
    folder = tmp_path / "fineweb10B_byte260"
    folder.mkdir()
    ids = np.random.default_rng(0).integers(4, 260, 800, dtype=np.uint16)
    ids[::100] = 1  # the start of a document
    for split, count in (("train", 800), ("val", 400)):
        with ShardWriter(folder, split, 400) as writer:
            writer.append(ids[:count])
    Tokenizer().save(folder / "bytes.bpe")
    return folder


@pytest.fixture
def boxed(shards: Path) -> RecipeConfig:
    config = recipe(warmup_steps=1)
    data = dataclasses.replace(config.data, path=str(shards), tokenizer=str(shards / "bytes.bpe"), vocab_size=260)
    return dataclasses.replace(config, data=data)
