"""Ablation: which parts a recipe has, what is held out, trials from the packed bytes, and what a part is worth."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from tiny import recipe

from golfcore.bench import ablation
from golfcore.bench.ablation import PARTS, WHOLE, Trial, hold_out, identity, parts_of, without, worths
from golfcore.cli import main
from golfcore.config import to_toml, to_tree
from golfcore.data.contracts import BOS
from golfcore.errors import FormatError, InputError, UsageError
from golfcore.recipes import load_recipe, recipe_names


def trial(part: str, seed: int, bpb: float) -> Trial:
    return Trial("r", "c", "d", "120 s", part, seed, 10, 100.0, 1000, bpb)


def test_every_part_names_keys_of_the_config() -> None:
    tree = to_tree(load_recipe("pocket", environment={}).config)
    for keys in PARTS.values():
        for dotted in keys:
            section, key = dotted.split(".")
            assert key in tree[section], dotted


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_without_a_part_is_a_recipe_that_lacks_it(name: str) -> None:
    config = load_recipe(name, environment={}).config
    parts = parts_of(config)
    for part in parts:
        rest = without(config, part)
        assert part not in parts_of(rest)
        assert rest != config
    assert without(config, WHOLE) is config
    assert ("XSA" in parts) == ("frontier" in name or name == "smoke_1gpu")


def test_an_unknown_part_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'smear'"):
        without(load_recipe("pocket", environment={}).config, "smaer")


def test_held_out_are_whole_documents_that_are_not_trained_on() -> None:
    ids = np.arange(1000, dtype=np.uint16) % 90 + 4
    ids[::50] = BOS
    token_bytes = np.where(np.arange(100) < 4, 0, 2)
    source, text = hold_out(ids, token_bytes, 120)
    assert len(source) == 900
    assert text.tokens.tolist() == ids[900:].tolist()
    assert text.total_bytes == 2 * 98
    assert source[880:950].tolist() == ids[880:900].tolist()
    with pytest.raises(InputError, match="too few to hold out 5,000"):
        hold_out(ids, token_bytes, 5000)


def test_the_identity_is_every_key_but_seed_and_place() -> None:
    config = load_recipe("pocket", environment={}).config
    moved = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=1))
    assert identity(moved) == identity(config)
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, lr_floor=0.1))
    assert identity(other) != identity(config)


def test_worth_is_paired_by_seed() -> None:
    trials = [trial(WHOLE, 1, 1.70), trial(WHOLE, 2, 1.80), trial(WHOLE, 3, 1.75)]
    trials += [trial("a", 1, 1.71), trial("a", 2, 1.81), trial("a", 3, 1.76), trial("a", 9, 5.0)]
    trials += [trial("b", 1, 1.72), trial("b", 2, 1.79), trial("c", 7, 1.0)]
    whole, a, b = worths(trials)
    assert (whole.part, a.part, b.part) == (WHOLE, "a", "b")
    assert a.loss == pytest.approx(0.01)
    assert a.half == pytest.approx(0.0, abs=1e-9)  # the same at every seed: certain, though seeds differ by 0.1
    assert b.loss == pytest.approx(0.005)
    assert b.half == pytest.approx(12.706 * 0.02121 / 2**0.5, rel=1e-3)
    assert whole.half == pytest.approx(4.303 * 0.05 / 3**0.5, rel=1e-3)


def test_the_command_trains_saves_and_goes_on(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path / "cache"))
    toml = tmp_path / "tiny.toml"
    toml.write_text(to_toml(to_tree(recipe(iterations=3, ema_decay=0.5))))
    saved = tmp_path / "rows.csv"
    command = ["ablate", str(toml), "--text", str(text_file), "--steps", "4", "--held-out", "600", "--save", str(saved)]
    assert main([*command, "--seeds", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["part"] == WHOLE
    assert {row["part"] for row in rows} == {WHOLE, *parts_of(recipe(ema_decay=0.5))}
    assert all(0 < row["bpb"] < 8.5 and row["bytes"] > 10_000 for row in rows)
    kept = saved.read_text()
    assert main([*command, "--seeds", "1", "2", "--parts", "EMA"]) == 0
    assert saved.read_text().startswith(kept)
    assert [(t.part, t.seed, t.steps) for t in ablation.read(saved)[len(rows) :]] == [(WHOLE, 2, 4), ("EMA", 2, 4)]
    assert "± " in capsys.readouterr().out
    assert main([*command, "--parts", "EAM"]) == 2


def test_a_file_that_is_no_table_of_trials(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(FormatError, match="columns are not those of trials"):
        ablation.append(path, trial("a", 1, 1.0))
    path.unlink()
    ablation.append(path, trial("a", 1, 1.0))
    path.write_text(path.read_text().replace(",10,", ",ten,"))
    with pytest.raises(FormatError, match="a row is not a trial's"):
        ablation.read(path)
