"""Runs tests with ``golfcore._simt`` from another build: ``python tests/sanitized.py FOLDER [arguments of pytest]``.

For the build of that module with AddressSanitizer and UBSan, which ``make test-sanitize`` makes.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

# Examples of csrc/simt/examples/faulty.cu, and what the sanitizers say of them.
FAULTS = {
    "global_out_of_bounds": "AddressSanitizer: heap-buffer-overflow",
    "shared_out_of_bounds": "AddressSanitizer: use-after-poison",
    "misaligned_cast": "misaligned address",
}


def load(folder: Path) -> ModuleType:
    """The build's module, in place of the package's own."""
    (path,) = folder.glob("_simt.*.so")
    spec = importlib.util.spec_from_file_location("golfcore._simt", path)
    if spec is None or spec.loader is None:
        sys.exit(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["golfcore._simt"] = module  # before golfcore.ops looks for its own
    from golfcore.ops.registry import _simt

    if _simt is not module or module.checks_every_access():
        sys.exit(f"{path} is no build with sanitizers, or is not the one that golfcore took")
    return module


def fail(folder: Path, name: str) -> None:
    """Runs a faulty example, which should not return."""
    import torch

    load(folder)
    from simt_model import run

    run(name, torch.randn(256), torch.zeros(256), n=1)


def main(folder: Path, arguments: list[str]) -> int:
    for name, said in FAULTS.items():
        child = subprocess.run([sys.executable, __file__, folder, "--fail", name], stderr=subprocess.PIPE, text=True)
        if child.returncode == 0 or said not in child.stderr:
            sys.exit(f"{name}: the sanitizers should have said {said!r}, not:\n{child.stderr[-2000:]}")
    load(folder)
    # A report of the sanitizers goes to the file descriptor and ends the process: pytest may not hold it back.
    return int(pytest.main(["--capture=sys", *arguments]))


if __name__ == "__main__":
    if sys.argv[2] == "--fail":
        fail(Path(sys.argv[1]), sys.argv[3])
    else:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
