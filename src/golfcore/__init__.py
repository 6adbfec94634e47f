"""golfcore: train the best language model that fits a byte cap, and prove its score.

The stable names are those of ``__all__``. Each is imported when it is first used, so ``import golfcore`` loads neither
torch nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from golfcore import ops
    from golfcore.api import load_recipe, pack, quantize, run, score, train
    from golfcore.container import Container
    from golfcore.pipeline.model import Model, generate, load_model
    from golfcore.pipeline.whole import RunResult
    from golfcore.tokenizer import Tokenizer

    __version__: str

_HOMES = {
    "Container": "golfcore.container",
    "Model": "golfcore.pipeline.model",
    "RunResult": "golfcore.pipeline.whole",
    "Tokenizer": "golfcore.tokenizer",
    "generate": "golfcore.pipeline.model",
    "load_model": "golfcore.pipeline.model",
    "load_recipe": "golfcore.api",
    "pack": "golfcore.api",
    "quantize": "golfcore.api",
    "run": "golfcore.api",
    "score": "golfcore.api",
    "train": "golfcore.api",
}

__all__ = [
    "Container",
    "Model",
    "RunResult",
    "Tokenizer",
    "generate",
    "load_model",
    "load_recipe",
    "ops",
    "pack",
    "quantize",
    "run",
    "score",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name, or the compiled core, at its first use."""
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    if name == "ops":
        return import_module("golfcore.ops")
    if name == "_core":
        from golfcore.installed import load_core  # says what is wrong if it cannot be loaded

        return load_core()
    if name == "__version__":
        from importlib.metadata import version  # 30 ms

        return version("golfcore")
    raise AttributeError(f"module 'golfcore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
