"""Make ``train_gpt.py``: golfcore's own modules, what a recipe reaches of them, compressed behind a loader."""

from __future__ import annotations

import base64
import lzma
import re
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import torch

from golfcore.config import RecipeConfig, to_tree
from golfcore.export.fold import folded
from golfcore.export.minify import unparsed
from golfcore.export.shake import PACKAGE, Shaker
from golfcore.model.gpt.config import GPTConfig
from golfcore.model.gpt.model import GPT

RUNTIME = "golfcore.export.runtime"
MAIN = f"{RUNTIME}.main"
# What stands in the script for a module, or for one name of a module.
BOUND = {
    "golfcore.ops": f"{RUNTIME}.ops",
    "golfcore.ops.products": f"{RUNTIME}.ops",
    "golfcore.ops.optim:update_dtype": f"{RUNTIME}.ops:update_dtype",
    "golfcore.ops.columns": f"{RUNTIME}.columns",
    "golfcore.ops.ngram": f"{RUNTIME}.ngram",
    "golfcore.container": f"{RUNTIME}.coding",
    "golfcore.container.trellis": f"{RUNTIME}.trellis",
    "golfcore.config": f"{RUNTIME}.config",
    "golfcore.errors": f"{RUNTIME}.errors",
    "golfcore.model": "golfcore.model.roles",
}
BINARY = "golfcore.container.plain_binary"  # plain_decoder imports it by this name when it meets such a chunk
LOADER = """\
# {name}, made by golfcore: see README.md. The rest is plain Python in LZMA and base85.
import lzma,base64
exec(lzma.decompress(base64.b85decode({data!r}),lzma.FORMAT_RAW,filters=[{filters}]))
"""


@dataclass(frozen=True)
class Script:
    """A self-contained script.

    Attributes:
        text: its source, as it is shipped.
        source: the program that is compressed in it.
    """

    text: str
    source: str


WRITTEN = frozenset({0, 1, 2, 3, 5, 7, 8})  # codecs that the script itself writes


def make_script(recipe: RecipeConfig, facts: dict[str, Any], codecs: frozenset[int] = frozenset()) -> Script:
    """Return the script of a run.

    Args:
        recipe: the recipe of the run.
        facts: what the script has to know of the run besides: ``vocab_size``, ``precision``, ``strides``, ``codec``,
            ``whole_rows``, and where its tokens lie (``data``).
        codecs: codecs of the run's packed model, which the script has to decode besides its own.
    """
    tree = _plain(recipe, facts)
    fixed, decoded = _in_data(recipe, tree, facts["vocab_size"]), codecs | WRITTEN
    shaker = Shaker(_read, BOUND, lambda module, name: folded(module, name, recipe, decoded), fixed)
    if 9 in codecs:
        shaker.reach(BINARY, ["binary"])
    shaker.reach(MAIN, ["main"])
    source = unparsed(shaker.flat())
    if 9 in codecs:
        source += "import sys,types\nsys.modules['plain_binary']=types.SimpleNamespace(binary=binary)\n"
    source += f"main({_read_keys(tree, source)},__file__)\n"
    data, filters = min((_compressed(bits, source.encode()) for bits in range(5)), key=lambda found: len(found[0]))
    text = LOADER.format(name=recipe.name, data=base64.b85encode(data), filters=filters)
    return Script(text, source)


def _read_keys(tree: dict[str, Any], source: str) -> dict[str, Any]:
    """Return the tree without the keys that the source does not name; the model's without what is a default."""
    words = set(re.findall(r"\w+", source))
    found = {
        name: {key: value for key, value in table.items() if key in words} if isinstance(table, dict) else table
        for name, table in tree.items()
    }
    defaults = asdict(GPTConfig())
    found["model"] = {key: value for key, value in tree["model"].items() if value != defaults[key]}
    return found


def _compressed(context_bits: int, raw: bytes) -> tuple[bytes, str]:
    filters = {"id": lzma.FILTER_LZMA1, "lc": context_bits, "lp": 0, "pb": 0, "dict_size": 1 << 20}
    how = {**filters, "nice_len": 273, "mf": lzma.MF_BT4, "depth": 1000}
    return lzma.compress(raw, lzma.FORMAT_RAW, filters=[how]), repr(filters).replace(" ", "")


def _in_data(recipe: RecipeConfig, tree: dict[str, Any], vocab_size: int) -> frozenset[str]:
    """Return the names that the recipe's tree and the names of the parameters hold."""
    with torch.device("meta"):
        module = GPT(recipe.model, vocab_size)
    found = {part for name, _ in module.named_modules() for part in name.split(".")}
    found |= {part for name, _ in module.named_parameters() for part in name.split(".")}
    for key, value in tree.items():
        found |= {key, *(value if isinstance(value, dict) else ())}
    return frozenset(found)


def _plain(recipe: RecipeConfig, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe as a tree of plain values, with what the script has to know besides."""
    tree = to_tree(recipe)
    sections = {name: tree[name] for name in ("track", "optim", "train", "quant", "eval")}
    return {"name": recipe.name, **sections, "model": asdict(recipe.model), **facts}


def _read(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] != PACKAGE:
        return None
    place = files(PACKAGE).joinpath(*parts[1:])
    path = place.joinpath("__init__.py") if place.is_dir() else files(PACKAGE).joinpath(*parts[1:-1], f"{parts[-1]}.py")
    return path.read_text(encoding="utf-8") if path.is_file() else None
