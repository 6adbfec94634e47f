"""The entropy coders under address and undefined-behavior sanitizers: the corpus, then seeded mutations of it.

tests/fuzz/fuzz_entropy.cpp tells how to run longer with libFuzzer; ``python tests/fuzz/test_fuzz_entropy.py`` makes
the seeds.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from golfcore import _core

HERE = Path(__file__).parent
CORPUS = HERE / "corpus" / "entropy"
CSRC = HERE.parent.parent / "csrc"
COMPILER = os.environ.get("CXX") or shutil.which("c++") or "c++"


def seeds() -> dict[str, bytes]:
    """Inputs that decode, for every coder, with and without a trellis, escapes and several matrices."""
    found = {}
    rng = np.random.default_rng(0)
    for bits, trellis, lanes, shapes in (
        (6, 0, 0, [(12, 20)]), (6, 3, 2, [(9, 8), (7, 16)]), (2, 0, 4, [(30, 4)]), (8, 8, 0, [(3, 5), (60, 1)]),
        (1, 2, 1, [(20, 9)]), (4, 0, 8, [(1, 250)]),
    ):  # fmt: skip
        n = sum(rows * cols for rows, cols in shapes)
        half = 1 << bits - 1
        symbols = (rng.standard_t(3, n) * half / 8).round().clip(-half, half - 1).astype(np.int8)
        shapes_N2 = np.array(shapes, np.uint64)
        head = bytes((bits - 1, trellis)), bytes((len(shapes) - 1, *(side - 1 for shape in shapes for side in shape)))
        name = f"int{bits}_{trellis}_{lanes}"
        for classes in (0, 1):
            coded = _core.entropy_encode_static(symbols.tobytes(), shapes_N2, bits, trellis, lanes, classes)
            params = bytes((lanes, classes, 0))
            found[f"static_{name}_{classes}"] = bytes((0,)) + head[0] + params + head[1] + coded
        for prior, shift in ((5, 0), (15, 2)):
            coded = _core.entropy_encode_adaptive(symbols.tobytes(), shapes_N2, bits, trellis, lanes, prior, shift)
            params = bytes((lanes, prior, shift))
            found[f"adaptive_{name}_{prior}"] = bytes((1,)) + head[0] + params + head[1] + coded
            if bits > 1:
                coded = _core.entropy_encode_binary(symbols.tobytes(), shapes_N2, bits, trellis, lanes, prior, shift)
                found[f"binary_{name}_{prior}"] = bytes((4,)) + head[0] + params + head[1] + coded
        if bits > 1:
            tail = bytes((lanes, 5, 0)) + head[1] + symbols.tobytes()
            found[f"binary_symbols_{name}"] = bytes((6,)) + head[0] + tail
        found[f"symbols_{name}"] = bytes((3,)) + head[0] + bytes((lanes, 5, 0)) + head[1] + symbols.tobytes()
    return found


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    flags = ["-std=c++17", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-I", str(CSRC)]
    (folder / "empty.cpp").write_text("int main() {}")
    if subprocess.run([COMPILER, *flags, "empty.cpp", "-o", "empty"], cwd=folder, capture_output=True).returncode:
        pytest.skip(f"{COMPILER} has no sanitizers (on Debian they are in libgcc-dev)")
    sources = [HERE / "fuzz_entropy.cpp", *sorted((CSRC / "entropy").glob("*.cpp"))]
    done = subprocess.run(
        [COMPILER, *flags, "-DGOLF_FUZZ_MAIN", *map(str, sources), "-o", "fuzz_entropy"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "fuzz_entropy"


def test_the_seeds_are_what_the_encoders_write() -> None:
    for name, data in seeds().items():
        assert (CORPUS / name).read_bytes() == data, name


def test_corpus_and_mutations(fuzzer: Path) -> None:
    files = sorted(map(str, CORPUS.iterdir()))
    assert len(files) >= len(seeds())
    done = subprocess.run([fuzzer, "20000", *files], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    CORPUS.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (CORPUS / name).write_bytes(data)
