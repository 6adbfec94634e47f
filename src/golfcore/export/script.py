"""Make ``train_gpt.py``: golfcore's own modules, what a recipe reaches of them, compressed behind a loader."""

from __future__ import annotations

import base64
import lzma
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import torch

from golfcore.config import RecipeConfig, to_tree
from golfcore.export.fold import folded
from golfcore.export.shake import PACKAGE, Shaker
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
# {name}: made by golfcore, https://github.com/golfcore; README.md says how to read it.
import sys,lzma,base64,types
for n,s in eval(lzma.decompress(base64.b85decode({data!r}),lzma.FORMAT_RAW,filters=[{filters}])):
 m=sys.modules[n]=types.ModuleType(n);exec(compile(s,n,"exec"),m.__dict__)
m.main({recipe},__file__)
"""


@dataclass(frozen=True)
class Script:
    """A self-contained script.

    Attributes:
        text: its source, as it is shipped.
        modules: (golfcore's module, name in the script, source) of what is compressed in it.
    """

    text: str
    modules: tuple[tuple[str, str, str], ...]

    @property
    def expanded(self) -> int:
        """Bytes of the sources without compression."""
        return sum(len(source.encode()) for _, _, source in self.modules)


def make_script(recipe: RecipeConfig, facts: dict[str, Any]) -> Script:
    """Return the script of a run.

    Args:
        recipe: the recipe of the run.
        facts: what the script has to know of the run besides: ``vocab_size``, ``precision``, ``strides``, ``codec``,
            ``whole_rows``, and where its tokens lie (``data``).
    """
    tree = _plain(recipe, facts)
    shaker = Shaker(
        _read, BOUND, lambda module, name: folded(module, name, recipe), _in_data(recipe, tree, facts["vocab_size"])
    )  # fmt: skip
    if recipe.quant.coder == "smallest":
        shaker.reach(BINARY, ["binary"])
    shaker.reach(MAIN, ["main"])
    modules = shaker.sources(lambda i: f"m{i}")
    order = [row for row in modules if row[0] != MAIN] + [row for row in modules if row[0] == MAIN]
    modules = [(name, "plain_binary" if name == BINARY else short, source) for name, short, source in order]
    raw = repr([(short, source) for _, short, source in modules]).encode()
    data, filters = min(map(_compressed, range(5), [raw] * 5), key=lambda found: len(found[0]))
    text = LOADER.format(
        name=recipe.name, data=base64.b85encode(data), filters=filters, recipe=tree
    )  # fmt: skip
    return Script(text, tuple(modules))


def _compressed(context_bits: int, raw: bytes) -> tuple[bytes, str]:
    filters = {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "lc": context_bits, "lp": 0, "pb": 0}
    filters |= {"dict_size": 1 << 20}
    del filters["preset"]
    best = lzma.compress(raw, lzma.FORMAT_RAW, filters=[{**filters, "nice_len": 273, "mf": lzma.MF_BT4, "depth": 1000}])
    return best, repr(filters).replace(" ", "")


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
    path = place.joinpath("__init__.py") if place.is_dir() else place.parent.joinpath(f"{parts[-1]}.py")  # type: ignore[attr-defined]
    return path.read_text(encoding="utf-8") if path.is_file() else None
