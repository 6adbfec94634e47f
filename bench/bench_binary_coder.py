"""A binary arithmetic coder with column-magnitude contexts on the symbols of ``golfcore bench pack``; saves its rows.

python bench/bench_binary_coder.py --weights pocket=runs/pocket [--widths int6,ternary] [--save]
"""

from __future__ import annotations

import argparse
import os
import struct
import subprocess
import tempfile
from pathlib import Path

from golfcore.bench import pack
from golfcore.environment import environment

HERE = Path(__file__).parent
PIPELINE = "binary arithmetic coder"


def measure(program: Path, name: str, width: str, path: Path) -> pack.PackRow:
    """Codes and decodes the symbols, role by role."""
    groups: dict[str, list[pack.Tensor]] = {}
    for tensor in pack.symbols(width, pack.load_matrices(path)):
        groups.setdefault(tensor.role, []).append(tensor)
    data = program.with_suffix(".data")
    with data.open("wb") as f:
        for group in groups.values():
            f.write(struct.pack("<I", len(group)))
            f.writelines(struct.pack("<II", *t.array.shape) for t in group)
            f.writelines(t.array.tobytes() for t in group)
    done = subprocess.run([program, data], check=True, capture_output=True, text=True)
    size, encode_s, decode_s = done.stdout.split()
    n = sum(t.array.size for group in groups.values() for t in group)
    return pack.PackRow(
        pipeline=PIPELINE, checkpoint=name, what=width, weights=n, bytes=int(size),
        bits_per_weight=8 * int(size) / n, encode_s=float(encode_s), decode_s=float(decode_s),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", action="append", required=True, help="NAME=FILE, as for golfcore bench pack")
    parser.add_argument("--widths", default=",".join(pack.WIDTHS))
    parser.add_argument("--save", action="store_true", help="append to bench/results/pack.csv")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "binary_coder"
        compiler = os.environ.get("CXX", "c++")
        subprocess.run([compiler, "-std=c++17", "-O3", HERE / "binary_coder.cpp", "-o", program], check=True)
        rows = [
            measure(program, name, width, path)
            for name, path in pack.parse_weights(given.weights).items()
            for width in pack.parse_choice("widths", given.widths, list(pack.WIDTHS))
        ]
    for row in rows:
        print(f"{row.checkpoint:8} {row.what:8} {row.bytes:12,} bytes {row.rate(row.encode_s):6.1f} M/s"
              f" {row.rate(row.decode_s):6.1f} M/s")  # fmt: skip
    if given.save:
        pack.save(HERE / "results" / "pack.csv", pack.about(environment()), rows)


if __name__ == "__main__":
    main()
