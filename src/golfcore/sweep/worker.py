"""Become the process of one run, unless another process runs it already or the run has ended.

    python -m golfcore.sweep.worker FOLDER NAME COMMAND...

The process of a job holds its lock from here to its end, whatever happens to the sweep that started it: the operating
system keeps the lock through ``exec`` and releases it when the process dies. So of two workers of one job one exits,
the runs of a killed sweep are seen to be alive, and the files of a run are only touched while no process writes them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from pathlib import Path

from golfcore.endings import run_to_end
from golfcore.run_folder import CHECKPOINT, CONFIG, SCORE, STOPPED

TAKEN = 75  # exit code: another process has this job
PATIENCE_S = 2.0  # a look at the lock (``is_running``) takes it for a moment: that is no process


def lock_path(folder: Path, name: str) -> Path:
    return folder / "locks" / f"{name}.lock"


def output_path(folder: Path, name: str) -> Path:
    """Return the file that gets the output of a run."""
    return folder / "output" / f"{name}.txt"


def is_running(folder: Path, name: str) -> int | None:
    """Return the id of the process that has the job's lock, or None."""
    try:
        fd = os.open(lock_path(folder, name), os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(fd, 32).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else 0
    else:
        return None
    finally:
        os.close(fd)


def has_ended(run_dir: Path) -> bool:
    """Return whether a run has ended: it has a score, or a mark that it was stopped as hopeless."""
    return (run_dir / SCORE).is_file() or (run_dir / STOPPED).is_file()


def _take_lock(path: Path) -> int | None:
    """Take the lock and return its descriptor, with this process's id in the file; None if another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(fd)
                return None
            time.sleep(0.05)
        else:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            return fd


def main(arguments: list[str]) -> int:
    """Take the lock and become the run: from its start, or from its checkpoint if there is one."""
    folder, name, command = Path(arguments[0]), arguments[1], arguments[2:]
    fd = _take_lock(lock_path(folder, name))
    if fd is None:
        return TAKEN
    run_dir = folder / name
    if has_ended(run_dir):
        return 0
    if (run_dir / CONFIG).is_file() and (run_dir / CHECKPOINT).is_file():
        command = [*command[: command.index("run") + 1], "--resume", str(run_dir)]
    elif run_dir.exists():
        shutil.rmtree(run_dir)  # cut off before its first checkpoint: nothing in it can be gone on from
    output = output_path(folder, name)
    output.parent.mkdir(parents=True, exist_ok=True)
    printed = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    os.set_inheritable(fd, True)
    return os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(run_to_end("golfcore", lambda: main(sys.argv[1:])))
