"""Compare two containers: tensors, their values, the manifest, and where the bytes went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from golfcore.container import Container, TensorInfo
from golfcore.container.tensors import Array


def compare(a: Container, b: Container) -> dict[str, Any]:
    """Decode both containers and compare them tensor by tensor.

    Returns:
        ``equal``: same manifest, same tensors with the same values (the coding may differ); ``manifest``: rows of
        ``key``, ``a``, ``b`` for keys that differ (None if missing); ``tensors``: rows of ``name`` and ``change``, and
        for changed values ``differing`` elements and the largest distance ``max_abs`` (None if it is not finite);
        ``roles``: rows of ``role`` and its coded bytes in ``a`` and ``b``; ``bytes``: sizes of both files.

    Raises:
        FormatError: a damaged tensor.
    """
    values_a, values_b = a.read_all(), b.read_all()
    tensors = []
    for name in dict.fromkeys([*a.tensors, *b.tensors]):
        row = _tensor_row(a.tensors.get(name), b.tensors.get(name), values_a.get(name), values_b.get(name))
        if row is not None:
            tensors.append({"name": name, **row})
    manifest = _mapping_rows(a.manifest, b.manifest)
    roles_a, roles_b = _coded_by_role(a), _coded_by_role(b)
    return {
        "equal": not manifest and not tensors,
        "manifest": manifest,
        "tensors": tensors,
        "roles": [
            {"role": role, "a": roles_a.get(role, 0), "b": roles_b.get(role, 0)}
            for role in dict.fromkeys([*roles_a, *roles_b])
        ],
        "bytes": {"a": a.file_len, "b": b.file_len},
    }


def _tensor_row(
    a: TensorInfo | None, b: TensorInfo | None, values_a: Array | None, values_b: Array | None
) -> dict[str, Any] | None:
    if a is None or b is None or values_a is None or values_b is None:
        return {"change": "only in B" if a is None else "only in A"}
    for what, one, other in (
        ("role", a.role, b.role),
        ("kind", a.kind.label, b.kind.label),
        ("shape", a.shape, b.shape),
    ):
        if one != other:
            return {"change": f"{what} {_text(one)} -> {_text(other)}"}
    bits = f"<u{a.kind.itemsize}"
    different = values_a.reshape(-1).view(bits) != values_b.reshape(-1).view(bits)  # NaNs and zeros by their bits
    if not different.any():
        return None
    distance = float(np.max(np.abs(_real(values_a, a) - _real(values_b, b))))
    return {
        "change": "values",
        "differing": int(np.count_nonzero(different)),
        "elements": a.size,
        "max_abs": distance if np.isfinite(distance) else None,
    }


def _real(values: Array, info: TensorInfo) -> Array:
    if info.dtype == "bf16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64)


def _text(value: object) -> str:
    return "x".join(map(str, value)) or "scalar" if isinstance(value, tuple) else str(value)


def _mapping_rows(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for key in sorted({*a, *b}):
        one, other = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            rows += _mapping_rows(one, other, f"{prefix}{key}.")
        elif (key in a, one, type(one)) != (key in b, other, type(other)):
            rows.append({"key": prefix + key, "a": one, "b": other})
    return rows


def _coded_by_role(container: Container) -> dict[str, int]:
    found: dict[str, int] = {}
    for chunk in container.chunks:
        found[chunk.role] = found.get(chunk.role, 0) + chunk.coded_len
    return found | {"framing": container.file_len - container.payload_len}
