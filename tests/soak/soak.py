"""Random trouble over every command, for as long as you like; each scenario follows from a seed and its number.

    python tests/soak/soak.py --minutes 60 --seed 1              (make soak MINUTES=60 SEED=1)
    python tests/soak/soak.py --seed 1 --only 17                 one scenario again

A scenario is one command and one trouble: a signal at a random moment, a stop, a full disk, a limit on files, a wall
clock that jumps, or the same command twice at once. Then the command is gone on with as its user would, undisturbed.
Whatever happened: no file under its final name is torn, every number is the one of an undisturbed command, each failure
is one line, nothing runs on, and nothing is left in temporary folders.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import commands
import files
from commands import CASES, Case
from processes import Command, Ended, golfcore, small_disk, with_jumping_clock

PATIENCE_S = 240.0  # for any command
GRACE_S = 20.0  # for what a killed command leaves running, to end by itself
TROUBLES = ("kill", "terminate", "interrupt", "stop", "disk", "limit", "clock", "twice")
WEIGHTS = (4, 2, 2, 1, 3, 2, 2, 3)
ENDS = (1, 2, 75)  # exit codes of a failure that is told: 75 if the machine lacks something
SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}


@dataclass(frozen=True)
class Scenario:
    """A command, a trouble, and how much of it: shares of the command's time or of its output's bytes."""

    seed: int
    number: int
    case: str
    trouble: str
    share: float
    group: bool

    def __str__(self) -> str:
        whom = " of the group" if self.group else ""
        return f"--seed {self.seed} --only {self.number}: {self.case}, {self.trouble} {self.share:.2f}{whom}"


def scenario(seed: int, number: int, names: Sequence[str], troubles: Sequence[str] = TROUBLES) -> Scenario:
    """The scenario of a number: commands in turn, so that every one gets its share; the rest is drawn."""
    rng = random.Random(f"{seed} {number}")
    order = random.Random(f"{seed} {number // len(names)}").sample(list(names), len(names))
    weights = [WEIGHTS[TROUBLES.index(trouble)] for trouble in troubles]
    trouble = rng.choices(troubles, weights)[0]
    return Scenario(seed, number, order[number % len(names)], trouble, rng.random(), rng.random() < 0.5)


@dataclass
class Undisturbed:
    """What a command does when nothing troubles it."""

    code: int
    seconds: float
    outputs: dict[str, Any]
    printed: Any
    bytes: int  # of its outputs
    largest: int  # bytes of the largest file


@dataclass
class Soak:
    """The scenarios of one soak, and what was found.

    Attributes:
        base: a folder with the inputs and a finished run, copied for each scenario.
        keep: whether the folders of scenarios with a finding stay.
    """

    base: Path
    keep: bool = False
    found: list[str] = field(default_factory=list)
    known: dict[str, Undisturbed] = field(default_factory=dict)

    def prepare(self) -> None:
        """Make the inputs, and run once what all commands begin with."""
        home = self.base / "home"
        home.mkdir(parents=True)
        commands.write_inputs(home)
        case = CASES["run"]
        ended = golfcore(case.words, home)
        if ended.code:
            raise SystemExit(f"the undisturbed run fails: {ended.last_words()}")
        self.known["run"] = self._measured(case, ended, home)
        self._settle(home)

    def undisturbed(self, name: str) -> Undisturbed:
        """Run a command undisturbed, once."""
        if name not in self.known:
            folder = self._folder(f"whole-{name.replace(' ', '-')}", CASES[name])
            ended = golfcore(CASES[name].words, folder)
            self.known[name] = self._measured(CASES[name], ended, folder)
            shutil.rmtree(folder)
        return self.known[name]

    def _measured(self, case: Case, ended: Ended, folder: Path) -> Undisturbed:
        sizes = [
            p.stat().st_size for out in case.outputs for p in (folder / out, *(folder / out).rglob("*")) if p.is_file()
        ]
        outputs = {out: files.numbers(folder / out, folder) for out in case.outputs}
        return Undisturbed(
            ended.code, ended.seconds, outputs, _printed(case, ended, folder), sum(sizes), max(sizes, default=0)
        )

    def _settle(self, folder: Path) -> None:
        for name in ("tmp", "home"):
            shutil.rmtree(folder / name, ignore_errors=True)

    def _folder(self, name: str, case: Case) -> Path:
        """A folder for one command, with its inputs and without its outputs."""
        folder = self.base / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.base / "home", folder)
        _move(folder, self.base / "home", folder)
        case.inputs(folder)
        if case is CASES["run"]:
            shutil.rmtree(folder / commands.RUN)
            shutil.rmtree(folder / "cache/prepared")
        return folder

    # --- one scenario ---

    def run(self, what: Scenario) -> list[str]:
        """Run a scenario and return what was found, one line each."""
        case = CASES[what.case]
        whole = self.undisturbed(what.case)
        folder = self._folder(f"scenario-{what.number}", case)
        problems: list[str] = []
        try:
            tried = self._disturbed(what, case, whole, folder, problems)
            self._go_on(what, case, whole, folder, tried, problems)
        except TimeoutError as hang:
            problems.append(str(hang))
        found = [f"{what}: {problem}" for problem in problems]
        self.found += found
        if not (found and self.keep):
            shutil.rmtree(folder)
        return found

    def _disturbed(
        self, what: Scenario, case: Case, whole: Undisturbed, folder: Path, problems: list[str]
    ) -> list[Command]:
        """Run the command beside its trouble, and check how it ended and what it left."""
        before, limit = (), 0
        if what.trouble == "disk":
            before = small_disk(folder, int(what.share * 1.2 * (whole.bytes + 65_536))) or ()
            limit = 0 if before else _limit(what, whole)
        elif what.trouble == "limit":
            limit = _limit(what, whole)
        elif what.trouble == "clock":
            before = with_jumping_clock(what.number)
        count = 2 if what.trouble == "twice" else 1
        tried = [Command(case.words, folder, tuple(before), limit).start() for _ in range(count)]
        if what.trouble in SIGNALS or what.trouble == "stop":
            if what.trouble != "kill":
                tried[0].wait_until_ready(PATIENCE_S)
            time.sleep(what.share * whole.seconds)
            self._signal(what, tried[0])
        ends = [command.wait(PATIENCE_S) for command in tried]
        after = folder.with_name(folder.name + ".after")
        if after.exists():
            shutil.rmtree(folder)
            shutil.rmtree(folder.with_name(folder.name + ".before"))
            after.rename(folder)
        if what.trouble == "twice" and whole.code not in (ended.code for ended in ends):
            problems.append(f"of two at once none ends well: {[ended.last_words() for ended in ends]}")
        for command, ended in zip(tried, ends, strict=True):
            problems += _bad_end(what, whole, ended)
            if what.trouble != "kill" and not case.outlives and (left := command.wait_for_descendants(GRACE_S)):
                problems.append(f"still running {GRACE_S:.0f} s after the end: {left}")
        if case.outlives and any(ended.code for ended in ends):
            return tried  # its runs may be writing
        problems += files.torn(folder)
        if what.trouble != "kill":
            problems += _leftovers(folder)
        return tried

    def _signal(self, what: Scenario, command: Command) -> None:
        if what.trouble != "stop":
            command.send(SIGNALS[what.trouble], group=what.group)
            return
        command.send(signal.SIGSTOP, group=what.group)
        time.sleep(0.3 + what.share)
        command.send(signal.SIGCONT, group=what.group)

    def _go_on(
        self, what: Scenario, case: Case, whole: Undisturbed, folder: Path, tried: list[Command], problems: list[str]
    ) -> None:
        """Go on with what ended early, until it is done; then compare everything with the undisturbed command."""
        last = self._until_done(what, case, whole, folder, problems)
        left = [left for command in tried if (left := command.wait_for_descendants(GRACE_S))]
        problems += [f"still running when all was done: {words}" for words in left]
        problems += files.torn(folder)
        for out, expected in whole.outputs.items():
            found = files.numbers(folder / out, folder) if (folder / out).exists() else "absent"
            problems += [f"{out}: {line}" for line in differences(expected, found)]
        if last is not None and case.prints and whole.printed != (printed := _printed(case, last, folder)):
            problems.append(f"prints otherwise: {list(differences(whole.printed, printed))}")

    def _until_done(
        self, what: Scenario, case: Case, whole: Undisturbed, folder: Path, problems: list[str]
    ) -> Ended | None:
        """Do as golfcore's own words say: go on, or remove what cannot be gone on with and begin again."""
        if case.resume is None:
            if case.once and (folder / case.outputs[0]).exists():
                return None  # whole, or it would not be there; the command would say that it exists
            words = list(case.words)
        elif not (words := case.resume(folder)):
            return None
        ended = golfcore(words, folder, PATIENCE_S)
        if ended.code != whole.code:
            problems.append(f"golfcore {' '.join(words)} afterwards ends with {ended.code}: {ended.last_words()}")
        return ended if words == list(case.words) else None


def _limit(what: Scenario, whole: Undisturbed) -> int:
    return max(1, int(what.share * 1.1 * max(whole.largest, 4096)))


def _move(folder: Path, old: Path, new: Path) -> None:
    """Let the absolute paths in a copied run name the copy."""
    for path in folder.rglob("config.toml"):
        path.write_text(path.read_text().replace(str(old), str(new)))


def _printed(case: Case, ended: Ended, folder: Path) -> Any:
    """The JSON in the last line that a command prints, without times and the folder's name."""
    if not case.prints:
        return None
    try:
        tree = json.loads(ended.out.strip().splitlines()[-1].replace(str(folder), ""))
    except (IndexError, ValueError):
        return f"no JSON: {ended.out[-200:]!r}"
    return {key: value for key, value in tree.items() if key not in case.ignored} if isinstance(tree, dict) else tree


def _bad_end(what: Scenario, whole: Undisturbed, ended: Ended) -> Iterator[str]:
    """What is wrong with how a process ended: it did what it does undisturbed, died by the signal, or has one line."""
    number = SIGNALS.get(what.trouble, 0)
    if "Traceback (most recent call last)" in ended.err:
        yield f"a traceback: {ended.last_words()}"
    lines = [line for line in ended.err.splitlines() if line.startswith("golfcore: ")]
    if ended.code == whole.code:
        if lines and not ended.code:
            yield f"ends well, with an error: {lines}"
    elif what.trouble in ("stop", "clock"):
        yield f"ends with {ended.code}: {ended.last_words()}"
    elif ended.code == -number or (number != signal.SIGKILL and number and ended.code in (1, 128 + number)):
        if number != signal.SIGKILL and len(lines) > 1:
            yield f"{len(lines)} lines on one signal: {lines}"
    elif ended.code not in ENDS or number:
        yield f"ends with {ended.code}: {ended.last_words()}"
    elif len(lines) != 1 or ended.err.strip().splitlines()[-1] != lines[0]:
        yield f"ends with {ended.code} and {len(lines)} lines of error, expected one, the last: {ended.last_words()}"


def _leftovers(folder: Path) -> Iterator[str]:
    for path in (*folder.rglob(".*.tmp"), *(folder / "tmp").glob("*")):
        if not path.name.startswith("torchinductor_"):  # torch's own cache, made when torch is imported
            yield f"left behind: {path}"


def differences(expected: Any, found: Any, where: str = "") -> Iterator[str]:
    """One line for each place at which two trees differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in {**expected, **found}:
            yield from differences(expected.get(key), found.get(key), f"{where}/{key}")
    elif expected != found:
        yield f"{where}: {found!r:.200}, undisturbed {expected!r:.200}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="+", help="numbers of scenarios")
    parser.add_argument("--command", choices=sorted(CASES), help="one command only; numbers mean other scenarios then")
    parser.add_argument("--trouble", choices=TROUBLES, help="one trouble only")
    parser.add_argument("--keep", type=Path, help="a folder in which the folders of findings stay")
    options = parser.parse_args()
    names = [options.command] if options.command else list(CASES)
    troubles = [options.trouble] if options.trouble else TROUBLES
    until = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="golfcore-soak-") as made:
        soak = Soak(options.keep or Path(made), keep=options.keep is not None)
        soak.prepare()
        numbers = iter(options.only) if options.only else iter(range(1 << 30))
        done = 0
        for number in numbers:
            if not options.only and time.monotonic() > until:
                break
            what = scenario(options.seed, number, names, troubles)
            found = soak.run(what)
            done += 1
            print(f"{what}: {'ok' if not found else ''}", flush=True)
            for line in found:
                print(f"  FOUND {line}", flush=True)
    print(f"{done} scenarios, {len(soak.found)} findings")
    return min(len(soak.found), 1)


if __name__ == "__main__":
    sys.exit(main())
