"""What make and CMake promise about building, as far as it can be said without building."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import versions

ROOT = Path(__file__).parent.parent


@pytest.fixture
def torch_download() -> ModuleType:
    spec = importlib.util.spec_from_file_location("torch_download", ROOT / "tools" / "torch_download.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LARGE = "  Downloading torch-2.13.0-cp312-cp312-manylinux_2_28_x86_64.whl (532.2 MB)"
CUDA = {
    "metadata": {"name": "torch", "requires_dist": ["filelock", "nvidia-cublas (==13.1); platform_system == 'Linux'"]}
}
PLAIN = {"metadata": {"name": "torch", "requires_dist": ["filelock", "sympy>=1.13.3"]}}


def test_pip_names_a_large_torch_before_it_is_there(torch_download: ModuleType, tmp_path: Path) -> None:
    """Nothing is read beyond that line: pip would go on for gigabytes."""
    lines = iter(["Collecting torch>=2.6", LARGE, "never read"])
    assert torch_download.needs_cuda(lines, tmp_path / "absent")
    assert list(lines) == ["never read"]
    lines = iter(
        ["  Downloading https://host/whl/cpu/torch-2.13.0%2Bcpu-cp312-cp312-manylinux_2_28_x86_64.whl (191.0 MB)"]
    )
    assert not torch_download.needs_cuda(lines, tmp_path / "absent")
    assert torch_download.needs_cuda([LARGE.replace("532.2 MB", "1.1 GB")], tmp_path / "absent")


@pytest.mark.parametrize(("item", "large"), [(CUDA, True), (PLAIN, False)])
def test_pip_may_answer_from_metadata(
    item: dict[str, object], large: bool, torch_download: ModuleType, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"install": [item]}))
    metadata_only = [
        "  Downloading torch-2.13.0-cp312-cp312-manylinux_2_28_x86_64.whl.metadata (30 kB)",
        "Would install torch",
    ]
    assert torch_download.needs_cuda(metadata_only, report) == large


def stand_in_pip(folder: Path, said: str) -> dict[str, str]:
    """An environment whose ``python -m pip`` prints ``said`` and then hangs, and whose nvidia-smi fails."""
    (folder / "pip.py").write_text(f"import time\nprint({said!r}, flush=True)\ntime.sleep(60)\n")
    (folder / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (folder / "nvidia-smi").chmod(0o755)
    # Without site-packages there is no torch, as in a new virtual environment.
    return os.environ | {"PYTHONPATH": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize("index", ["", "https://host/simple"])
def test_the_note_names_one_variable(index: str, tmp_path: Path) -> None:
    environment = stand_in_pip(tmp_path, LARGE) | {"PIP_EXTRA_INDEX_URL": index}
    command = [sys.executable, "-S", str(ROOT / "tools" / "torch_download.py"), "-c", "constraints.txt"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=30)
    assert "No NVIDIA GPU answers here" in done.stderr
    assert re.findall(r"export (\w+)=", done.stderr) == ["PIP_EXTRA_INDEX_URL"]
    assert f"{index} https://download.pytorch.org/whl/cpu".strip() in done.stderr


def test_nothing_is_said_where_a_gpu_answers_or_torch_is_installed(tmp_path: Path) -> None:
    environment = stand_in_pip(tmp_path, LARGE)
    tool = str(ROOT / "tools" / "torch_download.py")
    installed = subprocess.run([sys.executable, tool], env=environment, capture_output=True, text=True, timeout=30)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 0\n")
    gpu = subprocess.run([sys.executable, "-S", tool], env=environment, capture_output=True, text=True, timeout=30)
    assert [(done.returncode, done.stdout, done.stderr) for done in (installed, gpu)] == [(0, "", "")] * 2


def planned(*goals: str, **variables: str) -> list[str]:
    """The commands that make would run for ``goals`` in this checkout."""
    settings = [f"{name}={value}" for name, value in variables.items()]
    command = ["make", "--dry-run", "--no-print-directory", *goals, *settings]
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """A virtual environment's folder that looks as if make had set everything up."""
    # The mark of the installation names the modules that it lists.
    (installed,) = planned("show", "--eval=show: ; @echo $(notdir $(INSTALLED))", GOLF_CUDA="OFF", GOLF_WERROR="OFF")
    for name in (installed.removeprefix("echo "), ".testable", ".simt-werror-OFF"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_module_that_moved_is_installed_again(ready: Path) -> None:
    (mark,) = ready.glob(".installed-*")
    mark.rename(mark.with_name(mark.name[:-1] + "x"))
    settings = {"VENV": str(ready), "GOLF_CUDA": "OFF", "GOLF_WERROR": "OFF"}
    assert [line for line in planned("run", **settings) if "--editable" in line]


def test_make_builds_nothing_twice(ready: Path) -> None:
    settings = {"VENV": str(ready), "GOLF_CUDA": "OFF", "GOLF_WERROR": "OFF"}
    (run,) = planned("run", **settings)
    assert run.endswith("golfcore run")
    assert not [line for line in planned("test", **settings) if "pip install" in line or "cmake -S" in line]
    (ready / ".simt-werror-OFF").unlink()
    (ready / ".testable").unlink()
    after_run = planned("test", **settings)
    assert not [line for line in after_run if "--editable" in line]
    assert [line for line in after_run if "cmake -S" in line]
    assert [line for line in planned("run", **settings | {"GOLF_CUDA": "ON"}) if "--editable" in line]


def test_a_wheel_has_no_model_of_cuda_and_warnings_are_no_errors() -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text()
    assert re.search(r'option\(GOLF_WERROR ".*" OFF\)', cmake)
    assert re.search(r'option\(GOLF_SIMT ".*" OFF\)', cmake)
    assert "GOLF_SIMT" not in (ROOT / "pyproject.toml").read_text()
    assert "export GOLF_WERROR=ON" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize(
    ("given", "gpu", "wanted", "said"),
    [
        ("AUTO", False, "OFF", "no GPU answered when golfcore was built: GOLF_CUDA=ON builds its kernels even so"),
        ("", False, "OFF", "no GPU answered"),
        ("AUTO", True, "ON", ""),
        ("ON", False, "ON", ""),
        ("OFF", True, "OFF", "switched off by GOLF_CUDA=OFF"),
    ],
)
def test_kernels_for_gpus_are_compiled_where_one_answers(
    given: str, gpu: bool, wanted: str, said: str, tmp_path: Path
) -> None:
    """Not where nvcc alone is found: pip would say nothing for minutes."""
    done = wants_cuda(tmp_path, given, gpu)
    assert done.returncode == 0
    assert done.stderr.startswith(f"{wanted}|{said}")


def test_another_value_of_golf_cuda_is_refused(tmp_path: Path) -> None:
    done = wants_cuda(tmp_path, "1", True)
    assert done.returncode != 0
    assert "GOLF_CUDA=1: expected AUTO, ON or OFF" in done.stderr


def wants_cuda(folder: Path, given: str, gpu: bool) -> subprocess.CompletedProcess[str]:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\nexit {0 if gpu else 9}\n")
    (folder / "nvidia-smi").chmod(0o755)
    script = folder / "script.cmake"
    module = ROOT / "cmake" / "wants_cuda.cmake"
    script.write_text(f'include({module})\nmessage(NOTICE "${{golf_wants_cuda}}|${{golf_cuda_reason}}")\n')
    beside = Path(sys.executable).parent / "cmake"
    cmake = str(beside) if beside.exists() else shutil.which("cmake")
    if cmake is None:
        pytest.skip("no cmake here; make installs one")
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    command = [cmake, f"-DGOLF_CUDA={given}", "-P", str(script)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_the_build_says_what_it_compiles_and_how_to_leave_it_out() -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text()
    (notice,) = re.findall(r'message\(NOTICE "golfcore: nvcc .*?\)', cmake, re.DOTALL)
    assert "minutes" in notice and "GOLF_CUDA=OFF" in notice
    assert "pip install -v ." in (ROOT / "docs" / "start" / "install.md").read_text()


def test_the_table_of_versions_has_one_row_for_a_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "versions.md"
    table.write_text("# Versions\n\n| Python | torch |\n| --- | --- |\n\nafter\n")
    monkeypatch.setattr(versions, "TABLE", table)
    for python, result in (("3.12 (3.12.1)", "passed"), ("3.9", "passed"), ("3.12", "not run: why")):
        versions.save(versions.Row(python, "2.6 (2.6.0)", "g++", result))
    assert table.read_text().splitlines()[4:] == [
        "| 3.9 | 2.6 (2.6.0) | g++ | passed |  |", "| 3.12 | 2.6 (2.6.0) | g++ | not run: why |  |", "", "after",
    ]  # fmt: skip


def test_a_version_that_is_not_here_is_a_row_with_the_reason(tmp_path: Path) -> None:
    assert versions.try_pair("9.9", "2.6", "c++", tmp_path).line() == (
        "| 9.9 | 2.6 | c++ | not run: no Python 9.9 with venv on this machine |  |"
    )
