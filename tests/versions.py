"""Build golfcore with a Python and a compiler, install it with a torch, try it: the table of docs/results/versions.md.

``python tests/versions.py [--python 3.12] [--torch 2.6] [--cxx g++-11] [--save]`` tries every pair of the given
versions; each option may be repeated. Without options: every Python with every torch, with the default compiler, and
every compiler with the Python and torch that golfcore is developed with. What the machine or the package index lacks is
a row with the reason. ``--save`` puts the rows into docs/results/versions.md.

Every pair gets a virtual environment in a temporary folder, which is several gigabytes where pip takes a torch with
CUDA; ``PIP_EXTRA_INDEX_URL`` may point to CPU builds.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs" / "results" / "versions.md"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
TORCHES = ("2.6", "2.11", "2.13", "2.14")
COMPILERS = ("g++-11", "g++-12", "g++-13", "g++-14", "clang++")
OWN_PYTHON, OWN_TORCH = "3.11", "2.13"

# What the environment of a pair runs, in a folder of its own: every part once, small.
TRY = """
import json, pathlib, random, sys
sys.path.insert(0, {tests!r})
from golfcore.cli import main
from golfcore.config import to_toml, to_tree
from tiny import recipe

def run(*words):
    assert main(list(words)) == 0, words

random.seed(0)
words = ["the", "of", "and", "to", "in", "a", "is", "that", "for", "it"]
texts = [" ".join(random.choices(words, k=60)) for _ in range(80)]
pathlib.Path("text.jsonl").write_text("".join(json.dumps({{"text": text}}) + "\\n" for text in texts))
pathlib.Path("tiny.toml").write_text(to_toml(to_tree(recipe(iterations=2, precision="bf16"))))
run("doctor", "--json")
for op in ("norm", "qk", "bitpack", "embed"):
    run("kernels", "test", op, "--json")
run("run", "tiny.toml", "--text", "text.jsonl", "--run-id", "tried")
run("verify", "runs/tried/model.golf")
import torch
print("torch", torch.__version__)
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    python: str
    torch: str
    compiler: str
    result: str
    commit: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.python.partition(" ")[0], self.torch.partition(" ")[0], self.compiler.partition(" ")[0]

    def line(self) -> str:
        return f"| {self.python} | {self.torch} | {self.compiler} | {self.result} | {self.commit} |"


class NotRunError(Exception):
    """A pair that cannot be tried here; its text is the reason."""


def call(*command: object, cwd: Path | None = None, **variables: str) -> str:
    """Run a command and return what it prints; its last lines go into the error if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError("\n".join(done.stdout.splitlines()[-30:]))
    return done.stdout


def interpreter(version: str) -> str:
    """Return the path of this version of Python."""
    try:
        return call(f"python{version}", "-c", "import sys, venv, ensurepip; print(sys.executable)").strip()
    except (OSError, RuntimeError):
        raise NotRunError(f"no Python {version} with venv on this machine") from None


def compiler_version(cxx: str) -> str:
    """Return the name and version of a compiler."""
    if shutil.which(cxx) is None:
        raise NotRunError(f"no {cxx} on this machine")
    kind = "clang" if "clang" in call(cxx, "--version") else "gcc"
    return f"{kind} {call(cxx, '-dumpfullversion' if kind == 'gcc' else '-dumpversion').strip()}"


def build(python: str, cxx: str, folder: Path) -> tuple[Path, int]:
    """Return the wheel that this Python and compiler make, and how many warnings there were."""
    if not (target := folder / f"{Path(python).name}-{cxx}").exists():
        target.mkdir()
        call(python, "-m", "venv", target / "venv")
        bin_ = target / "venv" / "bin"
        call(bin_ / "pip", "install", "--quiet", "--upgrade", "pip")
        said = call(
            bin_ / "pip", "wheel", "--no-deps", "-v", "-w", target, f"-Cbuild-dir={target / 'build'}", ROOT,
            CXX=cxx, CC=cxx.replace("clang++", "clang").replace("g++", "gcc"), GOLF_CUDA="OFF", GOLF_WERROR="OFF",
        )  # fmt: skip
        warned = re.findall(r".*\bwarning: .*", said)
        print(*warned, sep="\n", end="\n" if warned else "", file=sys.stderr)
        (target / "warnings").write_text(str(len(warned)))
    (wheel,) = target.glob("*.whl")
    return wheel, int((target / "warnings").read_text())


def try_pair(python: str, torch: str, cxx: str, folder: Path) -> Row:
    """Build, install and try one pair."""
    found = Row(python, torch, cxx, "")
    try:
        path = interpreter(python)
        full = call(path, "-c", "import platform; print(platform.python_version())").strip()
        found = dataclasses.replace(found, python=f"{python} ({full})", compiler=f"{cxx} ({compiler_version(cxx)})")
        wheel, warnings = build(path, cxx, folder)
        with tempfile.TemporaryDirectory(dir=folder) as pair:
            call(path, "-m", "venv", f"{pair}/venv")
            bin_ = Path(pair, "venv", "bin")
            try:
                call(bin_ / "pip", "install", "--quiet", f"torch=={torch}.*", wheel)
            except RuntimeError as error:
                # The second is what pip says where its configuration has a constraint on torch.
                if re.search(
                    r"No matching distribution found for torch|no matching distributions.*\s+torch", str(error)
                ):
                    raise NotRunError("the package index has no such torch for this Python") from None
                raise
            script = Path(pair, "try.py")
            script.write_text(TRY.format(tests=str(ROOT / "tests")))
            said = call(bin_ / "python", script, cwd=Path(pair), GOLFCORE_CACHE=f"{pair}/cache")
            version = said.splitlines()[-1].split()[-1]
    except NotRunError as reason:
        return dataclasses.replace(found, result=f"not run: {reason}")
    except RuntimeError as error:
        print(error, file=sys.stderr)
        lines = str(error).splitlines() or ["no output"]
        last = next((line.strip() for line in lines if re.search(r"\berror: (?!subprocess)|Error: ", line)), lines[-1])
        return dataclasses.replace(found, result=f"failed: {last[:100]}", commit=commit())
    result = "passed" + (f", {warnings} compiler warnings" if warnings else "") + f", {datetime.now(UTC):%Y-%m-%d}"
    return dataclasses.replace(found, torch=f"{torch} ({version})", result=result, commit=commit())


def commit() -> str:
    """Return the checkout's commit, with a mark if files differ from it."""
    head = call("git", "-C", ROOT, "rev-parse", "--short=7", "HEAD").strip()
    dirty = call(
        "git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no", "--", "src", "csrc", "CMakeLists.txt"
    )
    return head + ("+" if dirty else "")


def save(row: Row) -> None:
    """Put a row into the table of docs/results/versions.md, in place of the one of the same pair."""
    lines = TABLE.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| ---")) + 1
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    rows = {}
    for line in lines[start:end]:
        known = Row(*(cell.strip() for cell in line.strip("|").split("|")))
        rows[known.key] = known
    rows[row.key] = row

    def order(known: Row) -> tuple[object, ...]:
        python, torch, compiler = known.key
        return [int(n) for n in python.split(".")], [int(n) for n in torch.split(".")], compiler

    lines[start:end] = [known.line() for known in sorted(rows.values(), key=order)]
    TABLE.write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", help="such as 3.12; may be repeated")
    parser.add_argument("--torch", action="append", help="such as 2.6; may be repeated")
    parser.add_argument("--cxx", action="append", help="such as g++-11; may be repeated")
    parser.add_argument("--save", action="store_true", help="put the rows into docs/results/versions.md")
    given = parser.parse_args()
    default = "c++"
    if given.python or given.torch or given.cxx:
        pythons, torches, compilers = given.python or [OWN_PYTHON], given.torch or [OWN_TORCH], given.cxx or [default]
        pairs = [(python, torch, cxx) for python in pythons for torch in torches for cxx in compilers]
    else:
        pairs = [(python, torch, default) for python in PYTHONS for torch in TORCHES]
        pairs += [(OWN_PYTHON, OWN_TORCH, cxx) for cxx in COMPILERS]
    failed = False
    with tempfile.TemporaryDirectory(prefix="golfcore-versions-") as folder:
        for python, torch, cxx in pairs:
            row = try_pair(python, torch, cxx, Path(folder))
            print(row.line(), flush=True)
            failed |= row.result.startswith("failed")
            if given.save:
                save(row)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
