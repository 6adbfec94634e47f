"""The border between Python and C++: what the stubs say is what the modules export, by name, number and kind."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import golfcore
from golfcore import _core
from golfcore.ops import kernels

try:
    from golfcore import _simt
except ImportError:
    _simt = None

OWN_OF_DEVICE = {"why_not", "fill_f32"}  # _simt has no GPU to ask
WITH_CUDA = {"device", "cuda_versions"}
Parameters = dict[str, str]


def stub(name: str) -> dict[str, Parameters | None]:
    """What ``<name>.pyi`` declares: the parameters of functions with their types, None for a number or a class."""
    tree = ast.parse((Path(golfcore.__file__).parent / f"{name}.pyi").read_text())
    found: dict[str, Parameters | None] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = {a.arg: ast.unparse(a.annotation) for a in node.args.args if a.annotation}
        elif isinstance(node, ast.ClassDef):
            found[node.name] = None
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = None
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = None
    return found


DEVICE = stub("_device")
MODULES: list[tuple[ModuleType, dict[str, Parameters | None]]] = [
    (_core, {n: p for n, p in stub("_core").items() if _core.has_cuda or n not in WITH_CUDA})
]
if _simt is not None:
    MODULES.append((_simt, {**{n: p for n, p in DEVICE.items() if n not in OWN_OF_DEVICE}, **stub("_simt")}))
if _core.has_cuda:
    MODULES.append((_core.device, DEVICE))


def kinds(text: str) -> list[str]:
    """int, float, bool, str or - of every argument in pybind11's line ``f(arg0: typing.SupportsInt, ...) -> None``."""
    signature = text.splitlines()[0].partition("(")[2].rpartition(") ->")[0]
    found = []
    for part in re.split(r"(?:^|, )\w+: ", signature)[1:]:
        names = {"typing.SupportsInt": "int", "typing.SupportsFloat": "float", "bool": "bool", "str": "str"}
        first = part.partition(" ")[0].partition("=")[0]
        found.append(names.get(first, "-"))
    return found


@pytest.mark.parametrize(("module", "declared"), MODULES, ids=[m.__name__ for m, _ in MODULES])
def test_stubs_declare_what_the_modules_export(module: ModuleType, declared: dict[str, Parameters | None]) -> None:
    assert {name for name in dir(module) if not name.startswith("__")} == set(declared)
    for name, parameters in declared.items():
        exported = getattr(module, name)
        assert callable(exported) == (parameters is not None or inspect.isclass(exported)), name
        if parameters is not None:
            simple = [kind if kind in ("int", "float", "bool", "str") else "-" for kind in parameters.values()]
            assert kinds(exported.__doc__) == simple, name


def test_the_methods_of_classes_are_declared() -> None:
    tree = ast.parse((Path(golfcore.__file__).parent / "_core.pyi").read_text())
    for declared in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        methods = {node.name for node in declared.body if isinstance(node, ast.FunctionDef)}
        exported = vars(getattr(_core, declared.name))
        assert methods - {"__init__"} == {name for name in exported if not name.startswith("_")}, declared.name


CALLS = [
    function
    for _, function in inspect.getmembers(kernels, inspect.isfunction)
    if function.__module__ == kernels.__name__ and function.__annotations__["return"] == "None"
]
# Where a group of arguments crosses as several: the names that the stubs have for them.
GROUPS = {
    "begin": ("dtype", "gate_dtype", "sizes", "inputs", "strides", "options"),
    "matrix": ("data_and_scales", "sizes"),
    "given": ("addresses", "sizes"),
}


@pytest.mark.parametrize("function", CALLS, ids=lambda f: f.__name__)
def test_arguments_by_name_cross_in_the_order_of_the_stub(
    function: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    crossed: list[tuple[str, tuple[Any, ...]]] = []

    class Core:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *arguments: crossed.append((name, arguments[:-1]))

    monkeypatch.setattr(kernels, "call", lambda like, name, *arguments: crossed.append((name, arguments)))
    monkeypatch.setattr(kernels, "_core", Core())
    parameters = inspect.signature(function).parameters.values()
    by_place = [GROUPS.get(p.name, p.name) for p in parameters if p.kind is not p.KEYWORD_ONLY]
    function(*by_place, **{p.name: p.name for p in parameters if p.kind is p.KEYWORD_ONLY})
    ((native, arguments),) = crossed
    stubs = [DEVICE] if function.__name__.endswith("_device") else [stub("_core")]
    if native in DEVICE and not hasattr(kernels, f"{native}_device"):
        stubs.append(DEVICE)  # one function for both
    for declared in stubs:
        expected = [name for name in declared[native] or () if name not in ("threads", "device", "stream")]
        for name, argument in zip(expected, arguments, strict=True):
            assert isinstance(argument, tuple) or argument == name  # a tuple is a group of named arguments
