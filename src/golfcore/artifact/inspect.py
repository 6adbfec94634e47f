"""Report where the bytes of a container go: framing, roles, tensors, and the distance of each from its entropy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from golfcore.container import Container
from golfcore.container.codecs import CODECS
from golfcore.container.tensors import Array
from golfcore.container.writing import HEADER, MAJOR, TRAILER


def order0_bits(array: Array) -> float:
    """Return the order-0 entropy in bits per element (0 for an empty array).

    It is the entropy of single values, blind to their order: that of each byte position by itself, summed. A coder
    that needs fewer bits has found structure; one that needs more wastes bits.
    """
    if not array.size:
        return 0.0
    planes = np.frombuffer(array.tobytes(), np.uint8).reshape(array.size, -1)
    total = 0.0
    for plane in planes.T:
        counts = np.bincount(plane, minlength=256)
        p = counts[counts > 0] / array.size
        total -= float(np.sum(p * np.log2(p)))
    return max(total, 0.0)


def summary(path: Path | str, cap: int | None = None, limit: int = 1 << 30) -> dict[str, Any]:
    """Return everything that ``golfcore inspect`` shows, as plain values; every tensor is decoded.

    Args:
        path: a container file.
        cap: the byte cap to measure free bytes against.
        limit: most bytes that all tensors together may take when decoded.

    Returns:
        ``path``, ``version``, ``manifest``; ``bytes`` (file, header, directory, directory_raw, trailer, framing,
        payload, and with a cap: cap, free); ``roles``, ``chunks`` and ``tensors`` as lists of rows in file order.
        ``raw`` and ``coded`` are bytes, ``bits_per_weight``, ``order0_bits`` and their difference ``excess_bits`` bits
        per element; an excess far above 0 says that another codec would do better. A chunk's bytes are apportioned to
        its tensors by raw size; ``alone`` marks tensors whose bytes are exact.

    Raises:
        InputError, FormatError: as for ``Container.open`` and ``Container.read``.
    """
    with Container.open(path, limit) as container:
        framing = HEADER.size + container.directory_coded + TRAILER.size
        sizes = {
            "file": container.file_len,
            "header": HEADER.size,
            "directory": container.directory_coded,
            "directory_raw": container.directory_raw,
            "trailer": TRAILER.size,
            "framing": framing,
            "payload": container.payload_len,
        }
        if cap is not None:
            sizes |= {"cap": cap, "free": cap - container.file_len}
        rows = [_tensor_row(container, name, array) for name, array in container.read_all().items()]
        return {
            "path": str(path),
            "version": f"{MAJOR}.{container.minor}",
            "manifest": container.manifest,
            "bytes": sizes,
            "roles": _totals(rows, "role"),
            "chunks": _chunk_rows(container, rows),
            "tensors": rows,
        }


def _tensor_row(container: Container, name: str, array: Array) -> dict[str, Any]:
    info = container.tensors[name]
    chunk = container.chunks[info.chunk]
    coded = chunk.coded_len * info.nbytes / chunk.layout.raw_len if chunk.layout.raw_len else 0.0
    bits_per_weight = 8 * coded / info.size if info.size else 0.0
    order0 = order0_bits(array)
    return {
        "name": name,
        "role": info.role,
        "shape": list(info.shape),
        "kind": "quantised" if info.bits else "plain",
        "dtype": info.dtype,
        "bits": info.bits,
        "trellis": info.trellis,
        "label": info.kind.label,
        "chunk": info.chunk,
        "codec": CODECS[chunk.codec].name,
        "raw": info.nbytes,
        "coded": round(coded, 1),
        "alone": len(chunk.layout.shapes) == 1,
        "bits_per_weight": round(bits_per_weight, 4),
        "order0_bits": round(order0, 4),
        "excess_bits": round(bits_per_weight - order0, 4),
        "crc32c": f"{chunk.crc32c:08x}",
    }


def _chunk_rows(container: Container, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    totals = _totals(rows, "chunk")
    for total, chunk in zip(totals, container.chunks, strict=True):
        total |= {
            "role": chunk.role,
            "kind": chunk.layout.kind.label,
            "codec": CODECS[chunk.codec].name,
            "coded": chunk.coded_len,
            "crc32c": f"{chunk.crc32c:08x}",
        }
    return totals


def _totals(rows: Iterable[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Sum the tensor rows by ``key``, in order of first appearance."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return [_total(key, value, group) for value, group in groups.items()]


def _total(key: str, value: Any, group: list[dict[str, Any]]) -> dict[str, Any]:
    weights = [math.prod(row["shape"]) for row in group]
    coded = sum(row["coded"] for row in group)
    order0 = sum(row["order0_bits"] * n for row, n in zip(group, weights, strict=True))
    bits_per_weight = 8 * coded / sum(weights) if sum(weights) else 0.0
    order0_bits = order0 / sum(weights) if sum(weights) else 0.0
    return {
        key: value,
        "tensors": len(group),
        "weights": sum(weights),
        "raw": sum(row["raw"] for row in group),
        "coded": round(coded),
        "bits_per_weight": round(bits_per_weight, 4),
        "order0_bits": round(order0_bits, 4),
        "excess_bits": round(bits_per_weight - order0_bits, 4),
    }
