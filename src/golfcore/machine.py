"""Find out what this process may use (cores, memory, folders), and describe this machine and this build.

Nothing here imports torch or raises: a fact that cannot be read is left out, or its text says why.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import pwd
import re
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from golfcore import cgroups
from golfcore.installed import load_core


@dataclass(frozen=True, slots=True)
class CoreInfo:
    """Facts about the compiled core; ``error`` is its import error, and then the other fields are empty."""

    commit: str = "unknown"
    active_isa: str = "none"
    detected_isa: str = "none"
    has_cuda: bool = False
    cuda_reason: str = ""
    cuda_images: str = ""
    error: str = ""


def core_info() -> CoreInfo:
    """Return commit, instruction sets and CUDA state of ``golfcore._core``."""
    try:
        core = load_core()
    except ImportError as error:
        return CoreInfo(cuda_reason="the compiled core is missing", error=one_line(error))
    return CoreInfo(
        commit=core.commit,
        active_isa=core.active_isa(),
        detected_isa=core.detected_isa(),
        has_cuda=core.has_cuda,
        cuda_reason=core.cuda_reason,
        cuda_images=core.cuda_images,
    )


def cuda_devices() -> tuple[list[dict[str, Any]], str]:
    """Return the GPUs that the compiled core sees, and why there are none (an empty string if there are some)."""
    try:
        devices: list[dict[str, Any]] = load_core().cuda_devices()
    except (ImportError, RuntimeError) as error:
        return [], one_line(error)
    return devices, "" if devices else "no CUDA device is visible"


def driver_trouble() -> str:
    """Return why the NVIDIA driver cannot serve this build (there is none, or it is too old); "" if it can."""
    try:
        trouble: str = load_core().driver_trouble()
    except ImportError as error:
        return one_line(error)
    return trouble


def one_line(error: BaseException) -> str:
    """Return an exception's text on one line, or its class if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def package_version(name: str) -> str | None:
    """Return the installed version of a distribution, without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# Arm's own designs by "CPU part" of /proc/cpuinfo, where the implementer is 0x41.
ARM_PARTS = {
    "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76", "0xd0c": "Neoverse N1", "0xd40": "Neoverse V1",
    "0xd49": "Neoverse N2", "0xd4f": "Neoverse V2", "0xd83": "Neoverse V3", "0xd8e": "Neoverse N3",
}  # fmt: skip


def cpu_model() -> str:
    """Return the processor's name, from /proc/cpuinfo (numbers on 64-bit Arm) or from macOS."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    if name := fields.get("model name"):
        return name
    implementer, part = fields.get("CPU implementer"), fields.get("CPU part")
    if implementer and part:
        known = ARM_PARTS.get(part) if implementer == "0x41" else None
        return f"Arm {known}" if known else f"{platform.machine()}, implementer {implementer}, part {part}"
    return platform.processor() or platform.machine()


def _sysctl(name: str) -> str:
    """Return one of macOS's settings; an empty string on other systems."""
    return _said("sysctl", "-n", name) if sys.platform == "darwin" else ""


def _said(*command: str) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def cores() -> int:
    """Return the number of processors this process may run on; in a container often fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the processors' worth of time that this process's cgroups may use, such as 1.5; None if unlimited."""
    return cgroups.cpu_quota(root)


def fitting_threads() -> int:
    """Return the number of threads that this process can run at once: no more than its cores and its quota serve.

    Threads above a quota are all stopped for part of every 0.1 s, in the middle of the work that the others wait for:
    under half a core two threads trained 27 steps where one trained 41.
    """
    quota = cpu_quota()
    return cores() if quota is None else max(1, min(cores(), math.floor(quota + 0.05)))


def threads() -> int:
    """Return the number of threads that are to compute: ``fitting_threads``, or fewer if OMP_NUM_THREADS says so."""
    fit = fitting_threads()
    return min(fit, asked_threads(os.environ.get("OMP_NUM_THREADS", "")) or fit)


def asked_threads(value: str) -> int | None:
    """Return the number of threads that a variable like OMP_NUM_THREADS asks for; None if it names no such number.

    Of a list such as ``4,2``, which has a number for each level of nesting, the first counts.
    """
    first = value.split(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and 0 < int(first) < 1 << 31 else None


def memory_bytes(root: Path = Path("/")) -> tuple[int, int] | None:
    """Return ``(total, available)`` bytes of memory, lowered to the limits of cgroups; None if unknown."""
    if sys.platform == "darwin":
        return _macos_memory(_sysctl("hw.memsize"), _said("vm_stat"))
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        total, available = (int(fields[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError, IndexError):
        return None
    group = cgroups.memory(root)
    return (total, available) if group is None else (min(total, group.limit), min(available, group.left))


def soft_limit(kind: int) -> int | None:
    """Return this process's soft limit of one kind, such as ``resource.RLIMIT_AS``; None if there is none."""
    value = resource.getrlimit(kind)[0]
    return None if value == resource.RLIM_INFINITY else value


def home() -> Path | None:
    """Return the user's home folder: HOME if it is an absolute path, else that of the user database; None if neither.

    A container that runs under a bare number, as ``docker run --user 12345`` does, may have neither.
    """
    given = os.environ.get("HOME", "")
    if given.startswith("/"):
        return Path(given)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def temporary_folder() -> Path | None:
    """Return the folder for temporary files, which TMPDIR names; None if no such folder can be written."""
    try:
        return Path(tempfile.gettempdir())
    except OSError:
        return None


def _macos_memory(total: str, pages: str) -> tuple[int, int] | None:
    """Parse the output of ``sysctl -n hw.memsize`` and ``vm_stat``; pages that need no writing count as free."""
    counts = dict(re.findall(r"^Pages (free|inactive|speculative): +(\d+)", pages, re.MULTILINE))
    size = re.search(r"page size of (\d+) bytes", pages)
    if not total.isdigit() or size is None or not counts:
        return None
    return int(total), min(int(total), int(size[1]) * sum(map(int, counts.values())))


def peak_resident_bytes() -> int:
    """Return the peak memory of this process in bytes; macOS counts it in bytes, Linux in KiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def checkout_state() -> tuple[str, bool] | None:
    """Return ``(commit, dirty)`` of the git checkout that tracks this source; None for an installed wheel."""
    here = Path(__file__).resolve()

    def git(*args: str) -> str:
        command = ("git", "-C", str(here.parent), *args)
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # a virtual environment inside someone's checkout is not ours
        code = (":/", ":(top,exclude)bench/results")  # saved figures are not the code that made them
        return git("rev-parse", "--short=12", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no", *code))
    except (OSError, subprocess.SubprocessError):
        return None


def environment() -> dict[str, Any]:
    """Return the content of a run's env.json.

    ``commit`` is that of the checkout if the package runs from one, else the one that the core was built from;
    ``dirty`` says whether tracked files differed from it. ``threads`` is present once torch has been imported.
    """
    core = core_info()
    commit, dirty = checkout_state() or (core.commit, False)
    devices = cuda_devices()[0] if core.has_cuda else []
    result = {
        "golfcore": package_version("golfcore") or "unknown",
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "torch": package_version("torch") or "missing",
        "cpu": cpu_model(),
        "cores": cores(),
        "isa": core.active_isa,
        "cuda": cuda_text(core),
        "gpus": [device["name"] for device in devices],
        "platform": platform.platform(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if torch := sys.modules.get("torch"):
        result["threads"] = torch.get_num_threads()
    return result


def origin() -> dict[str, Any]:
    """Return what makes a score: interpreter, versions of the packages that compute, and golfcore's own files."""
    core = core_info()
    return {
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "packages": {name: package_version(name) for name in ("golfcore", "torch", "numpy", "zstandard")},
        "commit": core.commit,
        "golfcore_sha256": source_sha256(),
    }


def cuda_text(core: CoreInfo) -> str:
    """Return whether the core has CUDA kernels, as ``"yes, nvcc 13.0"`` or ``"no, <reason>"``."""
    return f"{'yes' if core.has_cuda else 'no'}, {core.cuda_reason}"


def source_sha256() -> str:
    """Return the hash of the Python source and the core's commit, which ranks on several machines must share."""
    folder = Path(__file__).parent
    digest = hashlib.sha256(core_info().commit.encode())
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def version_text() -> str:
    """Return the text of ``golfcore --version``: version, commit, instruction set, and CUDA with its reason."""
    core = core_info()
    if core.error:
        return f"golfcore {package_version('golfcore')} (cannot run: {core.error})"
    return f"golfcore {package_version('golfcore')} (commit {core.commit}, {core.active_isa}, cuda: {cuda_text(core)})"
