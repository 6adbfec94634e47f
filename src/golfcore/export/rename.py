"""Give short names to what only the collected modules name, the same in all of them.

A name keeps its length if anything outside could mean it: an attribute of a library's object, a keyword of a library's
function, a word in a string, a built-in, an import from elsewhere, or a name that the caller keeps.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import collections
import dataclasses
import hashlib
import itertools
import keyword
import lzma
import math
import pathlib
import queue
import string
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
import zstandard

_FOREIGN: Sequence[Any] = (
    builtins, torch, torch.Tensor, torch.nn, torch.nn.Module(), torch.nn.init, torch.linalg, torch.cuda, torch.compiler,
    torch.utils, torch.func, torch.device, torch.Size, torch.Generator, F, dist, np, np.ndarray, np.dtype, np.generic,
    np.random.default_rng(0), str, bytes, dict, list, set, tuple, int, float, range, slice, collections, Counter,
    dataclasses, argparse.ArgumentParser, argparse.Namespace, hashlib.sha256(), lzma, math, pathlib.Path, queue.Queue,
    struct, threading.Thread, threading.Event, time, futures.ThreadPoolExecutor, futures.Future, zstandard, itertools,
)  # fmt: skip


def rename(trees: Sequence[ast.Module], internal: frozenset[str], public: frozenset[str]) -> None:
    """Rename in place; ``internal`` are the names of the modules, ``public`` names that must stay."""
    nodes = list(itertools.chain.from_iterable(map(ast.walk, trees)))
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    functions = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    foreign = {name for thing in _FOREIGN for name in dir(thing)} | set(keyword.kwlist)
    kept = foreign | public | internal | {"forward"} | _fixed(nodes, internal, functions, foreign)
    own = _attributes(nodes, classes)
    elsewhere = {alias.asname or alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.Attribute) and (_root(node) in elsewhere or node.attr not in own):
            kept.add(node.attr)
    seen: Counter[str] = Counter(name for node in nodes for name in _names(node))
    names = [name for name, _ in seen.most_common() if len(name) > 1 and name not in kept and name[:2] != "__"]
    fresh = (short for short in _short_names() if short not in kept and short not in seen)
    table = dict(zip(names, fresh, strict=False))
    for node in nodes:
        _apply(node, table, internal)


def _root(node: ast.expr) -> str:
    """Return the name that a chain of attributes begins with; empty if it begins with anything else."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _names(node: ast.AST) -> Iterator[str]:
    for field in ("id", "arg", "name", "attr"):
        value = getattr(node, field, None)
        if isinstance(value, str) and not isinstance(node, ast.alias):
            yield value


def _attributes(nodes: Iterable[ast.AST], classes: Iterable[ast.ClassDef]) -> set[str]:
    """Return the attributes that the modules' own classes define."""
    found = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }  # fmt: skip
    for part in itertools.chain.from_iterable(node.body for node in classes):
        if isinstance(part, ast.FunctionDef):
            found.add(part.name)
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            found.add(part.target.id)
        elif isinstance(part, ast.Assign):
            found.update(target.id for target in part.targets if isinstance(target, ast.Name))
    # The names of a module that others reach through it: ``ops.linear``.
    return found | {
        node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }  # fmt: skip


def _fixed(nodes: Iterable[ast.AST], internal: frozenset[str], functions: set[str], foreign: set[str]) -> set[str]:
    """Return the names in strings, in imports from elsewhere, and in calls of what is not the modules' own."""
    kept: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            kept.add(node.value)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            kept.update(node.names)
        elif isinstance(node, ast.ImportFrom) and node.module not in internal:
            kept.update(name for alias in node.names for name in (alias.name, alias.asname or ""))
        elif isinstance(node, ast.Import):
            kept.update(part for alias in node.names for part in [*alias.name.split("."), alias.asname or ""])
        elif isinstance(node, ast.Call):
            called = node.func
            name = (
                called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
            )
            first = node.args[0] if node.args else None
            if name == "partial" and isinstance(first, ast.Name):
                name = first.id
            if name not in functions or name in foreign:
                kept.update(word.arg for word in node.keywords if word.arg)
    return kept


def _apply(node: ast.AST, table: dict[str, str], internal: frozenset[str]) -> None:
    for field in ("id", "arg", "name", "attr"):
        value = getattr(node, field, None)
        if isinstance(value, str) and value in table and not isinstance(node, ast.alias):
            setattr(node, field, table[value])
    if isinstance(node, ast.ImportFrom) and node.module in internal:
        for alias in node.names:
            alias.name = table.get(alias.name, alias.name)
            alias.asname = table.get(alias.asname, alias.asname) if alias.asname else None
            if alias.asname == alias.name:
                alias.asname = None


def _short_names() -> Iterator[str]:
    yield from string.ascii_letters
    for a, b in itertools.product(string.ascii_letters, string.ascii_letters + string.digits):
        if not keyword.iskeyword(a + b):
            yield a + b
