"""Start golfcore beside trouble, and watch that nothing of it remains."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
MARK = "GOLFCORE_SOAK"  # a variable that every process of one command inherits
OWN = ("GOLFCORE_", "PYTHON", "OMP_", "XDG_", "TMPDIR")


@dataclass
class Ended:
    """How a process ended: its exit code, negative for a signal, and what it printed."""

    code: int
    out: str
    err: str
    seconds: float

    def last_words(self) -> str:
        return " | ".join(self.err.strip().splitlines()[-3:])


@dataclass
class Command:
    """A command of golfcore as a process in a session of its own, beside all of its descendants.

    Args:
        words: of the command line, behind ``golfcore``.
        folder: the working folder; caches and temporary files lie in it.
        before: words of a program that starts it.
        file_bytes: the largest file that it may write; 0 for any.
    """

    words: Sequence[str]
    folder: Path
    before: Sequence[str] = ()
    file_bytes: int = 0
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    def start(self) -> Command:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
        environment |= {
            MARK: self.mark, "GOLFCORE_CACHE": str(self.folder / "cache"), "TMPDIR": str(self.folder / "tmp"),
            "OMP_NUM_THREADS": "1", "HOME": str(self.folder / "home"),
        }  # fmt: skip
        for name in ("tmp", "home"):
            (self.folder / name).mkdir(exist_ok=True)
        command = [*(self.before or (sys.executable, "-P", "-m", "golfcore")), *self.words]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=self.folder, env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            preexec_fn=self._limit if self.file_bytes else None,
        )  # fmt: skip
        # Not communicate: it waits for every process that has the pipe, also for one that should not be there.
        self.printed: dict[str, str] = {"out": "", "err": ""}
        self.readers = [
            threading.Thread(target=self._read, args=(name, pipe), daemon=True)
            for name, pipe in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for reader in self.readers:
            reader.start()
        return self

    def _read(self, name: str, pipe: IO[str]) -> None:
        for line in pipe:
            self.printed[name] += line

    def _limit(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_bytes, self.file_bytes))

    def wait(self, seconds: float) -> Ended:
        """Wait for the end.

        Raises:
            TimeoutError: it has not ended after ``seconds``; it and its descendants are killed.
        """
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            self.process.wait()
            last = self.printed["err"].strip()[-300:]
            raise TimeoutError(f"golfcore {' '.join(self.words)} hangs: {last}") from None
        took = time.monotonic() - self.began
        for reader in self.readers:
            reader.join(2.0)
        return Ended(self.process.returncode, self.printed["out"], self.printed["err"], took)

    def wait_until_ready(self, seconds: float) -> None:
        """Wait until golfcore has the signals in hand: before that the end, and its words, are Python's own."""
        until = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            while self.process.poll() is None and time.monotonic() < until:
                status = (Path("/proc") / str(self.process.pid) / "status").read_text()
                caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
                if int(caught.split()[1], 16) >> signal.SIGTERM - 1 & 1:
                    return
                time.sleep(0.01)

    def send(self, number: int, *, group: bool) -> None:
        """Send a signal to the process, or to its group as a terminal does."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.process.pid, number)

    def descendants(self) -> dict[int, str]:
        """Every process that began with this command and still runs, with its words."""
        found = {}
        for path in Path("/proc").iterdir():
            if path.name.isdigit() and int(path.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                        found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")
        return found

    def wait_for_descendants(self, seconds: float) -> dict[int, str]:
        """Wait until nothing of the command runs; what still does after ``seconds`` is killed and returned."""
        until = time.monotonic() + seconds
        while left := self.descendants():
            if time.monotonic() > until:
                self.kill_all()
                return left
            time.sleep(0.05)
        return {}

    def kill_all(self) -> None:
        for pid in self.descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def golfcore(words: Sequence[str], folder: Path, seconds: float = 240) -> Ended:
    """Run a command undisturbed."""
    return Command(words, folder).start().wait(seconds)


def with_jumping_clock(seed: int) -> list[str]:
    """The words that start golfcore beside a wall clock that jumps."""
    return [sys.executable, "-P", str(HERE / "jumping_clock.py"), str(seed)]


def small_disk(folder: Path, room: int) -> list[str] | None:
    """The words that start a program on a disk of its own, with ``room`` bytes free, in the place of ``folder``.

    None where this user may mount nothing.
    """
    name = shutil.which("unshare")
    for options in ("-m", "-Urm"):
        if (
            name
            and subprocess.run(
                [name, options, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
            ).returncode
            == 0
        ):
            return [name, options, sys.executable, "-P", str(HERE / "small_disk.py"), str(folder), str(room)]
    return None
