"""The compiled core for Linux on aarch64, under qemu: docs/results/arm.md. All cases are `make test-arm`."""

from __future__ import annotations

import shutil
from pathlib import Path

import cross
import numpy as np
import pytest

from golfcore import _core

LACKS = [program for program in (cross.COMPILER, cross.EMULATOR) if shutil.which(program) is None]
pytestmark = [
    pytest.mark.skipif(bool(LACKS), reason=f"needs {' and '.join(LACKS)}: docs/guides/arm.md"),
    pytest.mark.timeout(1800),  # the first call compiles the core
]
OPERATIONS = ("activation", "attention", "bitpack", "checksum", "embed", "head", "norm", "optim", "qk", "quant")


@pytest.mark.slow
@pytest.mark.parametrize(("cpu", "levels"), [("max", ("neon", "neonbf16")), ("cortex-a72", ("neon",))])
def test_every_operation_at_every_level(cpu: str, levels: tuple[str, ...]) -> None:
    done = cross.emulated(cross.driver(), "levels", cpu=cpu)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert found == [f"ok {operation} {level}" for operation in OPERATIONS for level in levels] + ["ok fibers"]


@pytest.mark.slow
def test_the_same_ids_and_the_same_coded_bytes_as_here(tmp_path: Path) -> None:
    text = "".join(p.read_text() for p in sorted((cross.ROOT / "docs").rglob("*.md")))[:60000].encode()
    weights_RC = np.random.default_rng(0).normal(0, 6, (200, 96)).round().clip(-31, 31).astype(np.int8)
    (tmp_path / "text").write_bytes(text)
    (tmp_path / "weights").write_bytes(weights_RC.tobytes())
    done = cross.emulated(cross.driver(), "formats", tmp_path / "text", tmp_path / "weights")
    assert done.returncode == 0, done.stdout + done.stderr

    merges_N2 = _core.bpe_train([text], 300, 2)
    ids, _ = _core.BpeEncoder(merges_N2).encode_batch([text, text], 2)
    expected = [("merges", merges_N2.tobytes()), ("ids", ids.tobytes())]
    for trellis in (0, 4):
        coded = (weights_RC.tobytes(), [weights_RC.shape], 6, trellis)
        expected += [
            ("static", _core.entropy_encode_static(*coded, 5, 2)),
            ("adaptive", _core.entropy_encode_adaptive(*coded, 5, 4, 0)),
            ("binary", _core.entropy_encode_binary(*coded, 5, 4, 0)),
        ]
    lines = [f"{name} {_core.crc32c(made):08x}" for name, made in expected]
    assert done.stdout.splitlines() == [*lines, "decoded"]
