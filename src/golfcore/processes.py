"""Start Python processes that see this installation of golfcore and no code from the user's working folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
from importlib.resources import files
from pathlib import Path

from golfcore.errors import BuildError

ISOLATED = ("-P", "-E")  # neither the working folder nor PYTHON* variables decide what is imported


def python_command(module: str) -> list[str]:
    """Return the command that runs ``module`` as ``python -m`` does, in an interpreter of its own.

    A ``math.py`` in the working folder, or on PYTHONPATH, would stand in for the standard library's and change a score.
    So neither is looked at. If golfcore itself was found through PYTHONPATH, its folder goes to the end of the new
    interpreter's path, behind everything that is installed.
    """
    home = Path(__file__).resolve().parents[1]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(home) not in (str(Path(path).resolve()) for path in given if path):
        return [sys.executable, *ISOLATED, "-m", module]
    start = f"import runpy, sys; sys.path.append({str(home)!r}); runpy.run_module({module!r}, run_name='__main__')"
    return [sys.executable, *ISOLATED, "-c", start]


def pip_command() -> list[str]:
    """Return the command that starts pip, isolated from the working folder.

    A virtual environment may have been made without pip, as uv makes them. The wheel of pip that comes with Python's
    ensurepip runs where it lies; else a pip of another Python serves, as long as nothing is installed with it.

    Raises:
        BuildError: there is no pip.
    """
    isolated = [sys.executable, *ISOLATED]
    if importlib.util.find_spec("pip") is not None:
        return [*isolated, "-m", "pip"]
    if importlib.util.find_spec("ensurepip") is not None:
        wheels = [Path(str(wheel)) for wheel in files("ensurepip").joinpath("_bundled").iterdir()]
        for wheel in sorted(wheels):
            if wheel.name.startswith("pip-") and wheel.suffix == ".whl":
                return [*isolated, str(wheel / "pip")]
    if other := shutil.which("pip3") or shutil.which("pip"):
        return [other]
    raise BuildError(
        f"{sys.executable} has no pip: add it with {sys.executable} -m ensurepip, or with uv pip install pip"
    )


def ended(code: int) -> str:
    """Return how a process ended, for a sentence about it: ``returncode`` of ``subprocess`` in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", as the system does where memory runs out" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"
