"""golfcore: train the best language model that fits a byte cap, and prove its score."""

from importlib.metadata import version
from typing import Any

__version__ = version("golfcore")


def __getattr__(name: str) -> Any:
    """Import the compiled core at its first ``from golfcore import _core``, and say what is wrong if that fails."""
    if name == "_core":
        from golfcore.installed import load_core

        return load_core()
    raise AttributeError(f"module 'golfcore' has no attribute {name!r}")
