"""What is installed and cannot serve is named, with what was expected and what to do: never an obscure import error."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import golfcore
from golfcore import _core, installed, machine
from golfcore.cli import doctor as doctor_module
from golfcore.errors import BuildError, CoreError, GolfError
from golfcore.installed import core_trouble, load_core, require_torch, target_of, this_machine, torch_trouble

SUFFIX = EXTENSION_SUFFIXES[0]


def elf(machine: int, *, big: bool = False) -> bytes:
    return b"\x7fELF\x02" + (b"\x02" if big else b"\x01") + bytes(10) + struct.pack(">HH" if big else "<HH", 3, machine)


def mach_o(processor: int) -> bytes:
    return struct.pack("<II", 0xFEEDFACF, processor)


def pe(machine: int) -> bytes:
    return b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", machine)


@pytest.mark.parametrize(
    ("content", "target"),
    [
        (elf(62), "Linux x86_64"),
        (elf(183), "Linux aarch64"),
        (elf(22, big=True), "Linux s390x"),
        (elf(9999), "Linux processor 9999"),
        (mach_o(0x0100000C), "Darwin aarch64"),
        (pe(0x8664), "Windows x86_64"),
        (b"MZ" + bytes(70), ""),
        (b"\x7fELF", ""),
        (b"", ""),
    ],
)
def test_the_header_says_what_a_library_is_for(content: bytes, target: str, tmp_path: Path) -> None:
    (tmp_path / "library").write_bytes(content)
    assert target_of(tmp_path / "library") == target


def test_the_core_that_is_installed_is_for_this_machine() -> None:
    assert target_of(Path(_core.__file__)) == this_machine()
    assert load_core() is _core


FOREIGN = elf(183 if "aarch64" not in this_machine() else 62)
FOREIGN_NAME = "aarch64" if "aarch64" not in this_machine() else "x86_64"


@pytest.mark.parametrize("name", [f"_core{SUFFIX}", "_core.cpython-311-riscv64-linux-gnu.so"])
def test_a_core_of_another_processor(name: str, tmp_path: Path) -> None:
    """Under its own name Python does not even look at it, and in a renamed wheel the loader calls it missing."""
    (tmp_path / name).write_bytes(FOREIGN)
    said = core_trouble([tmp_path], "cannot open shared object file: No such file or directory")
    assert (
        said == f"the compiled core {tmp_path / name} is for Linux {FOREIGN_NAME}, and this machine is {this_machine()}"
    )


def test_other_cores_that_cannot_be_imported(tmp_path: Path) -> None:
    assert core_trouble([tmp_path], "why").startswith("the compiled core is missing: there is no _core.")
    shutil.copy(_core.__file__, tmp_path / "_core.cpython-31-x-linux.so")
    assert "is for another Python; this one, 3." in core_trouble([tmp_path], "why")
    shutil.copy(_core.__file__, tmp_path / f"_core{SUFFIX}")
    assert core_trouble([tmp_path], "GLIBCXX_9 not found").endswith(
        f"_core{SUFFIX} cannot be loaded: GLIBCXX_9 not found"
    )


def test_the_package_with_a_foreign_core(tmp_path: Path) -> None:
    """The command line says it in one line, doctor in a row, and an import raises what catches as either."""
    shutil.copytree(
        Path(golfcore.__file__).parent, tmp_path / "golfcore", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    (tmp_path / "golfcore" / f"_core{SUFFIX}").write_bytes(FOREIGN)
    start = (
        # Editable installs come first in sys.meta_path, and would answer for the copy.
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'ScikitBuild' not in type(f).__name__]; "
        f"sys.path.insert(0, {str(tmp_path)!r}); import golfcore; "
    )

    def run(code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=False)

    said = rf"_core{re.escape(SUFFIX)} is for Linux {FOREIGN_NAME}, and this machine is {this_machine()}"
    command = run("from golfcore.cli import main; sys.exit(main(['kernels', 'list']))")
    assert command.returncode == 1
    assert re.fullmatch(rf"golfcore: .*{said}; build it here, .*: pip install .*\n", command.stderr)
    found = run("from golfcore.cli import main; sys.exit(main(['doctor', '--json']))")
    assert found.returncode == 1
    (row,) = (row for row in json.loads(found.stdout)["rows"] if row["name"] == "core")
    assert row["status"] == "missing"
    assert re.search(said, row["detail"])
    assert "pip install" in row["fix"]
    assert run("from golfcore import _core").stderr.splitlines()[-1].startswith("golfcore.errors.CoreError: ")


def test_the_error_is_ours_and_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "golfcore._core", None)
    with pytest.raises(CoreError) as caught:
        load_core()
    assert isinstance(caught.value, GolfError)
    assert isinstance(caught.value, ImportError)
    assert installed.REBUILD in str(caught.value)
    row = doctor_module.check_core()
    assert (row.status, row.fix) == ("missing", installed.REBUILD)
    with pytest.raises(AttributeError, match="nothing_such"):
        golfcore.nothing_such  # noqa: B018


@pytest.mark.parametrize(
    ("version", "old"), [("2.5.1+cu124", True), ("1.13.0", True), ("2.6.0", False), ("2.14.1", False)]
)
def test_an_old_torch(version: str, old: bool) -> None:
    assert bool(torch_trouble(version)) == old
    if old:
        with pytest.raises(BuildError, match=rf"torch {re.escape(version)} is .* needs 2\.6 or later: pip install"):
            require_torch(version)
    else:
        require_torch(version)


def test_an_old_torch_is_said_by_doctor_and_at_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "__version__", "2.5.1")
    row = doctor_module.check_torch()
    assert (row.status, row.fix) == ("missing", "pip install --upgrade 'torch>=2.6'")
    assert row.detail == "torch 2.5.1 is installed, and golfcore needs 2.6 or later"
    code = (
        "import sys, torch; torch.__version__ = '2.5.1'; del torch.library; "
        "from golfcore.cli import main; sys.exit(main(['kernels', 'list']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"golfcore: {row.detail}: {row.fix}\n"


def test_the_oldest_torch_is_the_projects() -> None:
    project = Path(__file__).parent.parent / "pyproject.toml"
    (torch,) = (need for need in tomllib.loads(project.read_text())["project"]["dependencies"] if "torch" in need)
    assert torch == "torch>={}.{}".format(*installed.TORCH)


def test_the_environment_says_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "golfcore._core", None)
    assert machine.cuda_devices()[0] == []
    assert "cannot be loaded" in machine.driver_trouble()
