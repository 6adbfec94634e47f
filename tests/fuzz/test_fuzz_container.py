"""A short, seeded run of the container's fuzz target; tests/fuzz/fuzz_container.py runs longer with atheris."""

import fuzz_container as fuzz
import pytest

CORPUS = {path.name: path.read_bytes() for path in sorted(fuzz.CORPUS.iterdir())}


@pytest.mark.parametrize("name", CORPUS)
def test_every_seed_is_accepted(name: str) -> None:
    assert fuzz.one_input(CORPUS[name])


def test_the_corpus_covers_every_mode_and_codec() -> None:
    assert set(CORPUS) == set(fuzz.seeds())


@pytest.mark.parametrize("seed", range(4))
def test_mutated_seeds_are_refused_or_read(seed: int) -> None:
    accepted = sum(map(fuzz.one_input, fuzz.mutate(CORPUS.values(), 1500, seed)))
    assert 15 < accepted < 1000  # the mutations neither miss the parsers nor leave everything whole
