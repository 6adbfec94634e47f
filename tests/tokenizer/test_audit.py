"""The audit passes a sound tokenizer and fails a broken one."""

import numpy as np
import pytest

from golfcore.tokenizer import Tokenizer, audit

DOCS = [b"the cat sat on the mat", b"", "caf\u00e9 \u4e2d\u6587".encode(), b"\xff\xfe ill-formed \x80", b"the the the"]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.train(DOCS, 264)


def test_a_sound_tokenizer(tokenizer: Tokenizer) -> None:
    result = audit(tokenizer, iter(DOCS))
    size = sum(map(len, DOCS))
    assert result.ok
    assert (result.documents, result.wrong, result.first_wrong) == (5, 0, None)
    assert result.text_bytes == result.table_bytes == result.decoded_bytes == size
    ids = [tokenizer.encode(doc) for doc in DOCS]
    assert result.tokens == sum(map(len, ids))
    assert result.bytes_per_token == size / result.tokens
    assert result.unused_ids == 260 - len(np.unique(np.concatenate(ids)))


def test_batches_add_up(tokenizer: Tokenizer) -> None:
    whole, pieces = audit(tokenizer, DOCS), audit(tokenizer, DOCS, batch_bytes=1)
    for field in ("documents", "tokens", "text_bytes", "table_bytes", "decoded_bytes", "wrong", "unused_ids"):
        assert getattr(whole, field) == getattr(pieces, field)


def test_a_wrong_table(tokenizer: Tokenizer) -> None:
    tokenizer.decode = Tokenizer.train(DOCS, 264).decode  # type: ignore[method-assign]
    tokenizer.token_bytes = tokenizer.token_bytes.copy()
    tokenizer.token_bytes[ord("\u00e9".encode()[:1]) + 4] = 3  # U+FFFD counted for a lone byte
    result = audit(tokenizer, DOCS)
    assert not result.ok
    assert (result.wrong, result.first_wrong) == (1, 2)
    assert result.table_bytes == result.text_bytes + 2


def test_a_lossy_tokenizer(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda ids: exact(ids).replace(b"\xff", b"?"))
    result = audit(tokenizer, DOCS)
    assert not result.ok
    assert result.text_bytes == result.decoded_bytes
    assert (result.wrong, result.first_wrong) == (1, 3)


def test_no_documents(tokenizer: Tokenizer) -> None:
    result = audit(tokenizer, [])
    assert result.ok
    assert (result.documents, result.tokens, result.bytes_per_token, result.unused_ids) == (0, 0, 0.0, 260)
