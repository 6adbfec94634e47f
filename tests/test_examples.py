"""Every example runs as its first lines say, from another working folder, and prints what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str, *arguments: str | Path, folder: Path) -> str:
    """The output of an example."""
    environment = os.environ | {"GOLFCORE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def long_text(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough text for a vocabulary of 512."""
    path = tmp_path_factory.mktemp("long") / "text.txt"
    path.write_text("\n\n".join(text_file.read_text() for _ in range(3)))
    return path


def test_own_text_and_reading_what_it_packed(long_text: Path, tmp_path: Path) -> None:
    printed = example("own_text.py", long_text, "--seconds", "3", folder=tmp_path)
    assert re.search(r"^\d\.\d{4} bits per byte, \d\d\d?,\d{3} bytes: ", printed)
    assert "costs" in printed
    (artifact,) = tmp_path.glob("runs/*/model.golf")
    listed = example("read_golf.py", artifact, folder=tmp_path)
    assert "family gpt, vocabulary 512" in listed
    assert len(listed.splitlines()) > 10
    assert "mean step" in listed


def test_own_family(text_file: Path, tmp_path: Path) -> None:
    bits = float(example("own_family.py", text_file, folder=tmp_path).split()[0])
    assert 1 < bits < 6


def test_ops_in_your_network(tmp_path: Path) -> None:
    rows = re.findall(r"loss ([\d.]+) -> ([\d.]+)", example("ops_in_your_network.py", folder=tmp_path))
    (plain_first, plain_last), (ours_first, ours_last) = [(float(a), float(b)) for a, b in rows]
    assert ours_first == pytest.approx(plain_first, abs=0.01)
    assert max(plain_last, ours_last) < plain_first - 0.2


def test_a_strangers_scorer_is_probed(text_file: Path, tmp_path: Path) -> None:
    path = EXAMPLES / "stranger.py"
    command = [sys.executable, "-m", "golfcore", "probe", "--scorer", path, "--text", text_file, "--tokens", "150"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count(" passed ") == 8


def test_own_operation(tmp_path: Path) -> None:
    assert example("own_operation.py", folder=tmp_path).count("off by") == 2


def test_every_example_is_tried() -> None:
    source = Path(__file__).read_text()
    assert all(f'"{path.name}"' in source for path in EXAMPLES.glob("*.py"))
