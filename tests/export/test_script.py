"""The parts of an exported script: what is kept of the modules, what stands in for the compiled core, its bytes."""

import ast
import base64
import dataclasses
import lzma
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY, recipe

from golfcore import _core, ops
from golfcore.config import RecipeConfig
from golfcore.container import Container
from golfcore.container.tensors import Tensor
from golfcore.export.fold import folded
from golfcore.export.minify import minified, unparsed
from golfcore.export.rename import rename
from golfcore.export.runtime import coding, columns, ngram
from golfcore.export.runtime import ops as plain
from golfcore.export.script import WRITTEN, make_script
from golfcore.export.shake import Shaker
from golfcore.ops.columns import quantize_columns
from golfcore.ops.ngram import NgramMixture
from golfcore.recipes import load_recipe, recipe_names

FACTS = {
    "vocab_size": 1024, "precision": "bfloat16", "strides": [[1, 64]], "codec": "int6+rans", "whole_rows": True,
    "data": {"path": "data", "tokenizer": "a.model"},
}  # fmt: skip


def of(name: str) -> RecipeConfig:
    return load_recipe(name, environment={}).config


def test_the_frontiers_script_keeps_to_its_bytes() -> None:
    script = make_script(of("frontier_8xh100"), {**FACTS, "vocab_size": 8192}, WRITTEN)
    assert len(script.text.encode()) <= 32_000


@pytest.mark.parametrize("name", recipe_names())
def test_a_script_is_a_shim_that_unpacks_without_running(name: str) -> None:
    script = make_script(of(name), FACTS)
    tree = ast.parse(script.text)
    packed = re.search(r"b85decode\((b'.*?')\)", script.text)
    assert packed is not None and "golfcore" not in script.source
    filters = ast.literal_eval(script.text[script.text.index("filters=") + 8 : script.text.rindex("]") + 1])
    assert lzma.decompress(base64.b85decode(ast.literal_eval(packed[1])), lzma.FORMAT_RAW, filters=filters) == (
        script.source.encode()
    )
    assert isinstance(tree.body[-1], ast.Expr) and compile(script.source, "entry", "exec")


def test_only_what_is_reached_is_kept() -> None:
    sources = {
        "golfcore.a": "from golfcore import b\nfrom golfcore.c import twice as double\n\n"
        "def main(x: int) -> int:\n    '''Say.'''\n    return b.Thing(double(x)).used()\n",
        "golfcore": "",
        "golfcore.b": "import math\nLOST = math.pi\n\nclass Thing:\n    def __init__(self, x): self.x = x\n"
        "    def used(self): return self.x\n    def unused(self): return LOST\n",
        "golfcore.c": "def twice(x): return 2 * x\n\ndef thrice(x): return 3 * x\n",
    }
    shaker = Shaker(sources.get, {})
    shaker.reach("golfcore.a", ["main"])
    source = unparsed(shaker.flat())
    space: dict[str, object] = {}
    exec(source, space)
    assert space["main"](4) == 8  # type: ignore[operator]
    assert not re.search("unused|LOST|math|thrice|3|Say", source)


def test_an_import_within_a_function_stays_there() -> None:
    """A library that only some runs need must not be asked of all."""
    source = (
        "def main(wish):\n    if wish:\n        import no_such_library\n        no_such_library.call()\n    return 1\n"
    )
    shaker = Shaker({"golfcore.a": source}.get, {})
    shaker.reach("golfcore.a", ["main"])
    space: dict[str, object] = {}
    exec(unparsed(shaker.flat()), space)
    assert space["main"](False) == 1  # type: ignore[operator]
    within = Shaker({"golfcore.a": "def main():\n    from golfcore.b import c\n", "golfcore.b": "c = 1\n"}.get, {})
    with pytest.raises(KeyError, match="within a function"):
        within.reach("golfcore.a", ["main"])


def test_two_modules_may_use_one_name() -> None:
    sources = {
        "golfcore.a": "from golfcore.b import value as other\nimport golfcore.b\n\ndef value(): return 1\n\n"
        "def main(): return value(), other()\n",
        "golfcore.b": "def value(): return 2\n",
    }
    shaker = Shaker(sources.get, {})
    shaker.reach("golfcore.a", ["main"])
    space: dict[str, object] = {}
    exec(unparsed(shaker.flat()), space)
    assert space["main"]() == (1, 2)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("source", "short"),
    [
        ("def f(x: int = 1) -> int:\n    '''D.'''\n    return x if x else 2\n", "def f(x=1):\n return x if x else 2\n"),
        ("for x in y:\n    if x:\n        raise InputError('no')\n", "for x in y:\n pass\n"),
        ("x = 'a  b' + \"it's\" # why\n", "x='a  b'+\"it's\"\n"),
        ("if x:\n    raise RuleError('a score')\n", "if x:\n raise RuleError('a score')\n"),
        ("def f():\n    return not (a and b) or (lambda x: -x)\n", "def f():\n return not(a and b)or(lambda x:-x)\n"),
    ],
)  # fmt: skip
def test_shortening_keeps_the_program(source: str, short: str) -> None:
    assert unparsed(minified(source)) == short


def test_folding_takes_the_recipes_branch() -> None:
    tree = ast.parse(
        "def f(config, x):\n    if config.smear == 'none' and x:\n        return 1\n    return config.num_layers\n"
    )
    config = dataclasses.replace(recipe(), model=dataclasses.replace(TINY, smear="token"))
    assert ast.unparse(folded(tree, "golfcore.model.gpt.parts", config, WRITTEN)) == (
        f"def f(config, x):\n    return {TINY.num_layers}"
    )


def test_names_that_others_could_mean_are_not_shortened() -> None:
    source = (
        "import torch\nclass Thing:\n    def __init__(self, weight_OI, dim):\n        self.hidden_state = weight_OI\n"
        "        self.shape = torch.sum(weight_OI, dim=dim)\n        self.named = getattr(self, 'named_one')\n"
        "    def named_one(self): return self.hidden_state\n    def at(self): return self.at\n"
    )
    source += "def add(at): return torch.add.at(at)\n"
    tree = ast.parse(source)
    rename([tree], frozenset(), frozenset({"Thing"}))
    text = ast.unparse(tree)
    assert all(word in text for word in ("Thing", "shape", "dim=dim", "named_one", "torch.sum", "torch.add.at"))
    assert "weight_OI" not in text and "hidden_state" not in text


def test_the_plain_mixture_gives_the_compiled_ones_losses() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 12, 3000).astype(np.uint16)
    p_NV = rng.dirichlet(np.full(12, 0.3), len(tokens)).astype(np.float32)
    place = np.arange(len(tokens))
    given = (tokens, np.log(p_NV[place, tokens] + 1e-6), np.log(p_NV.max(1)), p_NV.argmax(1).astype(np.uint16))
    own, other = NgramMixture(12), ngram.NgramMixture(12)
    own.learn(tokens[:1])
    other.learn(tokens[:1])
    np.testing.assert_allclose(other.score(*given), own.score(*given), atol=1e-4)


@pytest.mark.parametrize("size", [0, 3, 4, 8, 31, 32, 33, 100, 1000])
def test_the_hash_is_xxh64(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    assert coding.xxh64(data) == _core.xxh64(data)


def test_a_container_that_the_script_writes_is_read_by_golfcore(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = [
        Tensor("a.weight", "matrix", np.clip(rng.normal(0, 5, (300, 70)), -127, 127).astype(np.int8), 8),
        Tensor("b.weight", "matrix", np.clip(rng.normal(0, 9, (80, 64)), -127, 127).astype(np.int8), 8),
        Tensor("c.weight", "low", np.eye(40, dtype=np.int8) - np.int8(1), 1),
        Tensor("d.weight", "low", rng.integers(-1, 2, (40, 33)).astype(np.int8), 2),
        Tensor("a.weight.scale", "scale", np.exp2(rng.integers(-64, 0, 300) // 8).astype(np.float16)),
        Tensor("gain", "control", rng.normal(size=(3, 5)).astype(np.float16)),
        Tensor("none", "control", np.empty((0, 4), np.float16)),
        Tensor("@tokenizer", "tokenizer", np.arange(200, dtype=np.uint8)),
    ]
    (tmp_path / "a.golf").write_bytes(coding.encode(tensors, {"name": "é", "n": [1, 2.5, None]}))
    with Container.open(tmp_path / "a.golf") as file:
        file.verify()
        assert file.manifest == {"name": "é", "n": [1, 2.5, None]}
        arrays = file.read_all()
        for tensor in tensors:
            np.testing.assert_array_equal(arrays[tensor.name], tensor.array)
            assert file.tensors[tensor.name].bits == tensor.bits


def test_columns_are_rounded_as_the_compiled_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, feedback = torch.randn(20, 50, generator=generator), torch.randn(20, 20, generator=generator) * 0.1
    step, shrink = torch.rand(50, generator=generator) + 0.1, torch.full((20,), 0.95)
    own, other = weight.clone(), weight.clone()
    expected = quantize_columns(weight.clone(), own, feedback, step, shrink_C=shrink, limit=31)
    found = columns.quantize_columns(
        weight.clone(), other, feedback, step, shrink_C=shrink, limit=31, trellis=0, ranges=[0, 50]
    )
    assert (found != expected).float().mean() < 0.01  # a tie may fall to the other side
    torch.testing.assert_close(other[:1], own[:1])


@pytest.mark.parametrize("packed", [False, True])
def test_attention_is_golfcores(packed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 24, n, 8, generator=generator) for n in (4, 2, 2))
    gate = torch.rand(1, 24, 4, generator=generator)
    bounds = torch.tensor([0, 5, 5, 17, 24], dtype=torch.int32) if packed else None
    found = plain.attention(q, k, v, gate, cu_seqlens=bounds, xsa=True)
    torch.testing.assert_close(found, ops.attention(q, k, v, gate, cu_seqlens=bounds, xsa=True), atol=1e-5, rtol=1e-5)
