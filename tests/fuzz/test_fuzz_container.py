"""Seeded mutations of containers; ``guided.py`` searches for longer, and ``test_parsers.py`` replays what it found."""

import random

import fuzz_container as fuzz
import pytest
from guided import mutated

from golfcore.container.codecs import CODECS

SEEDS = fuzz.seeds()


@pytest.mark.parametrize("name", SEEDS)
def test_every_seed_is_accepted(name: str) -> None:
    assert fuzz.one_input(SEEDS[name])


def test_the_seeds_cover_every_mode_and_codec() -> None:
    assert {data[0] for data in SEEDS.values()} == {fuzz.FILE, fuzz.SEALED, fuzz.CODED}
    assert {data[1] for data in SEEDS.values() if data[0] == fuzz.CODED} == set(CODECS)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_seeds_are_refused_or_read(seed: int) -> None:
    rng, pool = random.Random(seed), sorted(SEEDS.values())
    accepted = sum(fuzz.one_input(mutated(pool, (), rng)) for _ in range(1500))
    assert 15 < accepted < 1000  # the mutations neither miss the parsers nor leave everything whole
