"""Bytes of a text: counted on it, on its tokens, by the table or the sidecar; what differs names the first token."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from golfcore.data import variants
from golfcore.data.shards import ShardWriter
from golfcore.data.variants import VARIANTS
from golfcore.errors import RuleError
from golfcore.evaluate import text as text_module
from golfcore.evaluate.text import contest_text, documents_text
from golfcore.tokenizer import Tokenizer

DOCUMENTS = [b"first", b"a second one"]


class Wrong(Tokenizer):
    """A byte tokenizer whose table or decoder is wrong for the letter e."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "table":
            self.token_bytes = self.token_bytes.copy()
            self.token_bytes[4 + ord("e")] = 3

    def decode(self, ids: np.ndarray) -> bytes:
        found = super().decode(ids)
        return found.replace(b"e", b"E" if self.kind == "case" else b"e" if self.kind == "table" else b"")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("case", "document 1 does not decode to itself: its token 3 (id 105) gives b'E', the text has b'e'"),
        ("table", "document 1 has other bytes than the table says: its token 3 (id 105) decodes to 1 bytes, the byte "
         "table counts 3"),
        ("lost", "document 1 has other bytes than the table says: its token 3 (id 105) decodes to 0 bytes"),
    ],
)  # fmt: skip
def test_a_disagreement_names_document_and_token(kind: str, message: str) -> None:
    with pytest.raises(RuleError, match=re.escape(message)):
        documents_text(DOCUMENTS, Wrong(kind))


def test_text_tokens_and_table_that_agree_are_scored() -> None:
    text = documents_text(DOCUMENTS, Tokenizer())
    assert (text.total_bytes, text.documents, len(text.tokens)) == (17, 2, 19)


def shards(folder: Path, tokens: np.ndarray, counts: np.ndarray | None = None) -> Path:
    folder.mkdir(parents=True)
    for split, ids in (("val", tokens), ("val_bytes", counts)):
        if ids is not None:
            with ShardWriter(folder, split) as writer:
                writer.append(ids.astype(np.uint16))
    return folder


TOKENS = np.array([1, 7, 8, 9, 1, 7, 7, 8, 9])


def five_each(ids: np.ndarray) -> np.ndarray:
    return np.where(ids[1:] == 1, 0, 5)


def test_byte_counts_beside_the_shards_are_used(tmp_path: Path) -> None:
    plain = contest_text(shards(tmp_path / "a", TOKENS), five_each, 4)
    assert (plain.total_bytes, plain.split) == (35, "")
    counts = np.array([0, 1, 0, 3, 0, 1, 0, 0, 2])
    sided = contest_text(shards(tmp_path / "b", TOKENS, counts), five_each, 4)
    assert sided.total_bytes == 7 and sided.token_bytes.tolist() == counts.tolist()


def test_byte_counts_of_other_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"8 byte counts .* for 9 validation tokens"):
        contest_text(shards(tmp_path / "short", TOKENS, np.zeros(8)), five_each, 4)
    with pytest.raises(RuleError, match="token 4 begins a document, and the byte counts give it 2 bytes, not 0"):
        contest_text(shards(tmp_path / "mark", TOKENS, np.array([0, 1, 1, 1, 2, 1, 1, 1, 1])), five_each, 4)


def test_the_contests_split_is_compared_with_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = VARIANTS["caseops"].dataset
    part = contest_text(shards(tmp_path / name, TOKENS), five_each, 4)
    assert part.split.startswith("not the contest's whole split: 8 tokens of 2 documents, the split has 47,851,520 of")
    whole = variants.Variant("", name, byte_counts=True, val_targets=8)
    monkeypatch.setitem(VARIANTS, "caseops", whole)
    monkeypatch.setattr(text_module, "VAL_ROW", 4)
    monkeypatch.setattr(text_module, "VAL_BYTES", 35)
    assert contest_text(tmp_path / name, five_each, 4).split == (
        "the contest's whole split: 2 documents, 8 tokens, 35 bytes, as known"
    )
    monkeypatch.setattr(text_module, "VAL_BYTES", 30)
    with pytest.raises(RuleError, match=r"about 30 bytes, 35 were counted: .*val_bytes_\*.bin are missing"):
        contest_text(tmp_path / name, five_each, 4)


def test_only_folders_named_as_the_contests_are_compared(tmp_path: Path) -> None:
    assert variants.of_folder(tmp_path / "fineweb10B_sp1024") is VARIANTS["sp1024"]
    assert variants.of_folder(tmp_path / "fineweb10B_other") is None
    assert contest_text(shards(tmp_path / "fineweb10B_sp4096", TOKENS), five_each, 4).split == ""  # its size is unknown
