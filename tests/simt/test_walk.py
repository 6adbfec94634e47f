"""The walk to a kernel in docs/guides/simt.md: what is printed there compiles."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = '#pragma once\n#include "golf.h"\nnamespace golf {{ {} }}\n'
FLAGS = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-DGOLF_SIMT=1"]


def test_the_kernel_of_the_walk_compiles(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "guides" / "simt.md").read_text()
    (kernel,) = re.findall(r"^ *```cpp\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE)
    (declaration,) = re.findall(r"declares\s+`(Status scale_forward_device\(.*?;)`", text)
    (tmp_path / "scale").mkdir()
    (tmp_path / "scale" / "layout.h").write_text(LAYOUT.format(declaration))
    (tmp_path / "scale" / "kernels.cpp").write_text(textwrap.dedent(kernel))
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    command = (*compiler, *FLAGS, f"-I{ROOT / 'csrc'}", f"-I{tmp_path}", str(tmp_path / "scale" / "kernels.cpp"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
