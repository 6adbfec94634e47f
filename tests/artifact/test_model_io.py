"""Models in and out of a file: every weight as the quantizer left it, trellis and grid included."""

import ast
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY, VOCAB

from golfcore.artifact.bundle import READER_SOURCES, SMALLEST_SOURCES, code_bundle, without_words
from golfcore.artifact.model_io import CODE, StoredTensor, load_model, save_model
from golfcore.config import QuantConfig
from golfcore.container import Container, Tensor, grid, plain_decoder, write
from golfcore.errors import FormatError
from golfcore.model import get_family
from golfcore.quant import quantize_state

FAMILY = get_family("gpt")


def stored_model(scales: str = "log8") -> list[StoredTensor]:
    model = FAMILY.build(TINY, VOCAB, 0)
    stored = quantize_state(model.state_dict(), model.parameter_roles(), QuantConfig(scales=scales))  # type: ignore[arg-type]
    return [replace(item, trellis=3) if item.name.endswith("mlp.up.weight") else item for item in stored]


@pytest.mark.parametrize("scales", ["log8", "fp16"])
def test_weights_come_back_as_they_were_quantized(tmp_path: Path, scales: str) -> None:
    stored, path = stored_model(scales), tmp_path / "model.golf"
    save_model(path, FAMILY, TINY, VOCAB, stored, b"tokens", {"recipe": "tiny"})
    loaded = load_model(path)
    parameters = dict(loaded.module.named_parameters())
    for item in stored:
        assert torch.equal(parameters[item.name], item.dequantize()), item.name
    assert loaded.tokenizer == b"tokens" and loaded.code == code_bundle(FAMILY)
    with Container.open(path) as c:
        codecs = {chunk.role: chunk.codec for chunk in c.chunks}
        assert (codecs["scale"] == 7) == (scales == "log8")
        assert codecs["code"] == 8
        assert {info.trellis for info in c.tensors.values() if info.role == "up"} == {3}


def test_trellis_coded_weights_are_points_of_half_steps() -> None:
    item = next(item for item in stored_model() if item.trellis)
    assert item.scale is not None
    halves = item.dequantize() / item.scale.float()[:, None] * 2
    assert torch.equal(halves, halves.round()) and (halves % 2 == 1).any() and (halves % 2 == 0).any()
    assert grid.to_index(item.scale.numpy().view(np.uint16)) is not None


def test_the_code_in_the_file_reads_the_file(tmp_path: Path) -> None:
    """What is counted as code is enough: run by itself, it gives every tensor."""
    path = tmp_path / "model.golf"
    save_model(path, FAMILY, TINY, VOCAB, stored_model(), b"", {})
    with Container.open(path) as c:
        bundle = c.read(CODE).tobytes().decode()
        expected = c.read_all()
    source = bundle.split("# --- container/plain_decoder.py\n")[1].split("\n# --- ")[0]
    module: dict[str, object] = {}
    exec(compile(source, "plain_decoder.py", "exec"), module)
    manifest, tensors = module["decode"](path.read_bytes())  # type: ignore[operator]
    assert manifest == plain_decoder.decode(path.read_bytes())[0]
    assert {name: array.tobytes() for name, _, _, array in tensors} == {n: a.tobytes() for n, a in expected.items()}


def test_scales_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.golf"
    save_model(path, FAMILY, TINY, VOCAB, stored_model(), b"", {})
    with Container.open(path) as c:
        tensors = [Tensor(t.name, t.role, c.read(t.name), t.bits, t.dtype, t.trellis) for t in c.tensors.values()]
        manifest = c.manifest
    first = next(i for i, t in enumerate(tensors) if t.role == "scale")
    tensors[first] = replace(tensors[first], array=tensors[first].array[:5])
    write(path, tensors, manifest)
    with pytest.raises(FormatError, match=r"its scales \(5,\)"):
        load_model(path)


def test_packed_code_has_no_words_and_is_the_same_program() -> None:
    package = files("golfcore")
    for name in (*FAMILY.sources, *READER_SOURCES, *SMALLEST_SOURCES):
        source = package.joinpath(name).read_text(encoding="utf-8")
        packed = without_words(source)
        assert "\n\n" not in packed and not re.search(r"^\s*#", packed, re.MULTILINE), name
        assert ast.dump(_without_docstrings(ast.parse(source))) == ast.dump(_without_docstrings(ast.parse(packed))), (
            name
        )
        assert len(packed) < len(source)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            kept = [
                s for s in node.body
                if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and s.value.value is not ...)
            ]  # fmt: skip
            node.body = [s for s in kept if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return tree


def test_words_are_told_from_strings() -> None:
    source = '''"""Module."""
x = "# no comment"  # a comment


class A:
    """Only a docstring."""


def f():
    "Doc."
    """
    A string that nobody reads.

    """
    y = """kept

# kept too
"""
    return y
'''
    assert (
        without_words(source)
        == '''x = "# no comment"
class A:
    ...
def f():
    y = """kept

# kept too
"""
    return y
'''
    )
