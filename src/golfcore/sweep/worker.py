"""Start the process of one run, unless another process runs it already or the run has ended, and write how it ended.

    python -m golfcore.sweep.worker FOLDER NAME COMMAND...

Worker and run both hold the job's lock from here to their ends, whatever happens to the sweep that started them: the
operating system releases it when the last of them dies. So of two workers of one job one exits, the runs of a killed
sweep are seen to be alive, and the files of a run are only touched while no process writes them. The file of the lock
has room for what it will say, so that a full disk does not hide how a run ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from golfcore.endings import run_to_end
from golfcore.run_folder import CHECKPOINT, CONFIG, SCORE, STOPPED

TAKEN = 75  # exit code: another process has this job
NO_COMMAND = 127  # exit code: the run's program could not be started
RECORD = 64  # bytes that the file of a lock holds: the id of the run's process, or how it ended
PATIENCE_S = 2.0  # a look at the lock (``is_running``) takes it for a moment: that is no process


def lock_path(folder: Path, name: str) -> Path:
    return folder / "locks" / f"{name}.lock"


def output_path(folder: Path, name: str) -> Path:
    """Return the file that gets the output of a run's last process; the run's own log has that of all."""
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
        text = _record(fd)
        return int(text) if text.isdigit() else 0
    else:
        return None
    finally:
        os.close(fd)


def has_ended(run_dir: Path) -> bool:
    """Return whether a run has ended: it has a score, or a mark that it was stopped as hopeless."""
    return (run_dir / SCORE).is_file() or (run_dir / STOPPED).is_file()


def exit_status(folder: Path, name: str) -> int | None:
    """Return how a job's last process ended: its exit code, or minus the number of the signal that killed it.

    None if it runs, or if it and its worker were killed together.
    """
    try:
        fd = os.open(lock_path(folder, name), os.O_RDONLY)
    except OSError:
        return None
    try:
        word, _, number = _record(fd).partition(" ")
        return int(number) if word == "ended" else None
    except ValueError:
        return None
    finally:
        os.close(fd)


def _record(fd: int) -> str:
    return os.pread(fd, RECORD, 0).decode("ascii", "replace").strip()


def _write_record(fd: int, text: str) -> None:
    """Overwrite the record in place, which needs no room on the disk once it was written before."""
    os.pwrite(fd, f"{text:<{RECORD - 1}}\n".encode(), 0)


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
            _write_record(fd, str(os.getpid()))
            return fd


def main(arguments: list[str]) -> int:
    """Take the lock, do the run, from its start or from its checkpoint, and write its exit status into the lock."""
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
    printed = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    run = _Run()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, run.pass_on)
    try:
        status = run.wait(command, printed, fd)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(printed, f"golfcore: {command[0]} cannot be started: {error.strerror}\n".encode())
        status = NO_COMMAND
    _write_record(fd, f"ended {status}")
    return status if status >= 0 else 128 - status


class _Run:
    """The process of a run, which gets the signals that would end its worker; the worker waits for it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def wait(self, command: list[str], printed: int, lock: int) -> int:
        """Start the command, write its id into the lock, and return its exit status when it has ended."""
        self._process = subprocess.Popen(command, stdout=printed, stderr=printed, pass_fds=(lock,))
        _write_record(lock, str(self._process.pid))
        for number in self._early:
            self._process.send_signal(number)
        return self._process.wait()

    def pass_on(self, number: int, frame: FrameType | None) -> None:
        """Send a signal to the run, or keep it until there is one."""
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)


if __name__ == "__main__":
    sys.exit(run_to_end("golfcore", lambda: main(sys.argv[1:])))
