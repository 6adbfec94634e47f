"""The folder of a run: the names of its files, and which process may write to it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from golfcore.errors import InputError
from golfcore.hints import command
from golfcore.paths import write_failure

CONFIG = "config.toml"  # every key of the recipe, as the run resolved it
LOG, METRICS, LEDGER, ENV = "log.txt", "metrics.jsonl", "ledger.json", "env.json"
CHECKPOINT, PREVIOUS_CHECKPOINT = "checkpoint.pt", "checkpoint.previous.pt"
QUANTIZED, QUANTIZATION_ERRORS = "quantised.pt", "quantised.json"
ARTIFACT = "model.golf"
SCORE = "score.json"
REPORT = "report.html"
STOPPED = "stopped.json"  # a sweep stopped the run early
CRASH = "crash.txt"  # details of an error that was not foreseen
OWNER = ".owner"  # held by the process that writes; names it
LOOK_S = 0.2  # a look at the lock takes it for a moment: that is no owner


_latest: Path | None = None


def latest() -> Path | None:
    """Return the folder of the run that this process wrote to last; None if it has not written to any."""
    return _latest


@contextmanager
def owned(run_dir: Path, *, by_this_process: bool = True) -> Iterator[None]:
    """Keep other processes from writing to a run's folder until the block ends.

    The operating system takes the lock back when its process ends, however it ends, so none is ever stale.

    Args:
        run_dir: the folder, which exists.
        by_this_process: False for a rank that writes nothing.

    Raises:
        InputError: another process has the folder, with its id and host; or the folder cannot be written.
    """
    if not by_this_process:
        yield
        return
    path = run_dir / OWNER
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InputError(write_failure(path, error)) from error
    global _latest
    try:
        _lock(fd, run_dir)
        _latest = run_dir
        os.ftruncate(fd, 0)
        with contextlib.suppress(OSError):  # on a full disk the name is lost, the lock is not
            os.pwrite(fd, f"{_this_process()}\n".encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            if is_empty(run_dir):  # a run that ended before it wrote anything leaves nothing
                path.unlink()
                run_dir.rmdir()
        os.close(fd)


def owner(run_dir: Path) -> str:
    """Return ``process 12 on HOST``, the other process that writes to the folder; an empty string if there is none."""
    try:
        fd = os.open(run_dir / OWNER, os.O_RDONLY)
    except OSError:
        return ""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        name = _name_in(fd)
        return "" if name == _this_process() else name
    except OSError:  # a file system without locks
        return ""
    else:
        return ""
    finally:
        os.close(fd)


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _name_in(fd: int) -> str:
    return os.pread(fd, 200, 0).decode("utf-8", "replace").strip() or "another process"


def _lock(fd: int, run_dir: Path) -> None:
    until = time.monotonic() + LOOK_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(0.01)
                continue
            raise InputError(
                f"{run_dir} belongs to {_name_in(fd)}, which is still writing to it; wait for it to end, and see how "
                f"far it is with: {command('report', run_dir)}"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # file systems without locks
                raise
        return


def is_empty(run_dir: Path) -> bool:
    """Say whether the folder holds nothing of a run; OSError if it cannot be read."""
    return {path.name for path in run_dir.iterdir()} <= {OWNER}


def create(run_dir: Path) -> None:
    """Create the folder of a new run.

    Raises:
        FileExistsError: it is there already, be it since a moment ago.
        InputError: it cannot be created.
    """
    try:
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        run_dir.mkdir()
    except FileExistsError:
        raise
    except OSError as error:
        raise InputError(write_failure(run_dir, error)) from error
