"""Say, before pip does it, that it will fetch a torch for NVIDIA GPUs, gigabytes large, onto a machine without one.

``python tools/torch_download.py [-c CONSTRAINTS]`` lets the pip of this Python begin a trial install of torch, stops it
when it names the file, and prints a note with the one variable that points pip to a CPU build. It prints nothing if
torch is installed already, if a GPU answers, or if pip would take a small build anyway. It always succeeds: if pip
fails, the install that follows says why.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# PyTorch documents this index at pytorch.org/get-started.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# torch 2.6 to 2.14 for Linux: 110 to 210 MB for CPUs, 530 to 920 MB with CUDA, whose libraries are another 2 to 3 GB.
LARGE_MB = 400


def has_gpu() -> bool:
    """Return whether an NVIDIA GPU answers."""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def needs_cuda(lines: Iterable[str], report: Path) -> bool:
    """Return whether pip is about to fetch a torch with CUDA.

    Args:
        lines: What pip says. Reading stops at the line with which it would begin to download torch itself.
        report: Where pip writes its report if it can answer without that download.
    """
    for line in lines:
        if match := re.search(r"Downloading \S*\btorch-\S+\.whl \(([\d.]+) ([kMG]?B)\)", line):
            return float(match[1]) * {"GB": 1000, "MB": 1}.get(match[2], 0) > LARGE_MB
    found: dict[str, Any] = json.loads(report.read_text())
    needed = [need for item in found["install"] for need in item["metadata"].get("requires_dist", [])]
    return any(need.startswith(("nvidia-", "cuda-")) for need in needed)


def ask_pip(arguments: list[str]) -> bool:
    """Return whether the pip of this Python is about to fetch a torch with CUDA."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    (torch,) = (need for need in project["dependencies"] if need.startswith("torch"))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--dry-run", "--no-deps", "--progress-bar", "off", "--report", str(report)]
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *options, *arguments, torch]
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "PIP_QUIET": "0"}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as pip:
            try:
                return needs_cuda(pip.stdout or (), report)
            finally:
                pip.kill()


def note(extra_indexes: str) -> str:
    """Return what to tell the user, whose PIP_EXTRA_INDEX_URL is ``extra_indexes`` so far."""
    value = f"'{extra_indexes} {CPU_INDEX}'" if extra_indexes else CPU_INDEX
    return (
        "No NVIDIA GPU answers here, but pip is about to fetch a torch for them with the CUDA libraries, 2 to 4 GB.\n"
        "The CPU build is enough and below 250 MB. To get it, stop with Ctrl-C and start again with one variable set:\n"
        f"  export PIP_EXTRA_INDEX_URL={value}"
    )


def main(arguments: list[str]) -> int:
    with contextlib.suppress(PackageNotFoundError):
        version("torch")
        return 0
    with contextlib.suppress(OSError, ValueError, KeyError):
        if not has_gpu() and ask_pip(arguments):
            print(note(os.environ.get("PIP_EXTRA_INDEX_URL", "")), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
