"""``golfcore inspect``, ``verify``, ``diff`` and ``unpack``: look into a model file, check it, take it apart."""

from __future__ import annotations

import json as json_module
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from golfcore.cli import output
from golfcore.container.codec_base import Coder
from golfcore.errors import FormatError, UsageError
from golfcore.ranges import SOME_BYTES

Output = Annotated[Path, Parameter(name=["--output", "-o"])]
WIDE = 110  # columns from which tables show everything; a terminal of 80 shows the rest
_SEGMENTS = "█▓▒░"


def inspect(
    file: Path, /, *, cap: Annotated[int, Parameter(validator=SOME_BYTES)] = 16_000_000, json: bool = False,
    markdown: bool = False,
) -> None:  # fmt: skip
    """Show where the bytes of a model file go.

    Args:
        file: A model container (model.golf).
        cap: The byte cap from which free bytes are counted.
        json: Print one JSON object.
        markdown: Print Markdown tables.
    """
    from golfcore.artifact.inspect import summary

    if json and markdown:
        raise UsageError("--json and --markdown are both given; choose one")
    found = summary(file, cap)
    if json:
        output.print_json(found)
        return
    tables = [_chunk_table(found), _tensor_table(found)]
    if markdown:
        text = [f"**{file}**: {_size_line(found)}", *map(_markdown, tables)]
        output.out.print("\n\n".join(text), markup=False)
        return
    output.out.print(Text(f"{file}  GCF1 version {found['version']}", style="bold"))
    if found["manifest"]:
        for key, value in found["manifest"].items():
            output.out.print(f"  {json_module.dumps(key)[1:-1]}: {_brief(value)}", markup=False)
    for columns in tables:
        output.out.print(_rich(columns, output.out.width))
        output.out.print()
    if not all(row["alone"] for row in found["tensors"]):
        output.out.print("~ a tensor's share of its chunk, by raw size\n")
    output.out.print(_bar(found))
    output.out.print(_size_line(found), markup=False)


def verify(file: Path, /, *, json: bool = False) -> None:
    """Check every checksum of a model file and decode every tensor.

    Args:
        file: A model container (model.golf).
        json: Print one JSON object; a damaged file gives {"ok": false, "error": ...} and exit code 1.
    """
    from golfcore.container import Container

    try:
        with Container.open(file) as container:
            container.verify()
            counts = {"bytes": container.file_len, "chunks": len(container.chunks), "tensors": len(container.tensors)}
    except FormatError as error:
        if json:
            output.print_json({"ok": False, "path": str(file), "error": str(error)})
        raise
    if json:
        output.print_json({"ok": True, "path": str(file), **counts})
    else:
        line = f"{file}: ok, {counts['bytes']:,} bytes, {counts['chunks']} chunks, {counts['tensors']} tensors"
        output.out.print(line, markup=False)


def diff(a: Path, b: Path, /, *, json: bool = False) -> int:
    """Show the differences between two model files; exit code 1 if tensors or manifests differ.

    Args:
        a: A model container (model.golf).
        b: Another model container.
        json: Print one JSON object.
    """
    from golfcore.artifact.compare import compare
    from golfcore.container import Container

    with Container.open(a) as one, Container.open(b) as other:
        found = compare(one, other)
    if json:
        output.print_json({"a": str(a), "b": str(b), **found})
        return 0 if found["equal"] else 1
    for row in found["manifest"]:
        output.out.print(f"manifest {_brief(row['key'])}: {_brief(row['a'])} -> {_brief(row['b'])}", markup=False)
    for row in found["tensors"]:
        change = row["change"]
        if change == "values":
            distance = "not finite" if row["max_abs"] is None else f"{row['max_abs']:.4g} at most"
            change = f"{row['differing']:,} of {row['elements']:,} values differ, by {distance}"
        output.out.print(f"{row['name']}: {change}", markup=False)
    changed = [row for row in found["roles"] if row["a"] != row["b"]]
    for row in changed:
        output.out.print(f"{row['role']}: {row['a']:,} -> {row['b']:,} bytes ({row['b'] - row['a']:+,})", markup=False)
    size = found["bytes"]
    verdict = "the same tensors and manifest" if found["equal"] else "they differ"
    line = f"{verdict}; {size['a']:,} -> {size['b']:,} bytes ({size['b'] - size['a']:+,})"
    output.out.print(line, markup=False)
    return 0 if found["equal"] else 1


def unpack(
    file: Path,
    /,
    *,
    target: Output,
    to: Annotated[Literal["folder", "safetensors"], Parameter(name="--to")] = "folder",
    json: bool = False,
) -> None:
    """Unpack a model file into a folder of .npy files and a manifest.json, or into one .safetensors file.

    Args:
        file: A model container (model.golf).
        target: The folder to make, which must not exist or be empty; or the .safetensors file.
        to: The form of the target, folder or safetensors.
        json: Print one JSON object.
    """
    from golfcore.artifact import folder, interchange
    from golfcore.container import Container
    from golfcore.disk import check_target

    with Container.open(file) as container:
        if to == "safetensors":
            check_target(target)
            interchange.write_safetensors(container, target)
            count = len(container.tensors)
        else:
            files = folder.unpack(container, target)
    if to == "safetensors":
        if json:
            output.print_json({"file": str(target), "bytes": target.stat().st_size, "tensors": count})
        else:
            output.out.print(f"{target}: {target.stat().st_size:,} bytes, {count} tensors", markup=False)
    elif json:
        output.print_json({"folder": str(target), "files": [path.name for path in files]})
    else:
        output.out.print(f"{target}: {len(files)} files", markup=False)


def pack_unpacked(source: Path, target: Path, *, coder: Coder = "fast", json: bool = False) -> None:
    """Make a model file of a folder or .safetensors file that unpack wrote; the same coder gives the same bytes."""
    from golfcore.artifact import folder, interchange
    from golfcore.container import write
    from golfcore.disk import check_target
    from golfcore.paths import sha256_file

    check_target(target)
    tensors, manifest = folder.load(source) if source.is_dir() else interchange.read_safetensors(source)
    with output.progress("pack") as tick:
        write(target, tensors, manifest, coder=coder, tick=tick)
    size, digest = target.stat().st_size, sha256_file(target)
    if json:
        output.print_json({"path": str(target), "bytes": size, "sha256": digest, "tensors": len(tensors)})
    else:
        output.out.print(f"{target}: {size:,} bytes, {len(tensors)} tensors, sha256 {digest}", markup=False)


@dataclass(frozen=True)
class _Column:
    title: str
    cells: list[str]
    left: bool = False
    wide: bool = False  # left out on a terminal narrower than WIDE


def _chunk_table(found: dict[str, Any]) -> list[_Column]:
    rows, file_len = found["chunks"], found["bytes"]["file"]
    return [
        _Column("role", [row["role"] for row in rows], left=True),
        _Column("kind", [row["kind"] for row in rows], left=True),
        _Column("codec", [row["codec"] for row in rows], left=True),
        _Column("n", [str(row["tensors"]) for row in rows]),
        _Column("weights", [f"{row['weights']:,}" for row in rows]),
        _Column("raw", [f"{row['raw']:,}" for row in rows], wide=True),
        _Column("coded", [f"{row['coded']:,}" for row in rows]),
        _Column("b/w", [f"{row['bits_per_weight']:.3f}" for row in rows]),
        _Column("order-0", [f"{row['order0_bits']:.3f}" for row in rows]),
        _Column("excess", [f"{row['excess_bits']:+.3f}" for row in rows]),
        _Column("share", [f"{row['coded'] / file_len:.1%}" for row in rows]),
        _Column("crc32c", [row["crc32c"] for row in rows], left=True, wide=True),
    ]


def _tensor_table(found: dict[str, Any]) -> list[_Column]:
    rows = found["tensors"]
    kinds = [row["label"] for row in rows]
    return [
        _Column("tensor", [row["name"] for row in rows], left=True),
        _Column("role", [row["role"] for row in rows], left=True, wide=True),
        _Column("shape", ["x".join(map(str, row["shape"])) or "scalar" for row in rows], left=True),
        _Column("kind", kinds, left=True),
        _Column("codec", [row["codec"] for row in rows], left=True, wide=True),
        _Column("coded", [f"{'' if row['alone'] else '~'}{row['coded']:,.0f}" for row in rows]),
        _Column("b/w", [f"{row['bits_per_weight']:.3f}" for row in rows]),
        _Column("order-0", [f"{row['order0_bits']:.3f}" for row in rows]),
        _Column("excess", [f"{row['excess_bits']:+.3f}" for row in rows], wide=True),
        _Column("crc32c", [row["crc32c"] for row in rows], left=True, wide=True),
    ]


def _size_line(found: dict[str, Any]) -> str:
    size = found["bytes"]
    room = f"{size['free']:,} free below" if size["free"] >= 0 else f"{-size['free']:,} above"
    return (
        f"{size['file']:,} bytes = header {size['header']} + directory {size['directory']:,} + chunks"
        f" {size['payload']:,} + trailer {size['trailer']}; {room} the cap of {size['cap']:,}"
    )


def _bar(found: dict[str, Any], width: int = 60) -> Text:
    """Return one line with the bytes of the largest roles, of the rest with the framing, and free below the cap."""
    size = found["bytes"]
    roles = sorted(found["roles"], key=lambda row: -row["coded"])[: len(_SEGMENTS) - 1]
    parts = [(row["role"], row["coded"]) for row in roles]
    parts.append(("rest", size["file"] - sum(coded for _, coded in parts)))
    whole = max(size["cap"], size["file"], 1)
    marks = [mark * round(width * part / whole) for (_, part), mark in zip(parts, _SEGMENTS, strict=False)]
    legend = ", ".join(
        f"{mark} {name} {part / whole:.1%}" for (name, part), mark in zip(parts, _SEGMENTS, strict=False)
    )
    return Text(f"[{''.join(marks)[:width]:<{width}}]\n{legend} of the cap")


def _brief(value: Any, width: int = 100) -> str:
    text = json_module.dumps(value)  # ASCII: nothing in a foreign file can steer the terminal
    return text if len(text) <= width else text[: width - 3] + "..."


def _rich(columns: list[_Column], width: int) -> Table:
    shown = [column for column in columns if width >= WIDE or not column.wide]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for i, column in enumerate(shown):
        justify: Literal["left", "right"] = "left" if column.left else "right"
        table.add_column(column.title, justify=justify, overflow="fold", no_wrap=i > 0)
    for row in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*map(Text, row))
    return table


def _markdown(columns: list[_Column]) -> str:
    rows = zip(*(column.cells for column in columns), strict=True)
    lines = [[column.title for column in columns], ["---" if column.left else "---:" for column in columns]]
    lines += [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
