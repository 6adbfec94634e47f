"""A short soak, and that a soak finds what it is there to find. ``make soak`` runs for as long as you like."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import files
from commands import CASES, LEFT_OUT, RUN
from processes import Command, Ended
from soak import TROUBLES, Scenario, Soak, Undisturbed, _bad_end, _leftovers, differences, scenario

from golfcore.cli import app


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soak]:
    soak = Soak(tmp_path_factory.mktemp("soak"))
    soak.prepare()
    yield soak


@pytest.mark.parametrize(
    ("case", "trouble", "share"),
    [
        ("run", "kill", 0.75), ("prepare", "twice", 0.5), ("tok train", "limit", 0.2), ("unpack", "disk", 0.3),
        ("inspect", "clock", 0.5), ("verify", "interrupt", 0.5), ("diff", "stop", 0.5),
    ],
)  # fmt: skip
def test_trouble(case: str, trouble: str, share: float, soak: Soak) -> None:
    what = Scenario(0, 0, case, trouble, share, group=False)
    assert soak.run(what) == []


def test_scenarios_follow_from_seed_and_number() -> None:
    names = list(CASES)
    drawn = [scenario(3, number, names) for number in range(3 * len(names))]
    assert drawn == [scenario(3, number, names) for number in range(3 * len(names))]
    assert drawn != [scenario(4, number, names) for number in range(3 * len(names))]
    assert {what.case for what in drawn[: len(names)]} == set(CASES)
    assert {what.trouble for what in drawn} == set(TROUBLES)


def test_every_command_takes_part() -> None:
    words = {" ".join(case.words) for case in CASES.values()}
    commands = {name for name in app if not name.startswith("-")}
    inner = {"data": {"get", "prepare", "verify"}, "tok": {"train", "encode", "decode", "audit"}}
    for group, names in inner.items():
        commands = commands - {group} | {f"{group} {name}" for name in names}
    missing = {name for name in commands - LEFT_OUT if not any(f"{text} ".startswith(f"{name} ") for text in words)}
    assert not missing


# --- what is torn, changed, or badly ended is found ---


def test_a_whole_run_is_whole(soak: Soak) -> None:
    assert list(files.torn(soak.base / "home")) == []
    assert list(_leftovers(soak.base / "home")) == []


@pytest.mark.parametrize(
    "name",
    [
        "model.golf", "checkpoint.pt", "quantised.pt", "score.json", "config.toml", "report.html", "quantised.json",
        "ledger.json",
    ],
)  # fmt: skip
def test_a_torn_file_is_found(name: str, soak: Soak) -> None:
    path = soak.base / "home" / RUN / name
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: len(whole) * 2 // 3] if name != "config.toml" else whole[: whole.rindex(b"=")])
        assert [str(path) in line for line in files.torn(path.parent)] == [True]
    finally:
        path.write_bytes(whole)


def test_an_unknown_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "news.xyz").write_text("what is this")
    assert ["unknown kind" in line for line in files.torn(tmp_path)] == [True]


@pytest.mark.parametrize("key", ["val_bpb", "tokens", "artifact_sha256"])
def test_another_number_is_found(key: str, soak: Soak) -> None:
    path = soak.base / "home" / RUN / "score.json"
    whole = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(whole) | {key: 0}))
        found = files.numbers(soak.base / "home" / RUN, soak.base / "home")
    finally:
        path.write_text(whole)
    assert [f"score.json/{key}" in line for line in differences(soak.undisturbed("run").outputs[RUN], found)] == [True]


GOOD = Undisturbed(0, 1.0, {}, None, 0, 0)


@pytest.mark.parametrize(
    ("trouble", "code", "err", "bad"),
    [
        ("disk", 1, "golfcore: cannot write x: the disk is full", False),
        ("disk", 1, "", True),
        ("disk", 1, "golfcore: a\ngolfcore: b", True),
        ("disk", 1, "golfcore: a\nmore", True),
        ("disk", -11, "", True),
        ("disk", 0, "warning: no checkpoint was written", False),
        ("disk", 1, "Traceback (most recent call last):\ngolfcore: a", True),
        ("kill", -9, "half a li", False),
        ("kill", 1, "golfcore: killed", True),
        ("interrupt", -2, "golfcore: interrupted", False),
        ("interrupt", 1, "golfcore: interrupted\ngolfcore: interrupted", True),
        ("interrupt", 0, "done before", False),
        ("terminate", -15, "", False),
        ("terminate", 3, "", True),
        ("clock", 1, "golfcore: took 3600 s", True),
        ("stop", 0, "", False),
    ],
)
def test_how_a_command_may_end(trouble: str, code: int, err: str, bad: bool) -> None:
    what = Scenario(0, 0, "run", trouble, 0.5, group=False)
    assert bool(list(_bad_end(what, GOOD, Ended(code, "", err, 1.0)))) == bad


def test_what_runs_on_is_found(tmp_path: Path) -> None:
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    command = Command([child], tmp_path, (sys.executable, "-c")).start()
    assert command.wait(30).code == 0
    assert [("time.sleep(600)" in words) for words in command.wait_for_descendants(0.2).values()] == [True]
    assert not command.wait_for_descendants(5)


def test_a_hang_is_found(tmp_path: Path) -> None:
    command = Command(["import time; time.sleep(600)"], tmp_path, (sys.executable, "-c")).start()
    with pytest.raises(TimeoutError, match="hangs"):
        command.wait(0.5)


def test_leftovers_are_found(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "scratch").write_text("")
    (tmp_path / ".model.golf.x.tmp").write_text("")
    assert len(list(_leftovers(tmp_path))) == 2
