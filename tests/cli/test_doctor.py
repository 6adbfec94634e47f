"""doctor and the environment: every state has a row and a fix, and none a traceback."""

import json
import os
import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from golfcore import _core, machine, openmp
from golfcore.cli import doctor as doctor_module
from golfcore.cli import machine_rows
from golfcore.cli.doctor import check_gpus, diagnose, doctor, fill_on_torch_stream
from golfcore.cli.machine_rows import Row, check_data, disk_row
from golfcore.machine import CoreInfo

WITH_CUDA = CoreInfo(commit="abc", active_isa="avx2", detected_isa="avx2", has_cuda=True, cuda_reason="nvcc 13.0.1")
H100 = {"name": "NVIDIA H100", "capability": (9, 0), "multiprocessors": 132, "memory_bytes": 80 * 2**30}


def test_json_is_one_document_with_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["healthy"]
    names = [row["name"] for row in answer["rows"]]
    assert [name.split()[0].rstrip(":") for name in names if not name.startswith(("gpu", "kernels"))] == [
        "python", "compiler", "torch", "core", "products", "processor", "home", "disk", "disk", "disk", "memory",
        "data", "leftovers", "huggingface_hub", "sentencepiece", "tiktoken",
    ]  # fmt: skip
    assert any(name.startswith("gpu") for name in names)
    assert any(name.startswith("kernels") for name in names)
    assert all(row["fix"] for row in answer["rows"] if row["status"] != "ok")


def test_the_table_keeps_square_brackets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(machine, "package_version", lambda name: None)
    assert doctor() == 0
    assert "golfcore[hub]" in "".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("module", ["torch", "golfcore._core"])
def test_without_what_it_needs_golfcore_cannot_run(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert doctor() == 1
    text = capsys.readouterr().out
    assert "cannot run" in text
    assert "Traceback" not in text


def test_a_check_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Row:
        raise ZeroDivisionError("oh\n[no]")

    monkeypatch.setattr(doctor_module, "check_memory", fail)
    row = next(row for row in diagnose() if row.name == "memory")
    assert (row.status, row.detail) == ("missing", "the check itself failed: oh [no]")
    assert doctor() == 0


def gpu_rows(
    monkeypatch: pytest.MonkeyPatch,
    core: CoreInfo,
    devices: list[dict[str, Any]],
    why: str,
    driver: bool,
    fill: str = "",
    trouble: str = "",
) -> list[Row]:
    monkeypatch.setattr(machine, "core_info", lambda: core)
    monkeypatch.setattr(machine, "cuda_devices", lambda: (devices, why))
    monkeypatch.setattr(machine, "driver_trouble", lambda: trouble)
    monkeypatch.setattr(doctor_module, "has_nvidia_driver", lambda: driver)
    monkeypatch.setattr(doctor_module, "fill_on_torch_stream", lambda index: fill)
    found = check_gpus()
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize(("driver", "status", "fix"), [(False, "ok", "with a driver"), (True, "missing", "update")])
def test_kernels_that_are_only_compiled_say_why(
    driver: bool, status: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is amiss where there is no driver; one that cannot serve the build is too old."""
    (row,) = gpu_rows(monkeypatch, WITH_CUDA, [], "", driver, trouble="no CUDA-capable device is detected")
    assert row.status == status
    assert fix in row.fix
    assert "compiled only: nvcc 13.0.1" in row.detail
    assert "no CUDA-capable device is detected" in row.detail


def test_a_driver_whose_devices_do_not_show_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = gpu_rows(monkeypatch, WITH_CUDA, [], "no CUDA device is visible", driver=True)
    assert row.status == "missing"
    assert "CUDA_VISIBLE_DEVICES" in row.fix


@pytest.mark.parametrize(("driver", "status"), [(False, "slow"), (True, "missing")])
def test_a_cpu_build_says_why(monkeypatch: pytest.MonkeyPatch, driver: bool, status: str) -> None:
    core = CoreInfo(active_isa="avx2", detected_isa="avx2", cuda_reason="no nvcc was found")
    (row,) = gpu_rows(monkeypatch, core, [], "", driver)
    assert row.status == status
    assert "no nvcc was found" in row.detail
    assert ("GOLF_CUDA=ON" in row.fix) == driver


def test_each_device_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    old = H100 | {"name": "Tesla T4", "capability": (7, 5)}
    good, bad = gpu_rows(monkeypatch, WITH_CUDA, [H100, old], "", driver=True)
    assert (good.name, good.status) == ("gpu 0", "ok")
    assert "132 multiprocessors, 80 GiB; a kernel ran on torch's stream" in good.detail
    assert (bad.name, bad.status) == ("gpu 1", "missing")
    (row,) = gpu_rows(monkeypatch, WITH_CUDA, [H100], "", driver=True, fill="the test kernel failed: no image")
    assert row.status == "missing"
    assert "no image" in row.detail


def test_a_torch_without_cuda_cannot_prove_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert fill_on_torch_stream(0).startswith("torch cannot use it")


def test_threads_held_back_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    row = doctor_module.check_torch()
    assert row.status == "slow"
    assert row.fix == "unset OMP_NUM_THREADS, or set it to 4"


def test_threads_that_do_not_fit_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what share_cores made of 64
    monkeypatch.setattr(openmp, "corrections", {"OMP_NUM_THREADS": "OMP_NUM_THREADS='64' is more than the 2"})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    row = doctor_module.check_torch()
    assert (row.status, row.fix) == ("slow", "unset OMP_NUM_THREADS, or set it to 2")
    assert "OMP_NUM_THREADS='64' is more than the 2" in row.detail
    monkeypatch.setattr(openmp, "corrections", {})
    assert doctor_module.check_torch().fix == ""


@pytest.mark.parametrize(
    ("quota", "status", "detail"),
    [(None, "ok", "4 cores"), (8.0, "ok", "4 cores"), (0.5, "slow", "a quota of 0.5: 1 of 4 threads run")],
)
def test_the_quota_of_a_container_has_a_row(
    quota: float | None, status: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    row = doctor_module.check_processor()
    assert row.status == status
    assert detail in row.detail


def test_a_home_folder_that_does_not_serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GOLFCORE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert doctor_module.check_home() == Row("home", "ok", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "absent"))
    row = doctor_module.check_home()
    assert (row.status, "cannot be written" in row.detail, "GOLFCORE_CACHE" in row.fix) == ("missing", True, True)
    monkeypatch.setattr(machine, "home", lambda: None)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert doctor_module.check_home().status == "missing"
    (cache,) = (row for row in doctor_module.check_disk() if row.name == "disk: cache")
    assert (cache.status, cache.fix) == ("missing", "set GOLFCORE_CACHE to a folder that can be written")
    assert check_data().status == "missing"
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path))
    assert doctor_module.check_home().status == "ok"


def test_folders_for_temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def row() -> Row:
        return next(row for row in doctor_module.check_disk() if row.name == "disk: temp")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(machine, "temporary_folder", lambda: tmp_path)
    assert str(tmp_path) in row().detail
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    assert (row().status, row().detail) == ("slow", f"TMPDIR={tmp_path}/absent cannot be written; {tmp_path} is used")
    monkeypatch.setattr(machine, "temporary_folder", lambda: None)
    assert (row().status, "TMPDIR" in row().fix) == ("missing", True)


def test_a_file_in_the_place_of_the_cache(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    row = disk_row("disk: cache", tmp_path / "cache" / "golfcore")
    assert row.status == "missing"
    assert f"{tmp_path / 'cache'} is a file" in row.detail


def test_a_working_folder_that_was_removed_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def removed() -> Path:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "cwd", removed)
    assert doctor_module.check_disk()[0] == Row(
        "disk: here", "missing", "the working folder was removed", "change to another folder"
    )


def test_a_limit_on_addresses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: (8 << 30, 6 << 30))
    monkeypatch.setattr(machine, "soft_limit", lambda kind: None)
    assert doctor_module.check_memory() == Row("memory", "ok", "6.0 of 8.0 GiB available")
    monkeypatch.setattr(machine, "soft_limit", lambda kind: 4 << 30)
    assert doctor_module.check_memory().status == "slow"
    assert "ulimit -v" in doctor_module.check_memory().fix


def test_a_lowered_instruction_set_is_slow() -> None:
    code = "from golfcore.cli.doctor import check_core as c; r = c(); print(r.status, r.detail, r.fix, sep='|')"
    env = os.environ | {"GOLF_ISA": "scalar"}
    text = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    status, detail, fix = text.strip().split("|")
    assert status == "slow"
    assert ", scalar, " in detail
    assert fix


@pytest.mark.parametrize(("free", "status"), [(10**8, "missing"), (5 * 10**9, "ok"), (10**11, "ok")])
def test_disk_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, status: str) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(machine_rows.shutil, "disk_usage", lambda path: usage(10**12, 0, free))
    row = disk_row("disk", tmp_path / "not" / "there")
    assert row.status == status
    assert f"{free / 1e9:.1f} GB free" in row.detail


def test_prepared_data_is_found_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path))
    assert check_data().status == "missing"
    (tmp_path / "data" / "sp1024").mkdir(parents=True)
    (tmp_path / "data" / "sp1024" / "manifest.json").write_text("{}")
    row = check_data()
    assert row.status == "ok"
    assert row.detail.startswith("data/sp1024 in ")


def test_leftovers_of_killed_processes_are_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path))
    assert doctor_module.check_leftovers().status == "ok"
    left = tmp_path / "prepared" / ".0123456789abcdef.a1b2c3d4.tmp"
    left.mkdir(parents=True)
    (left / "manifest.json").write_bytes(bytes(3_000_000))
    row = doctor_module.check_leftovers()
    assert (row.status, row.fix) == ("slow", "golfcore data clean")
    assert "1 half-made" in row.detail and "3.0 MB" in row.detail
    assert check_data().status == "missing"  # a half-made folder is no prepared text


def test_the_environment_names_machine_and_build() -> None:
    found = machine.environment()
    assert {
        "golfcore",
        "commit",
        "dirty",
        "python",
        "torch",
        "cpu",
        "cores",
        "isa",
        "cuda",
        "platform",
        "started",
    } <= set(found)
    assert found["cores"] == (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    assert found["isa"] in _core.isas()
    assert re.match(r"(yes|no), .", found["cuda"])
    json.dumps(found)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: other\n", "AMD EPYC"),
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n", "Arm Neoverse V2"),
        ("CPU implementer\t: 0xc0\nCPU part\t: 0xac3\n", "aarch64, implementer 0xc0, part 0xac3"),
    ],
)
def test_the_processor_has_a_name(monkeypatch: pytest.MonkeyPatch, cpuinfo: str, expected: str) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, **_: {"/proc/cpuinfo": cpuinfo}[str(self)])
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    assert machine.cpu_model() == expected


def test_macos_counts_in_its_own_units(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:                  1000.\n"
        "Pages active:                9000.\nPages inactive:               500.\nPages speculative:             20.\n"
    )
    said = {"sysctl -n hw.memsize": "17179869184", "vm_stat": pages, "sysctl -n machdep.cpu.brand_string": "Apple M2"}
    linux = machine.peak_resident_bytes()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(machine, "_said", lambda *command: said.get(" ".join(command), ""))
    assert machine.memory_bytes() == (17179869184, 1520 * 16384)
    said.clear()
    assert machine.memory_bytes() is None
    said["sysctl -n machdep.cpu.brand_string"] = "Apple M2"

    def missing(*_: Any, **__: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert machine.cpu_model() == "Apple M2"
    assert machine.peak_resident_bytes() <= linux  # the same count, taken for bytes


def test_the_version_tells_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(
        rf"golfcore \S+ \(commit \w+, ({'|'.join(_core.isas())}), cuda: (yes|no), .+\)", machine.version_text()
    )
    monkeypatch.setitem(sys.modules, "golfcore._core", None)
    assert "(cannot run: the compiled core" in machine.version_text()


def test_devices_are_listed_or_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("driver too\nold")

    for answer, expected in (
        (lambda: [H100], ([H100], "")),
        (list, ([], "no CUDA device is visible")),
        (fail, ([], "driver too old")),
    ):
        monkeypatch.setattr("golfcore._core.cuda_devices", answer)
        assert machine.cuda_devices() == expected


def test_a_checkout_is_told_from_an_installed_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def git(*args: str) -> None:
        command = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *args)
        subprocess.run(command, check=True, capture_output=True)

    source = tmp_path / "environment.py"
    source.write_text("one\n")
    monkeypatch.setattr(machine, "__file__", str(source))
    assert machine.checkout_state() is None
    git("init")
    assert machine.checkout_state() is None  # not tracked
    git("add", "environment.py")
    git("commit", "-m", "first")
    state = machine.checkout_state()
    assert state is not None
    assert re.fullmatch(r"[0-9a-f]{12}", state[0])
    assert not state[1]
    source.write_text("two\n")
    assert machine.checkout_state() == (state[0], True)


def test_doctor_starts_without_torch() -> None:
    code = "import sys, golfcore.cli.doctor, golfcore.cli.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({}, {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": openmp.SPINS}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
    ],
)
def test_threads_share_cores_unless_told_how(
    given: dict[str, str], left: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", dict(given))
    openmp.share_cores()
    assert os.environ == left
