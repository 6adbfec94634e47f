"""Expand packed code without executing it: the literals of a shim are decoded here, step by step and within bounds."""

from __future__ import annotations

import ast
import base64
import binascii
import bz2
import codecs
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_LAYERS = 8
MAX_BYTES = 8_000_000  # that a layer may expand to
MAX_MEMORY = 256_000_000  # that a decompressor may take
MAX_SHIM = 60  # statements of a file that may be a shim
MAX_DEPTH = 60
_EXECUTES = {"exec", "eval", "compile"}


class Refused(Exception):
    """Raised when a literal cannot be decoded, or not within bounds."""


@dataclass
class Unpacked:
    """Code that a file executes from its literals; ``text`` is None if there is none that can be decoded."""

    text: str | None = None
    layers: int = 0
    codecs: list[str] = field(default_factory=list)
    problem: str = ""


def unpack(tree: ast.Module) -> Unpacked:
    """Return the code that a shim executes, expanded layer by layer."""
    result = Unpacked()
    current = tree
    for _ in range(MAX_LAYERS):
        packed = _executed(current)
        if packed is None:
            return result
        try:
            reader = _Reader(current, result.codecs)
            data = reader.read(packed, 0)
            text = data.decode("utf-8") if isinstance(data, bytes) else data
            if not isinstance(text, str):
                raise Refused(f"it executes {type(text).__name__}")
            inner = ast.parse(text)
        except (Refused, UnicodeDecodeError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            result.problem = f"packed code was not expanded: {str(error)[:100]}"
            return result
        result.text, current = text, inner
        result.layers += 1
    result.problem = f"packed over {MAX_LAYERS} layers deep"
    return result


def _executed(tree: ast.Module) -> ast.AST | None:
    """Return what a shim, a file of few statements, passes to exec."""
    if len(tree.body) > MAX_SHIM:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "exec" and node.args:
            argument = node.args[0]
            while (
                isinstance(argument, ast.Call) and isinstance(argument.func, ast.Name) and argument.func.id == "compile"
            ):
                argument = argument.args[0] if argument.args else argument
                if not isinstance(argument, ast.Call):
                    break
            return argument
    return None


class _Reader:
    """Decode an expression of literals, decoders and names of them; anything else is refused."""

    def __init__(self, tree: ast.Module, used: list[str]) -> None:
        self.used = used
        self.names: dict[str, ast.AST] = {}
        self.modules: dict[str, str] = {}
        self.steps = 0
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self.names.setdefault(node.targets[0].id, node.value)
            elif (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Tuple)
                and isinstance(node.value, ast.Tuple)
            ):
                for target, value in zip(node.targets[0].elts, node.value.elts, strict=False):
                    if isinstance(target, ast.Name):
                        self.names.setdefault(target.id, value)
            elif isinstance(node, ast.Import):
                self.modules.update({alias.asname or alias.name: alias.name for alias in node.names})
            elif isinstance(node, ast.ImportFrom):
                self.modules.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})

    def read(self, node: ast.AST | None, depth: int) -> Any:
        """Return the bytes or text of an expression."""
        self.steps += 1
        if node is None or depth > MAX_DEPTH or self.steps > 2_000:
            raise Refused("its expression is too long")
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            if node.id not in self.names:
                raise Refused(f"it depends on {node.id}")
            return self.read(self.names[node.id], depth + 1)
        if isinstance(node, ast.JoinedStr):
            return "".join(
                str(self.read(p.value if isinstance(p, ast.FormattedValue) else p, depth + 1)) for p in node.values
            )
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self.read(node.left, depth + 1), self.read(node.right, depth + 1)
            return self.bounded(left + right) if type(left) is type(right) else self.refuse(node)
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self.read(part, depth + 1) for part in node.elts]
        if isinstance(node, ast.Subscript):
            return self.sliced(node, depth)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self.read(node.operand, depth + 1)
        if isinstance(node, ast.Call):
            return self.called(node, depth)
        if isinstance(node, ast.NamedExpr):
            return self.read(node.value, depth + 1)
        return self.refuse(node)

    def refuse(self, node: ast.AST) -> Any:
        raise Refused(f"it is made by {type(node).__name__}")

    def bounded(self, value: Any) -> Any:
        if isinstance(value, (str, bytes)) and len(value) > MAX_BYTES:
            raise Refused(f"it expands to over {MAX_BYTES:,} bytes")
        return value

    def sliced(self, node: ast.Subscript, depth: int) -> Any:
        value = self.read(node.value, depth + 1)
        if isinstance(node.slice, ast.Slice):
            parts = [
                self.read(p, depth + 1) if p is not None else None
                for p in (node.slice.lower, node.slice.upper, node.slice.step)
            ]
            if isinstance(value, (str, bytes, list)) and all(p is None or isinstance(p, int) for p in parts):
                return value[slice(*parts)]
        return self.refuse(node)

    def called(self, node: ast.Call, depth: int) -> Any:
        """Return the result of a decoder, or of a method of bytes and text."""
        arguments = [self.read(part, depth + 1) for part in node.args]
        named = {k.arg: self.option(k.value, depth) for k in node.keywords if k.arg}
        function = node.func
        path: str | None
        if isinstance(function, ast.Name):
            path = self.modules.get(function.id, function.id)
            if path in ("__import__", "compile"):
                return arguments[0]
        elif isinstance(function, ast.Attribute):
            path = self.path(function)
            if path is None:
                return self.method(self.read(function.value, depth + 1), function.attr, arguments)
        else:
            return self.refuse(node)
        name = path.rpartition(".")[2]
        decoder = _DECODERS.get(name) or (_decompressor(path) if name == "decompress" else None)
        if decoder is None:
            raise Refused(f"it calls {path[:60]}")
        self.used.append(path if name == "decompress" else name)
        try:
            return self.bounded(decoder(arguments, named))
        except Refused:
            raise
        except Exception as error:
            raise Refused(f"{path[:60]} fails: {str(error)[:60]}") from error

    def path(self, function: ast.Attribute) -> str | None:
        """Return the dotted name of a function of a module, or None if it is a method of a value."""
        value = function.value
        if isinstance(value, ast.Name) and value.id in self.modules:
            return f"{self.modules[value.id]}.{function.attr}"
        if isinstance(value, ast.Name) and value.id == "bytes":
            return f"bytes.{function.attr}"
        if (
            isinstance(value, ast.Call)
            and isinstance(value.func, ast.Name)
            and value.func.id == "__import__"
            and value.args
        ):
            name = value.args[0]
            return f"{name.value!s}.{function.attr}" if isinstance(name, ast.Constant) else None
        return None

    def option(self, node: ast.AST, depth: int) -> Any:
        """Return the value of a keyword: a literal, or a constant of lzma."""
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and self.modules.get(node.value.id) == "lzma"
        ):
            return getattr(lzma, node.attr, None)
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self.option(part, depth) for part in node.elts[:8]]
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            return {self.option(k, depth): self.option(v, depth) for k, v in pairs if k is not None}
        return self.read(node, depth + 1)

    def method(self, value: Any, name: str, arguments: list[Any]) -> Any:
        """Return the result of a harmless method of bytes or text."""
        if isinstance(value, (str, bytes)) and name in (
            "encode",
            "decode",
            "strip",
            "replace",
            "join",
            "translate",
            "lstrip",
            "rstrip",
        ):
            if name == "replace" and len(arguments) > 1 and len(value) * max(1, len(arguments[1])) > 64 * MAX_BYTES:
                raise Refused("it expands too far")
            if name == "decode" and arguments and arguments[0] in ("base64", "hex", "zlib", "bz2", "rot13"):
                return (
                    codecs.decode(value, arguments[0]) if arguments[0] in ("base64", "hex") else self.refuse(ast.Pass())
                )
            return self.bounded(getattr(value, name)(*arguments))
        raise Refused(f"it calls the method {name}")


def _inflate(make: Callable[[], Any]) -> Callable[[list[Any], dict[str, Any]], bytes]:
    def decode(arguments: list[Any], named: dict[str, Any]) -> bytes:
        data = make().decompress(arguments[0], MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise Refused(f"it expands to over {MAX_BYTES:,} bytes")
        return bytes(data)

    return decode


def _lzma(arguments: list[Any], named: dict[str, Any]) -> bytes:
    form = named.get("format", arguments[1] if len(arguments) > 1 else lzma.FORMAT_AUTO)
    filters = named.get("filters")
    for entry in filters or ():
        if isinstance(entry, dict):
            entry["dict_size"] = min(int(entry.get("dict_size", 1 << 23)), 1 << 26)
    limit = None if form == lzma.FORMAT_RAW else MAX_MEMORY
    data = lzma.LZMADecompressor(format=form, memlimit=limit, filters=filters).decompress(arguments[0], MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Refused(f"it expands to over {MAX_BYTES:,} bytes")
    return data


def _zlib(arguments: list[Any], named: dict[str, Any]) -> bytes:
    bits = named.get("wbits", arguments[1] if len(arguments) > 1 else zlib.MAX_WBITS)
    return _inflate(lambda: zlib.decompressobj(bits))(arguments, named)


def _brotli(arguments: list[Any], named: dict[str, Any]) -> bytes:
    try:
        import brotli
    except ImportError as error:
        raise Refused("it is packed with brotli, which is not installed: pip install brotli") from error
    decoder = brotli.Decompressor()
    made = bytearray()
    for start in range(0, len(arguments[0]), 64):
        made += decoder.process(arguments[0][start : start + 64])
        if len(made) > MAX_BYTES:
            raise Refused(f"it expands to over {MAX_BYTES:,} bytes")
    return bytes(made)


def _zstd(arguments: list[Any], named: dict[str, Any]) -> bytes:
    import zstandard

    reader = zstandard.ZstdDecompressor(max_window_size=MAX_MEMORY // 2).stream_reader(arguments[0])
    data: bytes = reader.read(MAX_BYTES + 1)
    return data


def _decompressor(path: str) -> Callable[[list[Any], dict[str, Any]], bytes] | None:
    module = path.partition(".")[0]
    return {
        "lzma": _lzma,
        "zlib": _zlib,
        "bz2": _inflate(bz2.BZ2Decompressor),
        "brotli": _brotli,
        "brotlicffi": _brotli,
        "gzip": _inflate(lambda: zlib.decompressobj(31)),
        "zstandard": _zstd,
        "zstd": _zstd,
        "pyzstd": _zstd,
    }.get(module)


_DECODERS: dict[str, Callable[[list[Any], dict[str, Any]], Any]] = {
    "b64decode": lambda a, k: base64.b64decode(a[0]),
    "urlsafe_b64decode": lambda a, k: base64.urlsafe_b64decode(a[0]),
    "standard_b64decode": lambda a, k: base64.b64decode(a[0]),
    "b85decode": lambda a, k: base64.b85decode(a[0]),
    "a85decode": lambda a, k: base64.a85decode(a[0]),
    "b32decode": lambda a, k: base64.b32decode(a[0]),
    "b16decode": lambda a, k: base64.b16decode(a[0]),
    "unhexlify": lambda a, k: binascii.unhexlify(a[0]),
    "a2b_base64": lambda a, k: binascii.a2b_base64(a[0]),
    "fromhex": lambda a, k: bytes.fromhex(a[0]),
    "bytes": lambda a, k: bytes(a[0]) if a and isinstance(a[0], (bytes, list)) else b"",
    "str": lambda a, k: a[0].decode(*a[1:2]) if isinstance(a[0], bytes) else str(a[0])[:MAX_BYTES],
    "bytearray": lambda a, k: bytes(a[0]) if a and isinstance(a[0], (bytes, list)) else b"",
}
