"""``golfcore doctor``: check this machine, and say what is slow or missing and how to mend it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from golfcore import machine, openmp
from golfcore.cli import output
from golfcore.cli.machine_rows import (
    MISSING,
    OK,
    SLOW,
    Row,
    check_data,
    check_disk,
    check_home,
    check_leftovers,
    check_memory,
    check_processor,
)
from golfcore.errors import BuildError
from golfcore.installed import TORCH_FIX, torch_trouble

STYLES = {OK: "green", SLOW: "yellow", MISSING: "red"}


def doctor(*, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Check this machine: Python, torch, core, GPU, processor, folders, memory, data and extras.

    The exit code is 0 unless golfcore itself cannot run.

    Args:
        json: Print one JSON document instead of the table.
    """
    rows = diagnose()
    healthy = not any(row.required and row.status == MISSING for row in rows)
    if json:
        output.print_json({"healthy": healthy, "rows": [asdict(row) for row in rows]})
        return 0 if healthy else 1
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("part", "state", "what was found"):
        table.add_column(heading, no_wrap=heading != "what was found")
    for row in rows:
        table.add_row(row.name, output.styled((row.status, STYLES[row.status])), described(row))
    output.out.print(table)
    count = sum(row.status != OK for row in rows)
    notes = f"{count} of {len(rows)} parts are slow or missing" if count else f"all {len(rows)} parts are ok"
    output.out.print(f"\n{machine.version_text()}: {'ready' if healthy else 'cannot run'}; {notes}", markup=False)
    return 0 if healthy else 1


def described(row: Row) -> Text:
    """Return the detail and, below it, the fix."""
    return output.styled(row.detail) + (Text("\n") + output.styled((f"-> {row.fix}", "dim")) if row.fix else Text())


def diagnose() -> list[Row]:
    """Return every row of the table; a check that fails unexpectedly becomes a row too, never a traceback."""
    checks: tuple[tuple[str, Callable[[], Row | list[Row]]], ...] = (
        ("python", check_python),
        ("compiler", check_compiler),
        ("torch", check_torch),
        ("core", check_core),
        ("products", check_products),
        ("gpu", check_gpus),
        ("kernels", check_kernels),
        ("processor", check_processor),
        ("home", check_home),
        ("disk", check_disk),
        ("memory", check_memory),
        ("data", check_data),
        ("leftovers", check_leftovers),
        ("extras", check_extras),
    )
    rows: list[Row] = []
    for name, check in checks:
        try:
            found = check()
        except Exception as error:
            found = Row(name, MISSING, f"the check itself failed: {machine.one_line(error)}", "report this line")
        rows += found if isinstance(found, list) else [found]
    return rows


def check_python() -> Row:
    return Row("python", OK, f"{platform.python_version()} at {sys.executable}", required=True)


def check_compiler() -> Row:
    """Check g++ and nvcc, which only a build from source needs."""
    gxx, nvcc = first_line("g++", "--version"), nvcc_version()
    with_nvcc = f"; nvcc {nvcc}" if nvcc else "; no nvcc"
    if not gxx:
        fix = "only building golfcore from source needs one: apt-get install g++"
        return Row("compiler", MISSING, f"no g++ on PATH{with_nvcc}", fix)
    return Row("compiler", OK, gxx + with_nvcc)


def first_line(*command: str) -> str:
    """Return the first line that ``command`` prints, or an empty string if it is absent or fails."""
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(done.stdout.splitlines()), "")


def nvcc_version() -> str:
    """Return the release of nvcc, also if it is not on PATH; an empty string if there is none."""
    homes = [Path(home) / "bin" for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if home]
    nvcc = shutil.which("nvcc") or next((str(path) for home in homes if (path := home / "nvcc").is_file()), None)
    if nvcc is None:
        return ""
    try:
        text = subprocess.run(
            (nvcc, "--version"), capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return text.partition("release ")[2].partition(",")[0]


def check_torch() -> Row:
    try:
        import torch
    except Exception as error:  # a broken torch raises OSError, ImportError or worse
        fix = "pip install torch (the build that fits this machine: pytorch.org/get-started)"
        return Row("torch", MISSING, machine.one_line(error), fix, required=True)
    if trouble := torch_trouble(torch.__version__):
        return Row("torch", MISSING, trouble, TORCH_FIX, required=True)
    threads, fit = torch.get_num_threads(), machine.fitting_threads()
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    text = f"{torch.__version__}, {build}, {threads} of {fit} threads"
    named = [*openmp.corrections, *(name for name in openmp.THREAD_VARIABLES[:2] if name in os.environ)]
    if named and (openmp.corrections or threads != fit):
        fix = f"unset {named[0]}, or set it to {fit}"
        return Row("torch", SLOW, "; ".join([text, *openmp.corrections.values()]), fix, required=True)
    if not torch.version.cuda and has_nvidia_driver():
        fix = "this machine has an NVIDIA driver: install torch's CUDA build (pytorch.org/get-started)"
        return Row("torch", SLOW, text, fix, required=True)
    return Row("torch", OK, text, required=True)


def has_nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def check_core() -> Row:
    core = machine.core_info()
    if core.error:
        detail, _, fix = core.error.rpartition("; ")
        return Row("core", MISSING, detail, fix, required=True)
    text = f"commit {core.commit}, {core.active_isa}, cuda: {machine.cuda_text(core)}"
    if core.active_isa != core.detected_isa:
        fix = f"GOLF_ISA lowers it: this processor has {core.detected_isa}; unset GOLF_ISA"
        return Row("core", SLOW, text, fix, required=True)
    if core.active_isa == "scalar":
        return Row("core", SLOW, text, "a processor with AVX2 or NEON is several times faster", required=True)
    return Row("core", OK, text, required=True)


def check_products() -> Row:
    """Measure how fast this processor multiplies in each precision, and show which one golfcore uses."""
    try:
        from golfcore.ops import products
    except ImportError as error:
        return Row("products", MISSING, machine.one_line(error), "see torch and core above")
    found = products.remember(products.measure())
    text = f"{found}; matrix products on this processor go in {found.route}"
    if found.route.dtype == "fp32":
        text += " (it has no fast bf16 instructions)"
    return Row("products", OK, text)


def check_gpus() -> Row | list[Row]:
    """Return one row per device, on which a kernel is run, or one row that says why there is no device."""
    core = machine.core_info()
    if not core.has_cuda:
        text = f"golfcore's kernels are built for the CPU only ({core.cuda_reason})"
        if has_nvidia_driver():
            fix = "this machine has an NVIDIA driver: install nvcc, then GOLF_CUDA=ON pip install -e ."
            return Row("gpu", MISSING, text, fix)
        return Row("gpu", SLOW, text, "nothing to do here: training runs on the CPU, in minutes at pocket size")
    devices, why = machine.cuda_devices()
    if devices:
        return [gpu_row(index, device) for index, device in enumerate(devices)]
    if trouble := machine.driver_trouble():
        text = f"compiled only: {core.cuda_reason}, but no GPU to run on: {trouble}"
        if has_nvidia_driver():
            fix = "update the driver, or build golfcore with an older toolkit; in a container, start it with its GPUs"
            return Row("gpu", MISSING, text, fix)
        return Row("gpu", OK, text, "to run kernels, use a machine with a driver; training here runs on the CPU")
    text = f"compiled only: {core.cuda_reason}, but no GPU to run on ({why})"
    return Row("gpu", MISSING, text, "the driver is there: check nvidia-smi and CUDA_VISIBLE_DEVICES")


def check_kernels() -> list[Row]:
    """Return one row per device on the kernels that can run there, or one row that says why none can."""
    try:
        from golfcore.ops.inventory import kernel_owners
    except (ImportError, BuildError) as error:
        return [Row("kernels", MISSING, machine.one_line(error), "see torch and core above")]
    core = machine.core_info()
    own, rest = kernel_owners()
    names = ", ".join(own) + (f" (plain torch serves {', '.join(rest)})" if rest else "")
    devices = machine.cuda_devices()[0] if core.has_cuda else []
    if devices:
        found = (tuple(device["capability"]) for device in devices)
        return [kernel_row(index, capability, names, core.cuda_images) for index, capability in enumerate(found)]
    why = machine.driver_trouble() or "no GPU is visible"
    if not core.has_cuda:
        return [Row("kernels", OK, f"{names}: their source is checked on the host alone: {why}")]
    text = (
        f"{names}: compiled for {', '.join(core.cuda_images.split())}; their source is checked on the host alone: {why}"
    )
    return [Row("kernels", OK, text, "golfcore kernels list --resources shows what the compiler made of them")]


def kernel_row(index: int, capability: tuple[int, int], names: str, images: str) -> Row:
    """Return the row on whether the kernels run on one device, by which image, or why not."""
    from golfcore.gpu_specs import image_for
    from golfcore.ops.registry import why_not

    name, image = f"kernels {index}", image_for(images, capability)
    if reason := why_not(index):
        fix = "plain torch serves this device until the problem above is solved"
        return Row(name, MISSING, f"{names}: cannot run on gpu {index}: {reason}", fix)
    if image.startswith("compute_"):
        fix = "build for this device: CMAKE_ARGS=-DCMAKE_CUDA_ARCHITECTURES=native GOLF_CUDA=ON pip install ."
        return Row(name, SLOW, f"{names}: run on gpu {index} once the driver has compiled {image}", fix)
    return Row(name, OK, f"{names}: run on gpu {index} ({image})")


def gpu_row(index: int, device: dict[str, Any]) -> Row:
    major, minor = device["capability"]
    text = (
        f"{device['name']}, compute {major}.{minor}, {device['multiprocessors']} multiprocessors, "
        f"{device['memory_bytes'] / 2**30:.0f} GiB"
    )
    name = f"gpu {index}"
    if (major, minor) < (8, 0):
        return Row(name, MISSING, text, "golfcore's kernels need compute 8.0 (A100) or newer; use the CPU")
    if trouble := fill_on_torch_stream(index):
        return Row(name, MISSING, f"{text}; {trouble}", "rebuild for this device: GOLF_CUDA=ON pip install -e .")
    return Row(name, OK, f"{text}; a kernel ran on torch's stream")


def fill_on_torch_stream(index: int) -> str:
    """Run one of our kernels on a stream that torch made; return what went wrong, or an empty string.

    torch brings its own CUDA runtime: this proves that its streams and memory are valid in ours, and that this build
    holds an image for the device.
    """
    try:
        import torch

        import golfcore._core as core

        if not torch.cuda.is_available():
            return "torch cannot use it (a CPU build of torch, or a driver too old for it)"
        stream = torch.cuda.Stream(index)  # type: ignore[no-untyped-call]
        with torch.cuda.device(index), torch.cuda.stream(stream):
            out_N = torch.zeros(4097, device=f"cuda:{index}")
            current = torch.cuda.current_stream(index)
            core.device.fill_f32(out_N.data_ptr(), out_N.numel(), 1.5, index, current.cuda_stream)
            # Summed on the same stream: right only if the kernel ran on it, in order.
            total = float(out_N.sum())
    except Exception as error:
        return f"the test kernel failed: {machine.one_line(error)}"
    return "" if total == 1.5 * 4097 else f"the test kernel wrote wrong values (sum {total}, expected {1.5 * 4097})"


def check_extras() -> list[Row]:
    """Check the optional packages, and say what each is for."""
    extras = (
        ("huggingface_hub", "pip install 'golfcore[hub]' to download the contest's data"),
        ("sentencepiece", "pip install 'golfcore[sentencepiece]' to read the contest's tokenizers"),
        ("tiktoken", "pip install 'golfcore[bench]' to compare tokenizers"),
    )
    rows = []
    for name, fix in extras:
        found = machine.package_version(name.replace("_", "-"))
        rows.append(Row(name, OK, found) if found else Row(name, MISSING, "not installed (optional)", fix))
    return rows
