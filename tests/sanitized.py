"""Runs tests with ``golfcore._simt`` from another build: ``python tests/sanitized.py FOLDER [arguments of pytest]``.

For a build of that module with AddressSanitizer and UBSan beside the package that is installed: ``make test-sanitize``.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


def main(folder: Path, arguments: list[str]) -> int:
    (path,) = folder.glob("_simt.*.so")
    spec = importlib.util.spec_from_file_location("golfcore._simt", path)
    if spec is None or spec.loader is None:
        sys.exit(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["golfcore._simt"] = module  # before golfcore.ops looks for its own
    from golfcore.ops.registry import _simt

    if _simt is not module or module.checks_every_access():
        sys.exit(f"{path} is no build with GOLF_SANITIZE, or is not the one that golfcore took")
    return int(pytest.main(arguments))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
