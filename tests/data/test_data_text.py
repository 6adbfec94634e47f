"""Reading documents: every kind of file, and every kind of bad file."""

import gzip
import json
import os
from pathlib import Path

import pytest
import zstandard

from golfcore.data import text
from golfcore.data.text import read_documents
from golfcore.errors import InputError


def read(*paths: Path) -> list[bytes]:
    return list(read_documents(paths))


def fails(path: Path, *expected: str) -> None:
    with pytest.raises(InputError) as caught:
        read(path)
    for part in expected:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


LINES = b'{"text": "first \\u00e9"}\n\n{"id": 3, "text": "second"}\n{"text": ""}\n'


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".gz", gzip.compress), (".zst", zstandard.ZstdCompressor().compress)],
)
def test_every_kind_and_compression(tmp_path: Path, suffix: str, pack) -> None:
    whole = tmp_path / f"a.txt{suffix}"
    whole.write_bytes(pack(b"one document\r\nof two lines\n"))
    lines = tmp_path / f"b.jsonl{suffix}"
    lines.write_bytes(pack(LINES))
    assert read(lines, whole) == ["first é".encode(), b"second", b"one document\r\nof two lines\n"]


def test_zstd_frames_end_to_end_and_of_many_blocks(tmp_path: Path) -> None:
    parts = [os.urandom(300_000).hex().encode(), b"x" * 3_000_000, b"end"]
    path = tmp_path / "a.txt.zst"
    path.write_bytes(b"".join(zstandard.ZstdCompressor().compress(p) for p in parts))
    assert read(path) == [b"".join(parts)]


def test_a_folder_is_walked_in_sorted_order_without_hidden_and_other_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a.txt", ".hidden.txt", ".git/x.txt", "image.png", "notes.md"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert read(tmp_path / "in") == [b"a/z.txt", b"a.txt", b"b.txt"]


def test_the_iterator_opens_files_only_as_it_advances(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("fine")
    bad.write_bytes(b"\xff")
    documents = read_documents([good, bad])
    assert next(documents) == b"fine"
    with pytest.raises(InputError):
        next(documents)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "hello"}\n')
    assert read(tmp_path / "a.txt", tmp_path / "b.jsonl") == [b"hello", b"hello"]


def test_missing_and_unknown_paths_fail_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothere\.txt: no such file"):
        read_documents([tmp_path / "nothere.txt"])
    (tmp_path / "a.pdf").write_bytes(b"x")
    with pytest.raises(InputError, match="unknown kind"):
        read_documents([tmp_path / "a.pdf"])
    with pytest.raises(InputError, match="in this folder"):
        read_documents([tmp_path])
    with pytest.raises(InputError, match="no text was given"):
        read_documents([])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", b"", ("a.txt", "holds no text")),
        ("a.txt", b"\xef\xbb\xbf", ("holds no text",)),
        ("a.jsonl", b'\n{"text": ""}\n', ("holds no text",)),
        ("a.txt", b"plain\x00binary", ("a.txt", "NUL", "offset 5")),
        ("a.txt", b"caf\xe9 latin-1", ("a.txt", "not UTF-8", "0xe9", "offset 3")),
        ("a.jsonl", b'{"text": "ok"}\n{"text": "\xff"}\n', ("a.jsonl:2", "not UTF-8", "offset 25")),
        ("a.jsonl", b'{"text": "ok"}\n\x00\n', ("a.jsonl:2", "NUL", "offset 15")),
        ("a.jsonl", b'{"text": "ok"}\n{"text": \n', ("a.jsonl:2", "not a JSON line")),
        ("a.jsonl", b'{"text": "ok"}\n\n{"body": "x"}\n', ("a.jsonl:3", 'no string under "text"')),
        ("a.jsonl", b'{"text": 5}\n', ("a.jsonl:1", 'no string under "text"')),
        ("a.jsonl", b'["text"]\n', ("a.jsonl:1", 'no string under "text"')),
        ("a.jsonl", b'{"text": "\\ud800"}\n', ("a.jsonl:1", "surrogate")),
        ("a.jsonl", b"[" * 200_000, ("a.jsonl:1", "not a JSON line")),
        ("a.txt.gz", b"not gzip", ("a.txt.gz", "damaged .gz")),
        ("a.txt.gz", gzip.compress(b"x" * 1000)[:-9], ("damaged .gz",)),
        ("a.txt.zst", b"not zstd at all", ("a.txt.zst", "damaged .zst")),
        ("a.txt.zst", zstandard.compress(os.urandom(5000).hex().encode())[:-9], ("damaged .zst", "middle of a frame")),
    ],
)
def test_bad_files_say_where_and_why(tmp_path: Path, name: str, content: bytes, expected: tuple[str, ...]) -> None:
    (tmp_path / name).write_bytes(content)
    fails(tmp_path / name, *expected)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.zst"])
def test_the_length_of_a_document_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    content = json.dumps({"text": "x" * 980}).encode()
    assert len(content) == 992
    path = tmp_path / name
    path.write_bytes(zstandard.compress(content) if name.endswith("zst") else content)
    monkeypatch.setattr(text, "MAX_DOCUMENT_BYTES", 992)
    assert len(read(path)) == 1
    monkeypatch.setattr(text, "MAX_DOCUMENT_BYTES", 991)
    fails(path, "more than")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    path.chmod(0)
    fails(path, "cannot be read")


def test_a_long_txt_is_cut_at_blank_lines_and_loses_nothing(tmp_path: Path) -> None:
    paragraphs = [b"word " * (50 + i) + b"\n\n" for i in range(200)]
    (tmp_path / "book.txt").write_bytes(b"".join(paragraphs))
    pieces = read(tmp_path / "book.txt")
    assert b"".join(pieces) == b"".join(paragraphs)
    assert len(pieces) > 5
    assert all(piece.endswith(b"\n\n") for piece in pieces)
    assert all(8192 < len(piece) < 8192 + 2000 for piece in pieces[:-1])

    lines = b"".join(b"%d " % i * 30 + b"\n" for i in range(4000))  # no blank line anywhere
    (tmp_path / "lines.txt").write_bytes(lines)
    assert b"".join(read(tmp_path / "lines.txt")) == lines
    assert len(read(tmp_path / "lines.txt")) > 5
