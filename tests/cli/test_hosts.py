"""Whole commands on odd hosts: a user without name and home, a quota of half a core, limits of the shell."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import recipe

from golfcore.config import to_toml, to_tree

# As in a container that was started under a bare number and with half a processor.
CONTAINER = """
import pwd, sys
def nobody(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = nobody
from golfcore import machine
machine.cores = lambda: 2
machine.cpu_quota = lambda: 0.5
from golfcore.cli import main
sys.exit(main(sys.argv[1:]))
"""
NAMES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "GOLFCORE_CACHE", "OMP_NUM_THREADS")


def command(
    folder: Path, *words: object, code: str = CONTAINER, limit: Callable[[], object] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name not in NAMES}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], cwd=folder, env=known | environment, capture_output=True,
        text=True, check=False, timeout=200, preexec_fn=limit,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tiny_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(to_toml(to_tree(recipe(iterations=3))))
    return path


def test_a_nameless_user_under_half_a_core_runs_one_thread(tiny_toml: Path, text_file: Path, tmp_path: Path) -> None:
    """torch's compiler asks for the user's name when it is imported."""
    words = ["run", tiny_toml, "--text", text_file, "--run-id", "a"]
    code = CONTAINER.replace(
        "sys.exit(main(sys.argv[1:]))", "code = main(sys.argv[1:]); import torch._dynamo; sys.exit(code)"
    )
    done = command(tmp_path, *words, code=code, GOLFCORE_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "runs" / "a" / "log.txt").read_text()
    assert "this container may use 0.5 of 2 processors: 1 thread," in log
    assert '"threads": 1' in (tmp_path / "runs" / "a" / "env.json").read_text()
    assert "Matplotlib" not in done.stderr


def test_without_a_home_folder_the_cache_is_asked_for(tiny_toml: Path, text_file: Path, tmp_path: Path) -> None:
    done = command(tmp_path, "run", tiny_toml, "--text", text_file)
    assert done.returncode == 1
    assert re.fullmatch(r"golfcore: user \d+ has no home folder.*: set GOLFCORE_CACHE to a folder .*\n", done.stderr)


def test_doctor_in_a_container(tmp_path: Path) -> None:
    done = command(tmp_path, "doctor")
    assert done.returncode == 0, done.stderr
    for part in ("a quota of 0.5: 1 of 2 threads run", "has none: HOME is not set", "set GOLFCORE_CACHE", "1 of 1 thr"):
        assert part in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_few_addresses_are_a_row_and_no_traceback(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    done = command(tmp_path, "doctor", limit=limit, HOME=str(tmp_path))
    assert done.returncode in (0, 1)
    assert "ulimit -v" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_model_beyond_the_memory_is_one_line(tiny_toml: Path, text_file: Path, tmp_path: Path) -> None:
    words = ["train", tiny_toml, "--text", text_file, "--set", "model.model_dim=1000000"]
    done = command(tmp_path, *words, GOLFCORE_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert re.search(r"^golfcore: not enough memory: training [\d,]+ parameters", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
