"""Rule sets: those that come with golfcore are whole, and one of a user's own is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from golfcore.contest.explain import examples, explain
from golfcore.contest.ruleset import DEFAULT, SEVERITIES, load_rules, rule_set_names
from golfcore.errors import FormatError, GolfError, InputError, UsageError

RULE = '[[rules]]\nid = "{}"\ntitle = "t"\ntext = "x."\nsource = "s"\nseverity = "{}"\ncheck = "flow"\n'
OWN = """name = "own"
title = "Own"
date = 2027-01-01
source = "me"
extends = "parameter_golf_audit"
[limits]
cap_bytes = 4_000_000
"""


def test_every_rule_is_in_every_set() -> None:
    wanted = [*(f"R{i}" for i in range(1, 19)), *(f"C{i}" for i in range(1, 5)), *(f"I{i}" for i in range(1, 20))]
    for name in rule_set_names():
        rules = load_rules(name)
        assert [rule.id for rule in rules.rules] == wanted
        for rule in rules.rules:
            assert rule.title and rule.text.endswith(".") and rule.source and rule.check
            assert rule.severity in SEVERITIES


def test_sets_are_dated_and_differ() -> None:
    assert rule_set_names() == ["parameter_golf_readme", "parameter_golf_april", "parameter_golf_audit", "pocket"]
    readme, april, audit = (load_rules(name) for name in rule_set_names()[:3])
    assert [policy.name for policy in readme.policies] == ["record"]
    assert [(p.name, p.floor_nats, p.p) for p in april.policies] == [
        ("record", 0.005, 0.01),
        ("progression", 0.0, 0.25),
    ]
    assert audit.policies == april.policies and audit.rule("R16").text != april.rule("R16").text
    assert readme.limits.cap_bytes == 16_000_000 and load_rules("pocket").limits.cap_bytes == 1_000_000
    assert load_rules().name == DEFAULT


def test_tracks_in_their_spellings() -> None:
    rules = load_rules()
    for name in ("track_10min_16mb", "10min_16mb", "10min-16mb"):
        track = rules.track(name)
        assert track is not None and track.record
    track = rules.track("non_record_16mb")
    assert track is not None and not track.record
    assert rules.track("") is None and rules.track("marathon") is None


def test_a_set_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        OWN + '[[rules]]\nid = "I8"\ntitle = "t"\ntext = "x."\nsource = "s"\nseverity = "REVIEW"\ncheck = "flow"\n'
    )
    rules = load_rules(path)
    assert rules.limits.cap_bytes == 4_000_000 and rules.limits.train_s == 600
    assert rules.rule("i8").severity == "REVIEW" and rules.rule("I7").severity == "LIKELY"
    assert len(rules.rules) == len(load_rules().rules)
    assert load_rules(str(path)) == rules


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name = ", "not TOML"),
        (OWN + "colour = 3\n", "colour"),
        (OWN.replace("cap_bytes = 4_000_000", 'cap_bytes = "many"'), "cap_bytes"),
        (OWN.replace("4_000_000", "0"), "not positive"),
        (OWN.replace('extends = "parameter_golf_audit"\n', ""), "missing required"),
        (OWN.replace("parameter_golf_audit", "nothing"), "no rule set"),
        (
            OWN + '[[rules]]\nid = "X1"\ntitle = "t"\ntext = "x."\nsource = "s"\nseverity = "FATAL"\ncheck = "flow"\n',
            "FATAL",
        ),
        (OWN + '[[policies]]\nname = "a"\ntext = "x"\nfloor_nats = 0.0\np = 3.0\n', "outside 0 to 1"),
        (OWN + 2 * '[[policies]]\nname = "a"\ntext = "x"\nfloor_nats = 0.0\np = 0.1\n', "occurs twice"),
        ("x = " + "[" * 2_000 + "]" * 2_000, "not TOML"),
    ],
)
def test_broken_sets_name_the_place(text: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(GolfError, match=match) as caught:
        load_rules(path)
    assert isinstance(caught.value, (FormatError, UsageError))
    assert "\n" not in str(caught.value)


def test_sets_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'pocket'"):
        load_rules("pockt")
    with pytest.raises(InputError, match="cannot read rules"):
        load_rules(tmp_path / "absent.toml")
    loop = tmp_path / "loop.toml"
    loop.write_text(OWN.replace("parameter_golf_audit", "loop.toml"))
    with pytest.raises(FormatError, match="extends"):
        load_rules(loop)
    (tmp_path / "large.toml").write_text("#" * 1_100_000)
    with pytest.raises(FormatError, match="bytes"):
        load_rules(tmp_path / "large.toml")


def test_every_technique_is_explained() -> None:
    rules = load_rules()
    assert list(examples()) == [f"I{i}" for i in range(1, 20)]
    for name in examples():
        found = explain(rules, name.lower())
        assert found.rule.id == name and found.why.endswith(".") and found.breaks != found.honest
    assert explain(rules, "R1").breaks == ""
    with pytest.raises(UsageError, match="no rule 'I20'"):
        explain(rules, "I20")
