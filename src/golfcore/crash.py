"""Turn an error that is not golfcore's own into one line, and a file with the details for whoever looks into it."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import resource
import shlex
import sys
import time
import traceback
from pathlib import Path

from golfcore import machine, run_folder
from golfcore.errors import MACHINE_CODE, GolfError, exit_code
from golfcore.paths import atomic_write
from golfcore.printing import printable

FAULT = 70  # exit code: golfcore itself is at fault (EX_SOFTWARE of sysexits.h)
# Variables that change what runs. Others are left out of the file, since they may hold secrets.
SHOWN = (
    "ATEN_", "CUDA_", "GOLF", "GOMP_", "HOME", "KMP_", "LANG", "LC_", "LOCAL_RANK", "MASTER_", "MKL_", "NVIDIA_VISIBLE",
    "OMP_", "ONEDNN_", "OPENBLAS_", "RANK", "TMPDIR", "TORCH", "WORLD_SIZE", "XDG_CACHE_HOME",
)  # fmt: skip
SECRET = re.compile("TOKEN|KEY|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
NO_MEMORY = re.compile("can't allocate memory|cannot allocate memory|out of memory|bad_alloc|failed to map segment")
NO_THREAD = re.compile("can't start new thread|Resource temporarily unavailable|Thread creation failed")


def report(program: str, error: BaseException, *, debug: bool = False, thread: str = "") -> int:
    """Print one line on an error, write the details into a file that the line names, and return the exit code.

    The file goes into the folder of the run, else to the temporary files. If it cannot be written, the details follow
    the line.

    Args:
        program: the name at the beginning of the line.
        error: any exception.
        debug: also print the traceback.
        thread: name of the thread that raised it; empty for the main thread.
    """
    while isinstance(error, ImportError) and not isinstance(error, GolfError) and error.__cause__ is not None:
        error = error.__cause__  # what loads a command wraps the reason
    text, code = explained(error)
    where = f" in thread {thread}" if thread else ""
    if debug:
        say("".join(traceback.format_exception(error)).rstrip(), keep="\n")
    if isinstance(error, GolfError):
        if error.is_printed_by(os.environ):
            say(f"{program}: {text}{where}")
        return code
    details = ""
    try:
        details = _details(program, error, thread)
        say(f"{program}: {text}{where}; details are in {_written(details)}")
    except Exception:  # no memory, no room on the disk
        say(f"{program}: {text}{where}; no file can be written, so the details follow\n{details}", keep="\n")
    return code


def say(text: str, keep: str = "") -> None:
    """Print one line to standard error; one that is closed or broken is no further error.

    ``keep`` has the control characters that stay, such as the newline.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(printable(text, keep), file=sys.stderr, flush=True)


def explained(error: BaseException) -> tuple[str, int]:
    """Return one line on an error and the exit code: ``FAULT`` if neither machine nor user can help it."""
    first = machine.one_line(error)
    if len(first) > 400:  # torch explains at length
        first = str(error).strip().splitlines()[0][:400]
    if isinstance(error, GolfError):
        return str(error), exit_code(error)
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM or NO_MEMORY.search(str(error)):
        return f"not enough memory ({first}): {_memory()}", MACHINE_CODE
    if number == errno.EAGAIN or NO_THREAD.search(str(error)):
        limit = machine.soft_limit(resource.RLIMIT_NPROC)
        allowed = f", which allows this user {limit} processes and threads" if limit is not None else ""
        return (
            f"no thread or process can be started ({first}): raise ulimit -u{allowed}, or end other programs",
            MACHINE_CODE,
        )
    if number in (errno.EMFILE, errno.ENFILE):
        limit = machine.soft_limit(resource.RLIMIT_NOFILE)
        return f"too many open files ({first}): raise ulimit -n, which allows {limit}: ulimit -n 4096", MACHINE_CODE
    if number == errno.ENOENT and "temporary directory" in str(error):
        return "no folder for temporary files can be written: set TMPDIR to one", MACHINE_CODE
    if isinstance(error, ImportError):
        package = (error.name or "").partition(".")[0]
        again = f"pip install --force-reinstall {package or 'golfcore'}"
        return f"{package or 'a package'} cannot be imported ({first}): install it again: {again}", 1
    if isinstance(error, OSError):
        return first, exit_code(error)
    if isinstance(error, RecursionError) and {"json", "tomllib"} & set(Path(_last_file(error)).parts):
        return f"a file or a line of it is nested too deeply to be read ({first})", 1
    return f"a fault in golfcore ({type(error).__name__}: {first}): please report it", FAULT


def _last_file(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1].filename if frames else ""


def _memory() -> str:
    found = machine.memory_bytes()
    space = machine.soft_limit(resource.RLIMIT_AS)
    parts = [f"{found[1] / 2**30:.1f} of {found[0] / 2**30:.1f} GiB are free"] if found else []
    if space is not None:
        parts.append(f"ulimit -v allows {space / 2**30:.1f} GiB of addresses")
    advice = "lower train.micro_batch_tokens, model.model_dim or model.num_layers"
    return f"{', '.join(parts)}; {advice}{', or raise ulimit -v' if space is not None else ''}"


def _written(details: str) -> Path:
    """Write the details into the first folder that takes them, and return the file."""
    run_dir = run_folder.latest()
    if run_dir is not None and run_dir.is_dir():
        with contextlib.suppress(GolfError, OSError):
            return _write(run_dir / run_folder.CRASH, details)
    folder = machine.temporary_folder()
    if folder is None:
        raise OSError("no folder for temporary files")
    return _write(folder / f"golfcore-crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt", details)


def _write(path: Path, details: str) -> Path:
    with atomic_write(path) as f:
        f.write(details.encode("utf-8", errors="backslashreplace"))
    return path


def _details(program: str, error: BaseException, thread: str) -> str:
    """Return the content of the file: what ran, where, the limits it ran under, and the traceback."""
    kinds = {"ulimit -v": resource.RLIMIT_AS, "ulimit -n": resource.RLIMIT_NOFILE, "ulimit -u": resource.RLIMIT_NPROC}
    variables = {
        name: value for name, value in sorted(os.environ.items()) if name.startswith(SHOWN) and not SECRET.search(name)
    }
    facts = {
        "program": program,
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": shlex.join(sys.orig_argv),
        "folder": _answer(Path.cwd),
        "thread": thread or "main",
        "golfcore": machine.version_text(),
        "python": f"{platform.python_version()} at {sys.executable}",
        "packages": ", ".join(f"{name} {machine.package_version(name)}" for name in ("torch", "numpy", "zstandard")),
        "platform": platform.platform(),
        "processor": f"{machine.cpu_model()}, {machine.cores()} cores, quota {machine.cpu_quota()}",
        "memory": machine.memory_bytes(),
        **{name: machine.soft_limit(kind) for name, kind in kinds.items()},
        **variables,
    }
    lines = [f"{name}: {value}" for name, value in facts.items()]
    return "\n".join([*lines, "", "".join(traceback.format_exception(error)).rstrip(), ""])


def _answer(question: object) -> object:
    try:
        return question() if callable(question) else question
    except OSError as error:  # a working folder that was removed
        return error.strerror
