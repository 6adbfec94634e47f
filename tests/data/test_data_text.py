"""Reading documents: every kind of file, and every kind of bad file."""

import gzip
import json
import os
from pathlib import Path

import pytest
import zstandard

from golfcore.data import text
from golfcore.data.text import Texts, read_documents
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
        ("a.txt.gz", gzip.compress(b"x" * 1000, mtime=0)[:-9], ("damaged .gz",)),
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


def reading(*paths: Path, skip_invalid: bool = False):
    texts = Texts(paths, skip_invalid=skip_invalid)
    documents = list(texts.documents())
    assert len(documents) == texts.reading.documents
    return documents, texts.reading


@pytest.mark.parametrize("name", ["B.TXT", "b.Txt.GZ", "B.JSONL", "b.JsonL.Zst", "b.txt.zst"])
def test_suffixes_are_known_in_any_case(tmp_path: Path, name: str) -> None:
    content = b'{"text": "second"}\n' if ".jsonl" in name.lower() else b"second"
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(Path(name.lower()).suffix, bytes)
    (tmp_path / "a.jsonl").write_text('{"text": "first"}\n')
    (tmp_path / name).write_bytes(pack(content))
    assert sorted(read(tmp_path)) == [b"first", b"second"]
    assert read(tmp_path / name) == [b"second"]


def test_what_is_left_out_of_a_folder_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "in"
    for name in ("a.txt", "deep/b.jsonl", "x.md", "deep/y.MD", "z.json.gz", "README", ".hidden.txt", ".git/c.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"text": "some"}\n')
    (folder / "empty.txt").touch()
    (folder / "blank.jsonl").write_text("\n\n")
    (folder / "gone.txt").symlink_to(tmp_path / "nowhere")
    (folder / "itself.txt").symlink_to(folder / "itself.txt")
    (folder / "loop").symlink_to(folder)
    (folder / "linked.txt").symlink_to(folder / "a.txt")
    os.mkfifo(folder / "pipe.txt")
    documents, found = reading(folder)
    assert len(documents) == 3 and found.files == 3  # a link to a file is read
    assert found.left_out == {
        ".md": 2, ".json.gz": 1, "without a suffix": 1, "hidden .txt": 1, "hidden folder": 1, "empty .txt": 1,
        ".jsonl without text": 1, "broken link .txt": 2, "link to a folder": 1, "device or pipe .txt": 1,
    }  # fmt: skip
    caplog.set_level("INFO")
    assert read(folder) == documents
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("text: 3 documents in 3 files; files left out: 2 .md, 2 broken link .txt, 1 ")


def test_counts_are_told_if_nothing_is_left_out_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    (tmp_path / "a.jsonl").write_bytes(LINES)
    assert len(read(tmp_path)) == 2
    assert caplog.messages == ["text: 2 documents in 1 file; 1 empty left out"]
    assert caplog.records[0].levelname == "INFO"


def test_a_folder_without_text_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "c.pdf"):
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=r"in this folder; left out: 2 \.md, 1 \.pdf"):
        read(tmp_path)
    (tmp_path / "blank.txt").write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(InputError, match="no text in 1 files"):
        read(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "closed").mkdir(mode=0)
    assert reading(tmp_path)[1].left_out == {"folder that cannot be read": 1}


BAD_LINES = [b'{"text": "\\ud800"}', b'{"text": "\xff"}', b"\0\0", b"[", b'{"body": 1}', b'["text"]', b"{}"]


@pytest.mark.parametrize("bad", BAD_LINES)
def test_one_bad_document_is_skipped_and_counted_on_request(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "first"}\n' + bad + b'\n{"text": "second"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: .*--skip-invalid"):
        reading(path)
    documents, found = reading(path, skip_invalid=True)
    assert documents == [b"first", b"second"]
    assert (found.documents, found.invalid) == (2, 1)
    assert f"{path}:2: " in found.first_invalid and f"1 that are no text left out, the first {path}:2" in found.line()


def test_readers_without_the_choice_do_not_offer_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[\n")
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.jsonl")
    assert "skip" not in str(caught.value)


def test_a_bad_place_in_a_book_costs_one_piece(tmp_path: Path) -> None:
    paragraphs = [b"word " * 2000 + b"\n\n" for _ in range(5)]
    book = b"".join(paragraphs[:2]) + b"\xe9 " + b"".join(paragraphs[2:])
    (tmp_path / "book.txt").write_bytes(book)
    fails(tmp_path / "book.txt", f"byte 0xe9 at offset {len(paragraphs[0]) * 2}")
    documents, found = reading(tmp_path / "book.txt", skip_invalid=True)
    assert documents == paragraphs[:2] + paragraphs[3:] and found.invalid == 1


def test_nothing_but_bad_documents_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[\n")
    with pytest.raises(InputError, match="holds no text"):
        reading(tmp_path / "a.jsonl", skip_invalid=True)


@pytest.mark.parametrize("skip_invalid", [False, True])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_wide_encodings_are_named(tmp_path: Path, name: str, encoding: str, skip_invalid: bool) -> None:
    text = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / name).write_bytes((text + '{"text": "hello"}\n').encode(encoding))
    with pytest.raises(InputError, match=f"in UTF-{32 if '32' in encoding else 16}, .*iconv -f UTF-"):
        reading(tmp_path / name, skip_invalid=skip_invalid)


def test_byte_order_marks_within_joined_files(tmp_path: Path) -> None:
    line = b'\xef\xbb\xbf{"text": "hello"}\r\n'
    (tmp_path / "a.jsonl").write_bytes(line * 2)
    assert read(tmp_path / "a.jsonl") == [b"hello"] * 2
