"""What the data tests share: a small text, a prepared folder, and a stand-in for golfcore's tokenizer."""

import json
import sys
import types
from pathlib import Path

import pytest
from byte_tokenizer import ByteTokenizer

from golfcore.data.manifest import Manifest
from golfcore.data.prepare import prepare


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[ByteTokenizer]:
    """Puts the stand-in where ``golfcore.tokenizer`` is looked up, and the cache into the test's own folder.

    Returns the tokenizers that were trained.
    """
    made: list[ByteTokenizer] = []

    class Recording(ByteTokenizer):
        @classmethod
        def train(cls, docs: list[bytes], vocab_size: int, threads: int = 0) -> ByteTokenizer:
            made.append(ByteTokenizer(list(docs)))
            return made[-1]

    module = types.ModuleType("golfcore.tokenizer")
    module.Tokenizer = Recording  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "golfcore.tokenizer", module)
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path / "cache"))
    return made


DOCUMENTS = [f"Document {i}: " + "naïve café ☕ " * (i % 7 + 1) for i in range(60)]


@pytest.fixture
def documents() -> list[bytes]:
    return [d.encode() for d in DOCUMENTS]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """60 documents and a double of the third."""
    path = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"text": d}) for d in [*DOCUMENTS, DOCUMENTS[2]]]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def prepared(corpus: Path, tmp_path: Path) -> tuple[Path, Manifest]:
    """The corpus prepared with shards of 500 tokens, so that documents cross shard ends."""
    out = tmp_path / "prepared"
    manifest = prepare([corpus], out, tokenizer=ByteTokenizer(), val_fraction=0.2, shard_tokens=500)
    return out, manifest
