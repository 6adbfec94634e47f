"""Bytes of a SentencePiece model's tokens, on a model trained here with the contest's options."""

import io
from pathlib import Path

import numpy as np
import pytest

from golfcore.errors import FormatError, InputError
from golfcore.tokenizer import SentencePieceTable, sp_byte_table

sentencepiece = pytest.importorskip("sentencepiece")

SENTENCES = [
    "The model predicts the next token of the text",
    "A byte counts once, and a space counts once",
    "In 2024 the cap was 16000000 bytes",
    "Caf\u00e9 and na\u00efve and more caf\u00e9",
] * 20


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=written, model_type="bpe", vocab_size=340,
        character_coverage=0.999, byte_fallback=True, split_digits=True, normalization_rule_name="nmt_nfkc",
        add_dummy_prefix=False, remove_extra_whitespaces=True, hard_vocab_limit=False,
        pad_id=0, bos_id=1, eos_id=2, unk_id=3, minloglevel=2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("sp") / "tiny.model"
    path.write_bytes(written.getvalue())
    return path


@pytest.fixture(scope="module")
def model(model_path: Path):  # type: ignore[no-untyped-def]
    return sentencepiece.SentencePieceProcessor(model_file=str(model_path))


def test_each_kind_of_piece(model_path: Path, model) -> None:  # type: ignore[no-untyped-def]
    table = sp_byte_table(model_path)
    assert len(table) == model.vocab_size() > 260
    assert table[:4].tolist() == [(0, False, True)] * 4
    assert table[4:260].tolist() == [(1, False, False)] * 256
    assert table[model.piece_to_id("\u2581")].tolist() == (0, True, False)
    assert table[model.piece_to_id("\u2581the")].tolist() == (3, True, False)
    assert table[model.piece_to_id("\u00e9")].tolist() == (2, False, False)


@pytest.mark.parametrize(
    "text",
    [
        "The token",
        " a space  first and\ndoubled",
        "snowman \u2603 \U0001f600 by bytes",
        "caf\u00e9 3.14",
        "\ufb01ne \u2460",  # normalized: fi, 1
        "",
    ],
)
def test_counts_add_up_to_the_normalized_text(model_path: Path, model, text: str) -> None:  # type: ignore[no-untyped-def]
    table = SentencePieceTable.load(model_path)
    ids = np.array([1, *model.encode(text)], np.uint16)
    counts = table.count_bytes(ids)
    assert counts.shape == (len(ids) - 1,)
    assert counts.sum() == len(model.decode(ids[1:].tolist()).encode())
    # Token by token: what each adds to the decoded text, where a prefix is whole characters.
    pieces = [model.id_to_piece(int(i)) for i in ids[1:]]
    for piece, count in zip(pieces, counts, strict=True):
        is_byte = piece.startswith("<0x")
        assert count == (1 if is_byte else len(piece.replace("\u2581", " ").encode()))


def test_a_space_after_a_boundary_is_not_counted(model_path: Path, model) -> None:  # type: ignore[no-untyped-def]
    table = SentencePieceTable.load(model_path)
    the, byte = model.piece_to_id("\u2581the"), 4 + ord("x")
    stream = np.array([1, the, the, byte, the, 2, the, 3, the, 0, 1, byte], np.uint16)
    assert table.count_bytes(stream).tolist() == [3, 4, 1, 4, 0, 3, 0, 3, 0, 0, 1]


def test_short_streams_and_foreign_ids(model_path: Path) -> None:
    table = SentencePieceTable.load(model_path)
    assert table.count_bytes(np.array([], np.uint16)).tolist() == []
    assert table.count_bytes(np.array([1], np.uint16)).tolist() == []
    for bad in ([1, table.vocab_size], [-1, 5]):
        with pytest.raises(InputError, match=f"expected 0 to {table.vocab_size - 1}"):
            table.count_bytes(np.array(bad, np.int64))


def test_files_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the model"):
        sp_byte_table(tmp_path / "missing.model")
    for content in (b"", b"not a model", b"\x0a\xff\xff\xff\xff\x0f"):
        (tmp_path / "bad.model").write_bytes(content)
        with pytest.raises(FormatError, match="not a SentencePiece model"):
            sp_byte_table(tmp_path / "bad.model")
