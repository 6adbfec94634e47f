"""The compiled BPE against a slow obvious one and against tiktoken."""

import random
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiktoken
from bpe_reference import encode as encode_slowly
from bpe_reference import split as split_slowly
from bpe_reference import train as train_slowly
from hypothesis import given
from hypothesis import strategies as st

from golfcore.errors import InputError, UsageError
from golfcore.tokenizer import Tokenizer, split

# Characters whose class this Python knows: younger ones may be letters to the compiled tables (Unicode 16.0) alone.
KNOWN = st.characters(exclude_categories=("Cs", "Cn"))
TRICKY = st.sampled_from([
    "'", "s", "S", "t", "l", "L", "v", "E", "re", "'ll", "'\u017f", "a", "Z", "\u00e9", "\u4e2d", "e\u0301", "0", "7",
    "\u0663", "\u00b2", "\u2167", " ", "  ", "\t", "\n", "\r", "\r\n", "\x0b", "\x1c", "\x85", "\u00a0", "\u2028",
    "\u3000", "\u200b", ".", "...", "-", "_", "\x00", "\x7f", "\u20ac", "\U0001f600", "\U0001f469\u200d\U0001f680",
    "\ue000", "\U0010fffd", "\ufffd", "\U00020000", "aaaaaaaaa", "aaaaaaa\u00e9", "abcdefghijklmnopqrstuvwxyz" * 2,
])  # fmt: skip
TEXT = st.lists(TRICKY | KNOWN, max_size=40).map("".join)
ILL_FORMED = st.sampled_from(
    [
        b"\x80",
        b"\xbf",
        b"\xc0\xaf",
        b"\xc2",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x98",
        b"\xf4\x90\x80\x80",
        b"\xff",
    ]
)
ANY_BYTES = st.lists(TEXT.map(str.encode) | ILL_FORMED | st.binary(max_size=8), max_size=12).map(b"".join)
REPETITIVE = st.lists(st.sampled_from(["a", "a", "b", "aa", "ab", " a", " ", "1", "\u00e9", "\n"]), max_size=60).map(
    lambda parts: "".join(parts).encode()
)


def sample_text(seed: int, words: int) -> bytes:
    rng = random.Random(seed)
    roots = [
        "the",
        "token",
        "ize",
        "merge",
        "Caf\u00e9",
        "\u4e2d\u6587",
        "don't",
        "3.14",
        "2024",
        "x_1",
        "\n\n",
        "  ",
        "!?",
    ]
    return "".join(rng.choice(roots) + rng.choice([" ", "s ", "er", "ing ", ", ", "\n"]) for _ in range(words)).encode()


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    emoji = "e\u0301\u0301 \U0001f600\U0001f600".encode() * 9
    return Tokenizer.train([sample_text(0, 3000), b"aaaaaaaa" * 40, b"-" * 600, emoji], 420)


@pytest.fixture(scope="module")
def encoding(trained: Tokenizer) -> tiktoken.Encoding:
    return trained.to_tiktoken()


@given(ANY_BYTES)
def test_split_finds_the_pieces_of_the_pattern(data: bytes) -> None:
    assert split(data) == split_slowly(data)


def test_every_character_has_its_class() -> None:
    # " {c}b" is cut differently for each of the four classes of c.
    known = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) not in ("Cs", "Cn")]
    data = "".join(f" {c}b\n" for c in known).encode()
    assert split(data) == split_slowly(data)


@given(ANY_BYTES)
def test_any_bytes_come_back(trained: Tokenizer, data: bytes) -> None:
    ids = trained.encode(data)
    assert ids.dtype == np.uint16
    assert trained.decode(ids) == data
    assert trained.token_bytes[ids].sum() == len(data)


@given(ANY_BYTES)
def test_without_merges_it_is_byte260(data: bytes) -> None:
    tokenizer = Tokenizer()
    assert tokenizer.vocab_size == 260
    assert tokenizer.encode(data).tolist() == [b + 4 for b in data]


@given(st.lists(REPETITIVE | ANY_BYTES, max_size=5), st.integers(1, 25))
def test_training_equals_the_slow_way(docs: list[bytes], n_merges: int) -> None:
    expected = train_slowly(docs, n_merges)
    if len(expected) < n_merges:
        with pytest.raises(InputError, match=f"at most {260 + len(expected)}"):
            Tokenizer.train(docs, 260 + n_merges)
    if expected:
        found = Tokenizer.train(docs, 260 + len(expected))
        assert found.to_bytes() == Tokenizer(expected).to_bytes()


def test_training_on_prose_equals_the_slow_way() -> None:
    docs = [sample_text(seed, 400) for seed in range(4)]
    expected = train_slowly(docs, 120)
    assert len(expected) == 120
    assert Tokenizer.train(docs, 380).to_bytes() == Tokenizer(expected).to_bytes()


def test_tokens_stay_below_256_bytes() -> None:
    docs = [b"a" * 5000, b"b" * 200, b"b" * 200, b"c" * 300, b"c" * 300]
    merges = train_slowly(docs, 50)
    tokenizer = Tokenizer.train(docs, 260 + len(merges))
    assert tokenizer.to_bytes() == Tokenizer(merges).to_bytes()
    assert 128 < tokenizer.token_bytes.max() <= 255
    with pytest.raises(InputError, match=f"at most {260 + len(merges)}"):
        Tokenizer.train(docs, 260 + len(merges) + 1)


@given(st.lists(REPETITIVE, min_size=1, max_size=4), ANY_BYTES | REPETITIVE)
def test_encoding_equals_the_slow_way(docs: list[bytes], data: bytes) -> None:
    merges = train_slowly(docs, 25)
    assert Tokenizer(merges if merges else None).encode(data).tolist() == encode_slowly(data, merges)


@pytest.mark.parametrize("length", [15, 16, 17, 31, 32, 33, 34, 500])
def test_long_words_equal_the_slow_way(length: int) -> None:
    rng = random.Random(length)
    words = ["".join(rng.choices("aab", k=length)).encode() for _ in range(8)]
    merges = train_slowly(words, 60)
    tokenizer = Tokenizer(merges)
    for word in [*words, b"a" * length, b"ab" * length]:
        assert tokenizer.encode(word).tolist() == encode_slowly(word, merges)
        assert tokenizer.encode(word).tolist() == encode_slowly(word, merges)  # now from the cache, if it is short


def test_a_word_of_a_megabyte(trained: Tokenizer) -> None:
    # Quadratic time would need hours.
    doubling = Tokenizer([(101, 101)] + [(i, i) for i in range(260, 266)])  # b"a" = 101; up to 128 of them
    ids = doubling.encode(b"a" * 1_000_000)
    assert ids.tolist() == [266] * 7812 + [265]
    for unit in (b"a", b"-", b" ", b"\n", "\u00e9".encode(), b"\xff"):
        data = unit * (1_000_000 // len(unit))
        assert trained.decode(trained.encode(data)) == data


def test_ids_equal_tiktoken_on_prose(trained: Tokenizer, encoding: tiktoken.Encoding) -> None:
    text = sample_text(9, 5000).decode() + "aaaaa" * 100 + "-" * 333
    assert trained.encode(text).tolist() == encoding.encode_ordinary(text)


@given(text=TEXT)
def test_ids_equal_tiktoken(trained: Tokenizer, encoding: tiktoken.Encoding, text: str) -> None:
    assert trained.encode(text).tolist() == encoding.encode_ordinary(text)


@given(docs=st.lists(TEXT, min_size=1, max_size=4), text=TEXT)
def test_ids_equal_tiktoken_whatever_was_learned(docs: list[str], text: str) -> None:
    data = [doc.encode() * 3 for doc in docs]
    merges = train_slowly(data, 40)
    tokenizer = Tokenizer(merges if merges else None)
    for sample in [*docs, text]:
        assert tokenizer.encode(sample).tolist() == tokenizer.to_tiktoken().encode_ordinary(sample)


def test_tiktoken_knows_the_specials(trained: Tokenizer, encoding: tiktoken.Encoding) -> None:
    assert encoding.n_vocab == trained.vocab_size
    assert [encoding.encode_single_token(name) for name in ("<pad>", "<bos>", "<eos>", "<unk>")] == [0, 1, 2, 3]


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 0])
def test_threads_change_nothing(trained: Tokenizer, threads: int) -> None:
    docs = [sample_text(seed, seed % 90) for seed in range(200)] + [b"", sample_text(1, 4000), b""]
    assert Tokenizer.train(docs, 400, threads).sha256 == Tokenizer.train(docs[::-1], 400, 1).sha256
    ids, offsets = trained.encode_batch(docs, threads)
    assert offsets.dtype == np.int64
    assert offsets.tolist() == np.cumsum([0] + [len(trained.encode(doc)) for doc in docs]).tolist()
    for i, doc in enumerate(docs):
        assert np.array_equal(ids[offsets[i] : offsets[i + 1]], trained.encode(doc))


def test_one_tokenizer_serves_many_threads(trained: Tokenizer) -> None:
    docs = [sample_text(seed, 300) for seed in range(40)]
    expected = [trained.encode(doc).tolist() for doc in docs]
    with ThreadPoolExecutor(8) as pool:
        assert [ids.tolist() for ids in pool.map(trained.encode, docs)] == expected


def test_nothing_merges_across_documents() -> None:
    assert Tokenizer.train([b"ab", b"ab"], 261).token_bytes[260] == 2
    with pytest.raises(InputError, match="at most 260"):
        Tokenizer.train([b"a", b"b", b"a", b"b"], 261)


def test_empty_input(trained: Tokenizer) -> None:
    assert split(b"") == []
    assert trained.encode(b"").tolist() == trained.encode("").tolist() == []
    assert trained.decode([]) == b""
    for docs in ([], [b""], [b"", b""]):
        ids, offsets = trained.encode_batch(docs)
        assert ids.size == 0
        assert offsets.tolist() == [0] * (len(docs) + 1)
        assert Tokenizer.train(docs, 260).vocab_size == 260


def test_specials_decode_to_nothing(trained: Tokenizer) -> None:
    assert trained.token_bytes[:4].tolist() == [0, 0, 0, 0]
    ids = np.concatenate(([Tokenizer.BOS], trained.encode(b"hi there"), [2, 3, 0]))
    assert trained.decode(ids) == b"hi there"
    assert trained.decode(ids.astype(np.int64).reshape(1, -1)) == b"hi there"


@pytest.mark.parametrize("ids", [[-1], [420], [70_000], [4, 420]])
def test_foreign_ids_are_refused(trained: Tokenizer, ids: list[int]) -> None:
    with pytest.raises(InputError, match="not in this vocabulary of 420"):
        trained.decode(ids)


def test_wrong_kinds_of_input(trained: Tokenizer) -> None:
    with pytest.raises(InputError, match="expected integers"):
        trained.decode([4.0])
    with pytest.raises(InputError, match="lone surrogate at 1"):
        trained.encode("a\ud800")
    with pytest.raises(InputError, match="expected bytes"):
        trained.encode_batch(["text"])  # type: ignore[list-item]
    for vocab_size in (0, 259, 65_537):
        with pytest.raises(UsageError, match=f"vocab_size = {vocab_size}: expected a whole number, 260 to 65,536"):
            Tokenizer.train([b"ab"], vocab_size)
    with pytest.raises(UsageError, match="threads = -1: expected a whole number, 0 to 1,024"):
        trained.encode_batch([b"ab"], threads=-1)
