"""Compare the entropy coders with general compressors on the same symbols; everything is decoded and checked.

Matrices are those of a model's layers (2-D, with a layer's number in their name), rounded row by row as the ``quant``
package does. The matrices of one role in all layers are one chunk, as in a container. golfcore's speeds are those of
one core.
"""

from __future__ import annotations

import base64
import importlib
import lzma
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from golfcore.artifact.inspect import order0_bits
from golfcore.container import Container, Tensor, encode, grid, plain_decoder
from golfcore.container.codecs import CODECS, Layout, attempt, attempts
from golfcore.container.tensors import Array, Kind
from golfcore.errors import InputError, RuleError, UsageError
from golfcore.progress import Tick, silent
from golfcore.quant.rtn import quantize_rows

if TYPE_CHECKING:
    import torch

RIVALS = ("brotli", "zstd", "lrzip")
# name -> bits, standard deviations that the largest symbol stands for
WIDTHS = {"int4": (4, 4.0), "int6": (6, 12.85), "int8": (8, 20.0), "ternary": (2, 1.3)}
T = TypeVar("T")
LAYER = re.compile(r"(?:^|\.)\d+\.")


@dataclass(frozen=True, kw_only=True)
class PackRow:
    """One pipeline on one model's symbols. ``bytes`` is None if a program is not installed."""

    pipeline: str
    checkpoint: str
    what: str
    weights: int
    bytes: int | None
    bits_per_weight: float | None = None
    encode_s: float | None = None
    decode_s: float | None = None

    def rate(self, seconds: float | None) -> float | None:
        """Return millions of weights (rows, bytes) per second."""
        return None if not seconds else self.weights / seconds / 1e6


def load_matrices(path: Path) -> dict[str, torch.Tensor]:
    """Load the layers' matrices of a run folder, its checkpoint, or a .safetensors file.

    Raises:
        InputError: the file cannot be read, or holds no such matrices.
        FormatError: the file is damaged.
    """
    if path.suffix == ".safetensors":
        from golfcore.artifact.interchange import load_tensors

        state = load_tensors(path)
    else:
        from golfcore.run_folder import CHECKPOINT
        from golfcore.training.checkpoint import load_checkpoint

        state = load_checkpoint(path / CHECKPOINT if path.is_dir() else path).get("weights", {})
    found = {name: w for name, w in state.items() if w.ndim == 2 and LAYER.search(name) and w.numel() >= 1 << 12}
    if not found:
        raise InputError(f"{path}: no matrix with a layer's number in its name; expected a trained model")
    return found


def parse_weights(given: Sequence[str]) -> dict[str, Path]:
    """Parse ``["pocket=runs/1"]`` to names and files."""
    found = {}
    for text in given:
        name, separator, path = text.partition("=")
        if not separator or not name or not path:
            raise UsageError(f"--weights {text}: expected NAME=FILE, as in pocket=runs/20250101-120000")
        found[name] = Path(path)
    return found


def parse_choice(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Parse ``"int4,int6"`` to its names, each one of ``known``."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in known:
            raise UsageError(f"--{option} {name}: expected some of {', '.join(known)}")
    return names


def rows(
    weights: Mapping[str, Path],
    *,
    widths: Sequence[str] = tuple(WIDTHS),
    rivals: Sequence[str] = RIVALS,
    script: Path | None = None,
    tick: Tick = silent,
) -> list[PackRow]:
    """Measure every pipeline on every model.

    Args:
        weights: run folder, checkpoint or .safetensors file of each model, by name.
        widths: names in ``WIDTHS``.
        rivals: names in ``RIVALS``.
        script: a source file, for the rows of code.
        tick: called with the progress so far.

    Raises:
        InputError, FormatError: a model cannot be read, or brotli is asked for and not installed.
        RuleError: decoded data differ from the original.
    """
    found = [framing_row()]
    if script is not None:
        found += code_rows(script)
    done, total = 0, len(weights) * (len(widths) + 1)
    for name, path in weights.items():
        matrices = load_matrices(path)
        tick(done, total, f"{name} scales")
        found += scale_rows(name, matrices, rivals)
        done += 1
        for width in widths:
            tick(done, total, f"{name} {width}")
            found += symbol_rows(name, width, matrices, rivals)
            done += 1
    return found


def symbol_rows(name: str, width: str, matrices: Mapping[str, torch.Tensor], rivals: Sequence[str]) -> list[PackRow]:
    """Return the rows of one model at one width."""
    tensors = symbols(width, matrices)
    n = sum(t.array.size for t in tensors)

    def row(pipeline: str, size: int | None, encode_s: float | None = None, decode_s: float | None = None) -> PackRow:
        per_weight = None if size is None else 8 * size / n
        return PackRow(
            pipeline=pipeline, checkpoint=name, what=width, weights=n, bytes=size, bits_per_weight=per_weight,
            encode_s=encode_s, decode_s=decode_s,
        )  # fmt: skip

    entropy = sum(order0_bits(t.array) * t.array.size for t in tensors)
    data, encode_s = _timed(lambda: encode(tensors, {}, threads=1))
    arrays, decode_s = _timed(lambda: _read(data))
    plain, plain_s = _timed(lambda: plain_decoder.decode(data)[1])
    _require_equal("golfcore", [arrays[t.name] for t in tensors], [t.array for t in tensors])
    in_order = {key: values for key, _, _, values in plain}
    _require_equal("numpy", [in_order[t.name] for t in tensors], [t.array for t in tensors])
    found = [
        row("order-0 entropy by tensor", round(entropy / 8)),
        row("golfcore", len(data), encode_s, decode_s),
        row("golfcore, numpy decoder", len(data), None, plain_s),
    ]
    found += _smallest_rows(tensors, row)
    found += [row(f"golfcore {CODECS[codec].name} alone", *_one_codec(codec, tensors)) for codec in (4, 5, 9)]
    raw = b"".join(t.array.tobytes() for t in tensors)
    transposed = b"".join(np.ascontiguousarray(t.array.T).tobytes() for t in tensors)
    for rival in rivals:
        found.append(row(*_rival(rival, raw, transposed)))
    return found


def _smallest_rows(tensors: Sequence[Tensor], row: Callable[..., PackRow]) -> list[PackRow]:
    """Return the rows of coder "smallest", timed once, since numpy decodes its symbols slowly."""
    data, encode_s = _timed(lambda: encode(tensors, {}, coder="smallest", threads=1), 1)
    arrays, decode_s = _timed(lambda: _read(data))
    (_, plain), plain_s = _timed(lambda: plain_decoder.decode(data), 1)
    in_order = {key: values for key, _, _, values in plain}
    for who, found in (("golfcore smallest", arrays), ("numpy", in_order)):
        _require_equal(who, [found[t.name] for t in tensors], [t.array for t in tensors])
    return [
        row("golfcore smallest", len(data), encode_s, decode_s),
        row("golfcore smallest, numpy decoder", len(data), None, plain_s),
    ]


def symbols(width: str, matrices: Mapping[str, torch.Tensor]) -> list[Tensor]:
    """Round the matrices to a width in ``WIDTHS``; a role is the matrices of one name in all layers."""
    bits, k = WIDTHS[width]
    return [
        Tensor(key, _role(key), quantize_rows(matrix, bits=bits, clip="sigma", k=k, name=key).symbols_OI.numpy(), bits)
        for key, matrix in matrices.items()
    ]


def _role(name: str) -> str:
    """Return the role for the matrices of one name in all layers."""
    return re.sub("[^a-z0-9]+", ".", LAYER.sub(".", name).lower()).strip(".")[-32:].lstrip(".")


def _read(data: bytes) -> dict[str, Array]:
    with Container.from_bytes(data) as container:
        return container.read_all(threads=1)


def _one_codec(codec: int, tensors: Sequence[Tensor]) -> tuple[int, float, float]:
    """Return bytes, encoding and decoding seconds of one codec, with four classes of columns or learned ones."""
    groups: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.role, []).append(tensor)
    size, encode_s, decode_s = 0, 0.0, 0.0
    for group in groups.values():
        coded, seconds, back_s = _one_chunk(codec, group)
        size, encode_s, decode_s = size + coded, encode_s + seconds, decode_s + back_s
    return size, encode_s, decode_s


def _one_chunk(codec: int, group: Sequence[Tensor]) -> tuple[int, float, float]:
    layout = Layout(Kind("i8", group[0].bits), tuple(t.array.shape for t in group))
    raw = b"".join(t.array.tobytes() for t in group)
    params = [params for tried, params in attempts(layout, "smallest") if tried == codec][1 if codec == 4 else 0]
    coded, encode_s = _timed(lambda: CODECS[codec].encode(raw, layout, params) or b"")
    back, decode_s = _timed(lambda: CODECS[codec].decode(coded, layout, params))
    if back != raw:
        raise RuleError(f"codec {CODECS[codec].name}: decoded symbols differ from the originals")
    return len(coded), encode_s, decode_s


def _rival(name: str, raw: bytes, transposed: bytes) -> tuple[str, int | None, float | None, float | None]:
    if name == "lrzip":
        return ("lrzip -z -L9, transposed", *_lrzip(transposed))
    if name == "zstd":
        import zstandard

        coded, encode_s = _timed(lambda: zstandard.ZstdCompressor(level=22).compress(raw), 1)
        back, decode_s = _timed(lambda: zstandard.ZstdDecompressor().decompress(coded))
        label = "zstd -22"
    else:
        brotli = brotli_module()
        coded, encode_s = _timed(lambda: brotli.compress(raw, quality=11, lgwin=24), 1)
        back, decode_s = _timed(lambda: brotli.decompress(coded))
        label = "brotli -11"
    if back != raw:
        raise RuleError(f"{label}: decoded symbols differ from the originals")
    return label, len(coded), encode_s, decode_s


def brotli_module() -> Any:
    """Import brotli; raise InputError if it is not installed."""
    try:
        return importlib.import_module("brotli")
    except ImportError as error:
        raise InputError("brotli is not installed: pip install 'golfcore[bench]', or leave it out of --vs") from error


def _lrzip(data: bytes) -> tuple[int | None, float | None, float | None]:
    """Return bytes and seconds of lrzip; all None if it is not installed."""
    program = shutil.which("lrzip")
    if program is None:
        return None, None, None
    with tempfile.TemporaryDirectory() as folder:
        source, coded, back = (Path(folder) / name for name in ("data", "data.lrz", "back"))
        source.write_bytes(data)
        _, encode_s = _timed(lambda: _call(program, "-q", "-z", "-L9", "-o", str(coded), str(source)), 1)
        _, decode_s = _timed(lambda: _call(program, "-q", "-d", "-o", str(back), str(coded)), 1)
        if back.read_bytes() != data:
            raise RuleError("lrzip: decoded symbols differ from the originals")
        return coded.stat().st_size, encode_s, decode_s


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise InputError(f"{command[0]} failed: {done.stderr.strip()[-300:]}")


def scale_rows(name: str, matrices: Mapping[str, torch.Tensor], rivals: Sequence[str]) -> list[PackRow]:
    """Return rows on int6 row scales: on the logarithmic grid in a container's chunk, and in fp16 through brotli."""
    by_kind = {
        scales: [
            quantize_rows(m, bits=6, clip="sigma", k=12.85, scales=scales).scale_O.numpy() for m in matrices.values()
        ]
        for scales in ("log8", "fp16")
    }
    layout = Layout(Kind("f16"), tuple(scale.shape for scale in by_kind["log8"]))
    raw = b"".join(scale.tobytes() for scale in by_kind["log8"])
    params = next(params for codec, params in attempts(layout) if codec == 7)
    found = attempt(raw, layout, 7, params)
    if found is None or CODECS[7].decode(found[2], layout, params) != raw:
        raise RuleError("decoded scales differ from the originals")
    plain = b"".join(scale.tobytes() for scale in by_kind["fp16"])
    n = len(raw) // 2
    sizes = {"golfcore log2/8 grid": len(found[2])}
    if "brotli" in rivals:
        sizes["fp16, brotli -11"] = len(brotli_module().compress(plain, quality=11))
    return [
        PackRow(
            pipeline=pipeline, checkpoint=name, what="row scales", weights=n, bytes=size, bits_per_weight=8 * size / n
        )
        for pipeline, size in sizes.items()
    ]


def code_rows(script: Path) -> list[PackRow]:
    """Return rows on a source file: as a container's chunk, and as text in base85 around LZMA."""
    try:
        text = script.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {script}: {error.strerror or error}") from error
    with Container.from_bytes(encode([Tensor("code", "code", np.frombuffer(text, np.uint8))], {})) as container:
        coded = container.chunks[0].coded_len
    best = min(len(lzma.compress(text, lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME)),
               len(lzma.compress(text, lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME)))  # fmt: skip
    armoured = len(base64.b85encode(bytes(best)))
    return [
        PackRow(pipeline=pipeline, checkpoint=script.name, what="code", weights=len(text), bytes=size,
                bits_per_weight=8 * size / len(text))
        for pipeline, size in (("golfcore", coded), ("LZMA, base85", armoured))
    ]  # fmt: skip


def framing_row() -> PackRow:
    """Return the row on the bytes that a container adds to a hundred tensors: header, directory, checksums, trailer."""
    rng = np.random.default_rng(0)
    tensors = []
    parts = (("attn.c_q", 64), ("attn.c_k", 32), ("attn.c_v", 32), ("attn.proj", 64), ("mlp.fc", 256))
    for layer in range(10):
        for part, rows_ in parts:
            symbols = rng.normal(0, 2.4, (rows_ + layer, 64)).round().astype(np.int8)
            scale = grid.nearest(rng.lognormal(-4, 0.2, rows_ + layer).astype(np.float32))
            tensors += [
                Tensor(f"blocks.{layer}.{part}.weight", part.replace("attn.", "").replace(".", "_"), symbols, 6),
                Tensor(f"blocks.{layer}.{part}.weight.scale", "scale", scale),
            ]
    with Container.from_bytes(encode(tensors, {})) as container:
        framing = container.file_len - container.payload_len
    return PackRow(pipeline="golfcore", checkpoint="100 tensors", what="framing", weights=len(tensors), bytes=framing)


def _timed(work: Callable[[], T], repeats: int = 3) -> tuple[T, float]:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return result, best


def _require_equal(who: str, found: Sequence[Array], expected: Sequence[Array]) -> None:
    for one, other in zip(found, expected, strict=True):
        if not np.array_equal(one, other):
            raise RuleError(f"{who}: decoded symbols differ from the originals")


def about(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first columns of a saved row: date, commit, machine."""
    header = {"date": environment["started"], "commit": environment["commit"] + ("+" if environment["dirty"] else "")}
    return header | {key: environment[key] for key in ("cpu", "cores", "isa", "python")}
