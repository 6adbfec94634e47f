"""The programs that explain a rule: the one that breaks it is found, its twin is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from entries import log, severe, write_entry

from golfcore.contest.check import check_entry
from golfcore.contest.explain import examples

SEEDS = (42, 314, 1337)


def entry(folder: Path, rule: str, text: str) -> Path:
    """An entry made of an example: a program, or for I19 the claim and the log that it shows."""
    if rule == "I19":
        claim, line = text.split("\n")
        claims = json.loads(claim.partition("#")[0])
        logs = {
            f"train_seed{seed}.log": log(seed, 1.2).rsplit("final_int6", 2)[0] + line.partition("#")[0]
            for seed in SEEDS
        }
        return write_entry(folder, logs | {"README.md": "# E\n"}, **claims, val_loss=None, seed_results=None)
    none = {f"train_seed{seed}.log": None for seed in SEEDS}
    return write_entry(folder, {"train_gpt.py": text, **none})


@pytest.mark.parametrize("rule", list(examples()))
def test_the_two_are_told_apart(rule: str, tmp_path: Path) -> None:
    parts = examples()[rule]
    found = severe(check_entry(entry(tmp_path / "breaks", rule, parts["breaks"].strip("\n"))))
    assert rule in {name for name, _ in found}
    assert severe(check_entry(entry(tmp_path / "honest", rule, parts["honest"].strip("\n")))) == set()
