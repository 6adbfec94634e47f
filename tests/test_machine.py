"""What this process may use: cores, quotas and memory of control groups, threads, and the user's folders."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from golfcore import cgroups, machine, openmp, startup
from golfcore.errors import InputError
from golfcore.paths import atomic_write, cache_dir

V2 = "30 23 0:26 {shown} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "33 32 0:29 {shown} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "34 32 0:30 {shown} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
HYBRID = V1 + "35 32 0:31 {shown} /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
CPU, MEMORY = "cpu,cpuacct/", "memory/"
NO_LIMIT_V1 = "9223372036854771712"


def system(root: Path, own: str, mounts: str, files: dict[str, str], shown: str = "/") -> Path:
    """Lay out a system below ``root``: the process's groups, the mounts, and the files of the groups."""
    mounts = "22 1 8:1 / / rw - ext4 /dev/sda rw\n" + mounts.format(shown=shown)
    for name, content in {
        "proc/self/cgroup": own, "proc/self/mountinfo": mounts,
        "proc/meminfo": "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 900 kB\n",
        **{f"sys/fs/cgroup/{name}": content for name, content in files.items()},
    }.items():  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def v1_quota(folder: str, quota: int) -> dict[str, str]:
    return {f"{CPU}{folder}cpu.cfs_quota_us": f"{quota}\n", f"{CPU}{folder}cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("own", "mounts", "shown", "files", "quota"),
    [
        ("0::/\n", V2, "/", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", V2, "/", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", V2, "/", {"cpu.max": "odd\n"}, None),
        ("0::/\n", V2, "/", {"cpu.max": ""}, None),
        ("0::/user.slice/a.service\n", V2, "/", {"user.slice/cpu.max": "50000 100000\n",
            "user.slice/a.service/cpu.max": "max 100000\n"}, 0.5),
        ("0::/a/b\n", V2, "/", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "30000 20000\n"}, 1.5),
        ("0::/docker/abc\n", V2, "/docker/abc", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/docker/abc/job\n", V2, "/docker/abc", {"cpu.max": "200000 100000\n",
            "job/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/of/the/host\n", V2, "/", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/../../other\n", V2, "/", {"cpu.max": "50000 100000\n"}, 0.5),
        ("4:cpu,cpuacct:/\n", V1, "/", v1_quota("", 50000), 0.5),
        ("4:cpu,cpuacct:/\n", V1, "/", v1_quota("", -1), None),
        ("4:cpuacct,cpu:/docker/abc\n", V1, "/docker/abc", v1_quota("", 150000), 1.5),
        ("4:cpu,cpuacct:/a/b\n", V1, "/", v1_quota("a/", 25000) | v1_quota("a/b/", -1), 0.25),
        ("4:cpu,cpuacct:/a\n0::/a\n", HYBRID, "/", v1_quota("a/", 50000) | {"unified/a/cgroup.procs": ""}, 0.5),
        ("4:cpu:/a\n4:cpuacct:/b\n", V1.replace(",cpuacct rw", " rw").replace("rw,cpu,cpuacct", "rw,cpu"), "/",
            {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}, 0.5),
        ("0::/a:b\n", V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/with\\040blank"), "/",
            {"with blank/a:b/cpu.max": "50000 100000\n"}, 0.5),
        ("", "", "/", {"cpu.max": "50000 100000\n"}, None),
    ],
)  # fmt: skip
def test_the_lowest_quota_on_the_way_up_counts(
    own: str, mounts: str, shown: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    assert machine.cpu_quota(system(tmp_path, own, mounts, files, shown)) == quota


def test_without_proc_there_is_no_limit(tmp_path: Path) -> None:
    assert machine.cpu_quota(tmp_path) is None
    assert cgroups.memory(tmp_path) is None
    assert machine.memory_bytes(tmp_path) is None


@pytest.mark.parametrize(
    ("own", "mounts", "files", "expected"),
    [
        ("0::/\n", V2, {"memory.max": "512000\n", "memory.current": "112000\n"}, (512_000, 400_000)),
        ("0::/\n", V2, {"memory.max": "max\n", "memory.current": "112000\n"}, (1_024_000, 921_600)),
        ("0::/a/b\n", V2, {"a/memory.max": "300000\n", "a/memory.current": "290000\n", "a/b/memory.max": "600000\n",
            "a/b/memory.current": "1000\n"}, (300_000, 10_000)),
        ("0::/\n", V2, {"memory.max": "512000\n", "memory.current": "500000\n",
            "memory.stat": "anon 1\ninactive_file 200000\n"}, (512_000, 212_000)),
        ("0::/\n", V2, {"memory.max": "512000\n", "memory.current": "600000\n"}, (512_000, 0)),
        ("5:memory:/\n", V1, {f"{MEMORY}memory.limit_in_bytes": NO_LIMIT_V1, f"{MEMORY}memory.usage_in_bytes": "5"},
            (1_024_000, 921_600)),
        ("5:memory:/a\n", V1, {f"{MEMORY}memory.limit_in_bytes": NO_LIMIT_V1, f"{MEMORY}memory.usage_in_bytes": "5",
            f"{MEMORY}a/memory.limit_in_bytes": "256000", f"{MEMORY}a/memory.usage_in_bytes": "156000",
            f"{MEMORY}a/memory.stat": "total_inactive_file 50000\n"}, (256_000, 150_000)),
    ],
)  # fmt: skip
def test_memory_is_lowered_to_the_groups(
    own: str, mounts: str, files: dict[str, str], expected: tuple[int, int], tmp_path: Path
) -> None:
    assert machine.memory_bytes(system(tmp_path, own, mounts, files)) == expected


def test_a_system_that_counts_nothing(tmp_path: Path) -> None:
    system(tmp_path, "0::/\n", V2, {})
    (tmp_path / "proc/meminfo").write_text("nothing\n")
    assert machine.memory_bytes(tmp_path) is None


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "quota", "asked", "fit", "threads"),
    [
        (2, 0.5, None, 1, 1), (4, 1.99, None, 2, 2), (4, 1.5, None, 1, 1), (4, 3.0, "2", 3, 2), (2, 8.0, None, 2, 2),
        (2, None, "64", 2, 2), (2, None, "0", 2, 2), (2, None, "-1", 2, 2), (2, None, "abc", 2, 2),
        (8, None, "4,2", 8, 4), (8, None, " 3 ", 8, 3), (8, None, "", 8, 8), (1, None, "2", 1, 1),
        (2, None, "99999999999999999999", 2, 2), (2, None, "²", 2, 2),
    ],
)  # fmt: skip
def test_no_more_threads_than_fit(
    cores: int, quota: float | None, asked: str | None, fit: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert (machine.fitting_threads(), machine.threads()) == (fit, threads)


@pytest.mark.parametrize(
    ("given", "quota", "left", "said"),
    [
        ({}, None, {}, []),
        ({}, 0.5, {"OMP_NUM_THREADS": "1"}, []),
        ({"OMP_NUM_THREADS": "1"}, None, {"OMP_NUM_THREADS": "1"}, []),
        ({"OMP_NUM_THREADS": "2,2"}, None, {"OMP_NUM_THREADS": "2,2"}, []),
        ({"OMP_NUM_THREADS": "64"}, None, {"OMP_NUM_THREADS": "2"}, ["OMP_NUM_THREADS='64' is more than the 2"]),
        ({"OMP_NUM_THREADS": "2"}, 0.5, {"OMP_NUM_THREADS": "1"}, ["OMP_NUM_THREADS='2' is more than the 1"]),
        ({"OMP_NUM_THREADS": "abc"}, None, {"OMP_NUM_THREADS": "2"}, ["OMP_NUM_THREADS='abc' is no number of thr"]),
        ({"OMP_NUM_THREADS": "0"}, None, {"OMP_NUM_THREADS": "2"}, ["OMP_NUM_THREADS='0' is no number of threads"]),
        ({"OMP_NUM_THREADS": "-1"}, None, {"OMP_NUM_THREADS": "2"}, ["OMP_NUM_THREADS='-1' is no number of threads"]),
        ({"MKL_NUM_THREADS": "16"}, None, {"MKL_NUM_THREADS": "2"}, ["MKL_NUM_THREADS='16' is more than the 2"]),
    ],
)
def test_variables_are_held_to_what_fits(
    given: dict[str, str], quota: float | None, left: dict[str, str], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"OMP_WAIT_POLICY": "active", **given})
    monkeypatch.setattr(openmp, "corrections", {})
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    openmp.share_cores()
    assert os.environ == {"OMP_WAIT_POLICY": "active", **left}
    assert [text[: len(start)] for text, start in zip(openmp.corrections.values(), said, strict=True)] == said


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_bound_to_one_core_runs_one_thread() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); os.environ['OMP_NUM_THREADS'] = '2'\n"
        "from golfcore import machine, openmp; openmp.share_cores()\n"
        "print(machine.cores(), machine.threads(), os.environ['OMP_NUM_THREADS'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "1"]


# --- the user and the folders -----------------------------------------------------------------------------------------


def nameless(uid: int) -> None:
    raise KeyError(f"getpwuid(): uid not found: {uid}")


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "GOLFCORE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nameless)


@pytest.mark.parametrize("value", ["", "relative", "~"])
def test_home_is_an_absolute_path(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = machine.home()
    assert known is not None
    monkeypatch.setenv("HOME", "/somewhere")
    assert machine.home() == Path("/somewhere")
    monkeypatch.setenv("HOME", value)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: type("Entry", (), {"pw_dir": "/of/passwd"}))
    assert machine.home() == Path("/of/passwd")


@pytest.mark.usefixtures("no_home")
def test_a_user_without_a_home_folder_is_told_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.home() is None
    with pytest.raises(InputError, match=r"has no home folder.*: set GOLFCORE_CACHE to a folder"):
        cache_dir()
    monkeypatch.setenv("GOLFCORE_CACHE", "/mine")
    assert cache_dir() == Path("/mine")


@pytest.mark.usefixtures("no_home")
def test_a_user_without_a_name_gets_one_for_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OMP_WAIT_POLICY": "active"})
    startup.prepare()
    assert os.environ["LOGNAME"] == f"user{os.getuid()}"
    os.environ["USER"] = "me"
    del os.environ["LOGNAME"]
    startup.prepare()
    assert "LOGNAME" not in os.environ


def test_fonts_are_kept_where_they_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = {"OMP_WAIT_POLICY": "active", "HOME": str(tmp_path), "GOLFCORE_CACHE": "/mine", "USER": "me"}
    monkeypatch.setattr(os, "environ", dict(environment))
    startup.prepare()
    assert "MPLCONFIGDIR" not in os.environ
    os.environ["HOME"] = str(tmp_path / "absent")
    startup.prepare()
    assert os.environ["MPLCONFIGDIR"] == "/mine/matplotlib"


@pytest.mark.parametrize("value", ["cache", "./cache", ""])
def test_a_relative_xdg_folder_is_ignored(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOLFCORE_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_dir() == Path("/home/me/.cache/golfcore")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert cache_dir() == Path("/var/cache/me/golfcore")


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME", "GOLFCORE_CACHE"])
def test_a_cache_that_cannot_be_written_names_its_variable(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file in the place of a folder stands in for one without permission, which stops no root."""
    for name in ("GOLFCORE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(variable, str(tmp_path / "file"))
    with pytest.raises(InputError, match="set GOLFCORE_CACHE to a folder"), atomic_write(cache_dir() / "a" / "b"):
        pass
    with pytest.raises(InputError) as caught, atomic_write(tmp_path / "file" / "elsewhere.txt"):
        pass
    assert (variable == "GOLFCORE_CACHE") == ("GOLFCORE_CACHE" in str(caught.value))  # it lies in the cache only then


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none_usable() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert machine.temporary_folder() == tmp_path
    monkeypatch.setattr(tempfile, "gettempdir", none_usable)
    assert machine.temporary_folder() is None
