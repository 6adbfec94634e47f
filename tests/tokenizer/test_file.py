"""The tokenizer file: what is written is read, and nothing else is."""

import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golfcore.errors import FormatError, InputError
from golfcore.tokenizer import Tokenizer

A, B, C = (ord(c) + 4 for c in "abc")
MERGES = [(A, B), (260, C), (261, 261), (C, C)]
FILE = Tokenizer(MERGES).to_bytes()


def file_of(merges: list[tuple[int, int]], *, magic: bytes = b"golfbpe\0", version: int = 1, pattern: int = 1) -> bytes:
    body = struct.pack("<8sHHI", magic, version, pattern, len(merges))
    body += b"".join(struct.pack("<HH", *pair) for pair in merges)
    return body + struct.pack("<I", zlib.crc32(body))


def test_the_file_is_as_documented() -> None:
    assert file_of(MERGES) == FILE
    assert len(file_of([])) == len(Tokenizer().to_bytes()) == 20


def test_save_and_load(tmp_path: Path) -> None:
    for tokenizer in (Tokenizer(MERGES), Tokenizer()):
        tokenizer.save(tmp_path / "t.bpe")
        loaded = Tokenizer.load(tmp_path / "t.bpe")
        assert loaded.to_bytes() == tokenizer.to_bytes()
        assert loaded.sha256 == tokenizer.sha256
        assert loaded.encode(b"abcabcabcc c").tolist() == tokenizer.encode(b"abcabcabcc c").tolist()
    assert Tokenizer(MERGES).encode(b"abcabcabcc c").tolist() == [262, 261, C, 36, C]


@pytest.mark.parametrize("size", [0, 1, 8, 19, len(FILE) - 1])
def test_a_cut_file(size: int) -> None:
    with pytest.raises(FormatError):
        Tokenizer.from_bytes(FILE[:size])


@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
def test_a_changed_byte(at: int, flip: int) -> None:
    changed = bytearray(FILE)
    changed[at] ^= flip
    with pytest.raises(FormatError):
        Tokenizer.from_bytes(bytes(changed))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not a tokenizer at all....", "does not begin with"),
        (file_of(MERGES, magic=b"golfbpe\1"), "does not begin with"),
        (file_of(MERGES, version=2), "version 2"),
        (file_of(MERGES, pattern=0), "pattern 0"),
        (FILE + b"\0", "expected 36 for 4 merges"),
        (struct.pack("<8sHHI", b"golfbpe\0", 1, 1, 0xFFFFFFFF) + bytes(8), "4,294,967,295 merges"),
        (struct.pack("<8sHHI", b"golfbpe\0", 1, 1, 65_276) + bytes(8), "expected 261,124"),
        (FILE[:-1] + bytes([FILE[-1] ^ 1]), "checksum"),
        (file_of([(A, 260)]), r"merge 0 \(101, 260\) must join two earlier ids"),
        (file_of([(A, B), (261, A)]), r"merge 1 \(261, 101\) must join"),
        (file_of([(3, A)]), "not special"),
        (file_of([(A, 0)]), "not special"),
        (file_of([(A, B), (B, C), (A, B)]), "merge 2 .* is there twice"),
        (file_of([(A, B), (260, C), (B, C), (A, 262)]), "merge 3 .* never happens"),
        (file_of([(A, A), (260, 260), (260, A), (262, A)]), "merge 3 .* never happens"),
        (file_of([(A, A)] + [(i, i) for i in range(260, 267)]), "merge 7 .* too long"),
    ],
)
def test_hostile_files(content: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=why):
        Tokenizer.from_bytes(content)
    (tmp_path / "bad.bpe").write_bytes(content)
    with pytest.raises(FormatError, match=f"bad.bpe: .*({why})"):
        Tokenizer.load(tmp_path / "bad.bpe")


IDS = st.integers(0, 270) | st.sampled_from([65_535, A, A, B, 260])


@given(st.lists(st.tuples(IDS, IDS), max_size=12))
def test_any_merges_with_a_good_checksum(merges: list[tuple[int, int]]) -> None:
    content = file_of(merges)
    try:
        tokenizer = Tokenizer.from_bytes(content)
    except FormatError:
        return
    assert tokenizer.to_bytes() == content
    tokens = [tokenizer.token(i) for i in range(4, tokenizer.vocab_size)]
    assert len(set(tokens)) == len(tokens)
    assert tokenizer.token_bytes[4:].tolist() == [len(token) for token in tokens]


def test_the_biggest_vocabulary() -> None:
    # Each pair of 255 of the bytes: 65,025 merges, and 251 of a pair with the last byte.
    pairs = [(a, b) for a in range(4, 259) for b in range(4, 259)] + [(a, 259) for a in range(4, 255)]
    tokenizer = Tokenizer.from_bytes(file_of(pairs))
    assert tokenizer.vocab_size == 65_536
    assert tokenizer.encode(b"\xfa\xff").tolist() == [65_535]
    assert tokenizer.decode([65_535]) == b"\xfa\xff"


def test_merges_that_are_no_pairs_of_ids() -> None:
    for merges in ([1, 2], [[1, 2, 3]], [[1.0, 2.0]], [[-1, A]], [[A, 65_536 + B]], [[A, B]] * 65_277):
        with pytest.raises(FormatError):
            Tokenizer(merges)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.bpe"):
        Tokenizer.load(tmp_path / "missing.bpe")
    with pytest.raises(InputError, match="cannot read"):
        Tokenizer.load(tmp_path)
    (tmp_path / "endless").write_bytes(FILE + bytes(1 << 20))
    with pytest.raises(FormatError, match="expected 36"):
        Tokenizer.load(tmp_path / "endless")
