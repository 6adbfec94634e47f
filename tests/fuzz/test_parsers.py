"""Every parser on its corpus: each input is read, or refused by one GolfError of one line, in bounded time and memory.

``guided.py`` searches for further inputs, and writes the corpus.
"""

import random
from pathlib import Path

import pytest
from guided import CORPUS, FaultError, Fuzzer, Parser, accepts, mutated
from parsers import PARSERS

from golfcore.errors import FormatError


@pytest.mark.parametrize("name", PARSERS)
def test_the_corpus(name: str, tmp_path: Path) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    accepted = sum(fed(PARSERS[name], path.read_bytes(), tmp_path / path.name) for path in inputs)
    assert 0 < accepted <= len(inputs)


@pytest.mark.parametrize("name", PARSERS)
def test_seeds_and_a_few_mutations(name: str, tmp_path: Path) -> None:
    parser = PARSERS[name]
    few = name == "report"  # each page takes a second
    pool = list(parser.seeds().values())[: 2 if few else None]
    accepted = [fed(parser, data, tmp_path / str(i)) for i, data in enumerate(pool)]
    assert any(accepted)
    rng = random.Random(name)
    for i in range(2 if few else 40):
        fed(parser, mutated(pool, parser.words, rng), tmp_path / f"mutated{i}")


def fed(parser: Parser, data: bytes, folder: Path) -> bool:
    folder.mkdir()
    return accepts(parser, data, folder)


def test_corpora_are_small() -> None:
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(sizes) < 1 << 20
    assert {path.name for path in CORPUS.iterdir()} == {*PARSERS, "entropy"}


def guarded(data: bytes, folder: Path) -> None:
    """A parser with a fault behind a few conditions, and one of each further kind of fault."""
    if data[:1] == b"l":
        raise FormatError("long" * 1000)
    if data[:1] == b"m":
        bytearray(b"x") * (600 << 20)
    if data[:1] == b"h":
        while True:
            pass
    if data[:1] == b"k":
        raise KeyError("k")
    raise FormatError("refused")


@pytest.mark.parametrize(
    ("data", "fault"), [(b"l", "message of 4000"), (b"m", "MiB"), (b"h", "not done after"), (b"k", "KeyError")]
)
def test_a_fault_is_told(data: bytes, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if data == b"h":
        monkeypatch.setattr("guided.MAX_SECONDS", 0.1)
    with pytest.raises(FaultError, match=fault):
        accepts(Parser(guarded, dict), data, tmp_path)
    assert not accepts(Parser(guarded, dict), b"", tmp_path)


def test_the_search_finds_what_a_parser_hides(tmp_path: Path) -> None:
    """By coverage: the magic, the sum and the length are each met on the way to a rare line."""
    import struct

    def seeds() -> dict[str, bytes]:
        return {"zero": b"\0" + struct.pack("<8sHHI", b"golfbpe\0", 1, 1, 0)}

    fuzzer = Fuzzer(Parser(PARSERS["tokenizer"].feed, seeds), tmp_path, random.Random(1))
    for data in seeds().values():
        fuzzer.add(data)
    first = len(fuzzer.seen)
    for _ in range(300):
        fuzzer.add(mutated(fuzzer.pool, (), fuzzer.rng))
    assert len(fuzzer.seen) > first and not fuzzer.faults
    smallest = fuzzer.minimized(5)
    covered = set().union(*(fuzzer.run(data) for data in smallest))
    assert covered >= fuzzer.seen and len(smallest) <= len(fuzzer.pool)
