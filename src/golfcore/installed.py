"""Check that the installed compiled core and torch can serve this golfcore, and say what to do if not.

Python's own errors do not say it: a core for another processor is "not found", and a torch that is too old lacks some
attribute of some module. Nothing here imports torch.
"""

from __future__ import annotations

import platform
import re
import struct
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

from golfcore.errors import BuildError, CoreError

TORCH = (2, 6)  # as in pyproject.toml
TORCH_FIX = "pip install --upgrade 'torch>={}.{}'".format(*TORCH)
REBUILD = "build it here, in golfcore's source folder: pip install --force-reinstall --no-deps ."

# The numbers of processors in the headers of ELF, Mach-O and PE files.
ELF = {3: "i386", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64", 258: "loongarch64"}
MACH_O = {0x01000007: "x86_64", 0x0100000C: "aarch64"}
PE = {0x14C: "i386", 0x8664: "x86_64", 0xAA64: "aarch64"}
SAME = {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "ppc64"}


def load_core() -> ModuleType:
    """Import ``golfcore._core``.

    Raises:
        CoreError: the core is missing, or built for another machine or Python.
    """
    try:
        return import_module("golfcore._core")
    except ImportError as error:
        import golfcore

        trouble = core_trouble([Path(folder) for folder in golfcore.__path__], " ".join(str(error).split()))
        raise CoreError(f"{trouble}; {REBUILD}") from error


def core_trouble(folders: list[Path], error: str) -> str:
    """Return why the compiled core in ``folders`` cannot be imported; ``error`` is Python's message."""
    files = [path for folder in folders for path in sorted(folder.glob("_core.*")) if path.suffix in (".so", ".pyd")]
    named_right = [path for path in files if path.name in {f"_core{end}" for end in EXTENSION_SUFFIXES}]
    if not files:
        return f"the compiled core is missing: there is no _core{EXTENSION_SUFFIXES[0]} in {folders[0]} ({error})"
    file = (named_right or files)[0]
    found, here = target_of(file), this_machine()
    if found not in ("", here):
        return f"the compiled core {file} is for {found}, and this machine is {here}"
    if not named_right:
        return f"the compiled core {file} is for another Python; this one, {platform.python_version()}, looks for " + (
            f"_core{EXTENSION_SUFFIXES[0]}"
        )
    return f"the compiled core {file} cannot be loaded: {error}"


def target_of(file: Path) -> str:
    """Return the system and processor that a shared library is for, such as "Linux aarch64"; "" if unknown."""
    with file.open("rb") as f:
        head = f.read(4096)
    if head[:4] == b"\x7fELF" and len(head) >= 20:
        (number,) = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)
        return f"Linux {ELF.get(number, f'processor {number}')}"
    if head[:4] == b"\xcf\xfa\xed\xfe" and len(head) >= 8:
        (number,) = struct.unpack_from("<I", head, 4)
        return f"Darwin {MACH_O.get(number, f'processor {number}')}"
    if head[:2] == b"MZ" and len(head) >= 64:
        (start,) = struct.unpack_from("<I", head, 60)
        if head[start : start + 4] == b"PE\0\0" and len(head) >= start + 6:
            (number,) = struct.unpack_from("<H", head, start + 4)
            return f"Windows {PE.get(number, f'processor {number}')}"
    return ""


def this_machine() -> str:
    """Return this system and processor as ``target_of`` names them."""
    machine = platform.machine().lower()
    return f"{platform.system()} {SAME.get(machine, machine)}"


def torch_trouble(version: str) -> str:
    """Return what is wrong with this version of torch; an empty string if it can serve."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) >= TORCH:
        return ""
    return "torch {} is installed, and golfcore needs {}.{} or later".format(version, *TORCH)


def require_torch(version: str) -> None:
    """Check torch's version.

    Raises:
        BuildError: torch is too old.
    """
    if trouble := torch_trouble(version):
        raise BuildError(f"{trouble}: {TORCH_FIX}")
