"""Start Python processes that see this installation of golfcore and no code from the user's working folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

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
