"""Coverage-guided fuzzing of every parser in Python, without any package beside golfcore's own.

    python tests/fuzz/guided.py --seconds 3600 [--seed 1] [PARSER ...]      (make fuzz SECONDS=3600)

Each parser runs in a process of its own, so that a crash of a library ends that process alone: the input lies in
build/fuzz/PARSER, beside every other finding. An input that reaches a line from a line it was not reached from before
joins the corpus, tests/fuzz/corpus/PARSER, which is minimized in the end; the suite replays it.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import golfcore
from golfcore.errors import GolfError

ROOT = Path(__file__).parent
CORPUS = ROOT / "corpus"
FOUND = ROOT.parent.parent / "build" / "fuzz"
SOURCES = str(Path(golfcore.__file__).parent)
MAX_BYTES = 1 << 15  # of an input
MAX_SECONDS = 10  # that one input may take
MAX_MEMORY = 500 << 20  # bytes by which one input may raise the process's peak
ROOM = 2 << 30  # bytes of address space beyond what the process has at its start
RECENT = 24  # inputs that are mutated as often as all others together

Edge = tuple[str, int, int]  # a file, and two lines of it


@dataclass(frozen=True)
class Parser:
    """A parser under test.

    Attributes:
        feed: parses the bytes, using an empty folder; raises GolfError to refuse them; returns False if they are no
            input at all.
        seeds: inputs to begin with, by name; most are accepted.
        words: pieces that mean something to the parser.
    """

    feed: Callable[[bytes, Path], object]
    seeds: Callable[[], dict[str, bytes]]
    words: tuple[bytes, ...] = ()


class FaultError(AssertionError):
    """Raised for an outcome that is neither a result nor one GolfError of one line, in bounded time and memory."""


def accepts(parser: Parser, data: bytes, folder: Path) -> bool:
    """Feed one input, with a clock and limits; return whether it was accepted.

    Raises:
        FaultError: any outcome that no parser may have.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins at what the process has now
    before = _peak()
    try:
        with _limited():
            accepted = parser.feed(data, folder) is not False
    except GolfError as error:
        text = str(error)
        if not text.isprintable() or len(text) > 2000 + 8 * len(data):
            raise FaultError(f"message of {len(text)} characters, or not one printable line: {text!r:.300}") from error
        accepted = False
    except FaultError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise FaultError(f"{type(error).__name__}: {error!s:.300}") from error
    if (grown := _peak() - before) > MAX_MEMORY:
        raise FaultError(f"an input of {len(data)} bytes took {grown >> 20} MiB of memory")
    return accepted


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10


class LateError(BaseException):
    """Raised inside of a parser that takes too long; no parser catches it."""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raise LateError in the block if it takes longer than ``MAX_SECONDS``."""

    def late(number: int, frame: FrameType | None) -> None:
        raise LateError(f"not done after {MAX_SECONDS} s")

    old = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


class Coverage:
    """The pairs of lines of golfcore that were run one after the other inside a ``with`` block."""

    def __init__(self) -> None:
        self.hit: set[Edge] = set()
        self._own: dict[str, bool] = {}

    def __enter__(self) -> Coverage:
        self.hit = set()
        sys.settrace(self._call)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        file = frame.f_code.co_filename
        own = self._own.get(file)
        if own is None:
            own = self._own[file] = file.startswith(SOURCES)
        if not own:
            return None
        hit, last = self.hit, 0

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            if event == "line":
                hit.add((file, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line


NUMBERS = [b"0", b"1", b"-1", b"255", b"256", b"65536", b"2147483647", b"2147483648", b"4294967296", b"1000000000"]
NUMBERS += [b"-9223372036854775809", b"18446744073709551616", b"1" + b"0" * 40, b"1e999", b"-1e308", b"0.5", b"1e-320"]
BINARY = [
    n.to_bytes(size, "little") for size in (2, 4, 8) for n in (0, 1, 255, (1 << 8 * size - 1) - 1, (1 << 8 * size) - 1)
]


def mutated(pool: Sequence[bytes], words: Sequence[bytes], rng: random.Random) -> bytes:
    """One to six random edits of an input, half of the time of a recent one."""
    data = bytearray(rng.choice(pool[-RECENT:] if rng.random() < 0.5 else pool))
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(10):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del data[at : at + rng.choice((1, 2, 4, 8, 32))]
            case 3:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            case 4:
                other = rng.choice(pool)
                start = rng.randrange(len(other) + 1)
                data[at:at] = other[start : start + rng.randint(1, 64)]
            case 5:
                number = rng.choice(BINARY)
                data[at : at + len(number)] = number
            case 6 if words:
                word = rng.choice(words)
                data[at : at + rng.choice((0, 0, 1, len(word)))] = word
            case 7:
                _replace_number(data, at, rng)
            case 8:
                piece = bytes(data[at : at + rng.randint(1, 64)])
                data[at:at] = piece * rng.choice((1, 2, 50))
            case _:
                if rng.random() < 0.2:
                    del data[at:]
    return bytes(data[:MAX_BYTES])


def _replace_number(data: bytearray, at: int, rng: random.Random) -> None:
    """Replace the first decimal number after ``at``, or else the first of all."""
    digits = b"0123456789"
    places = [i for i in (*range(at, len(data)), *range(at)) if data[i] in digits][:1]
    for start in places:
        end = start
        while end < len(data) and data[end] in digits + b".e":
            end += 1
        data[start:end] = rng.choice(NUMBERS)


@dataclass
class Fuzzer:
    """The search of one parser."""

    parser: Parser
    folder: Path
    rng: random.Random
    pool: list[bytes] = field(default_factory=list)
    seen: set[Edge] = field(default_factory=set)
    faults: dict[str, tuple[bytes, str]] = field(default_factory=dict)  # by what they have in common
    runs: int = 0

    def __post_init__(self) -> None:
        self._coverage = Coverage()
        self._current = self.folder / "input"
        self._work = self.folder / "work"

    def run(self, data: bytes) -> set[Edge]:
        """Feed one input and return what it covered; a fault is kept."""
        self._current.write_bytes(data)  # what remains if the process dies
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        self.runs += 1
        faulthandler.dump_traceback_later(6 * MAX_SECONDS, exit=True)  # if it does not listen to LateError
        try:
            with self._coverage:
                accepted = accepts(self.parser, data, self._work)
            self._coverage.hit.add(("accepted", accepted, 0))
        except FaultError as fault:
            text = "".join(traceback.format_exception(fault))
            kind = _kind(fault)
            if kind not in self.faults or len(data) < len(self.faults[kind][0]):
                self.faults[kind] = data, text
        finally:
            faulthandler.cancel_dump_traceback_later()
        return self._coverage.hit

    def add(self, data: bytes) -> None:
        """Feed one input and keep it if it covers something new."""
        if new := self.run(data) - self.seen:
            self.seen |= new
            self.pool.append(data)

    def search(self, seconds: float) -> None:
        """Mutate the pool for some seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.add(mutated(self.pool or [b""], self.parser.words, self.rng))

    def minimized(self, seconds: float) -> list[bytes]:
        """Return few and short inputs that cover all that the pool covers; shorten them for so many seconds at most."""
        self._until = time.monotonic() + seconds
        kept: list[bytes] = []
        seen: set[Edge] = set()
        for data in sorted(self.pool, key=lambda data: (len(data), data)):
            new = self.run(data) - seen
            if new:
                kept.append(self._shortened(data, new))
                seen |= new
        return kept

    def _shortened(self, data: bytes, covers: set[Edge]) -> bytes:
        """Drop pieces of an input as long as it covers the same."""
        size = len(data) // 2
        while size:
            at = 0
            while at < len(data) and time.monotonic() < self._until:
                shorter = data[:at] + data[at + size :]
                if covers <= self.run(shorter):
                    data = shorter
                else:
                    at += size
            size //= 4
        return data


def _kind(fault: FaultError) -> str:
    """Return what a fault is known by: its cause's class, and the last place in golfcore."""
    cause = fault.__cause__ or fault
    places = [f for f in traceback.extract_tb(cause.__traceback__) if f.filename.startswith(SOURCES)]
    where = f"{Path(places[-1].filename).name}-{places[-1].lineno}" if places else "nowhere"
    return f"{type(cause).__name__}-{where}"


def fuzz_here(name: str, parser: Parser, seconds: float, seed: int, folder: Path) -> None:
    """Fuzz in this process; write the corpus and the faults."""
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (space + ROOM, resource.RLIM_INFINITY))
    fuzzer = Fuzzer(parser, folder, random.Random(f"{seed} {name}"))
    corpus = CORPUS / name
    kept = [path.read_bytes() for path in sorted(corpus.glob("*"))]
    begun = time.monotonic()
    for data in [*parser.seeds().values(), *kept]:
        fuzzer.add(data)
    first = len(fuzzer.seen)
    fuzzer.search(seconds - (time.monotonic() - begun))
    runs, took = fuzzer.runs, time.monotonic() - begun
    smallest = fuzzer.minimized(seconds / 4)
    shutil.rmtree(corpus, ignore_errors=True)
    corpus.mkdir(parents=True)
    for data in smallest:
        (corpus / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    for kind, (data, text) in fuzzer.faults.items():
        _keep(name, kind, data, text)
    size = sum(map(len, smallest))
    print(
        f"{name}: {took:.0f} s, {runs:,} runs, {first:,} to {len(fuzzer.seen):,} pairs of lines, corpus of "
        f"{len(smallest)} inputs in {size:,} bytes, {len(fuzzer.faults)} faults", flush=True,
    )  # fmt: skip


def _keep(name: str, kind: str, data: bytes, text: str) -> None:
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / kind).write_bytes(data)
    (folder / f"{kind}.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
    print(f"fault of {name}: {folder / kind}: {text.strip().splitlines()[-1]:.200}", flush=True)


def fuzz_alone(name: str, seconds: float, seed: int) -> int:
    """Fuzz in a new process, begun again on another seed if it dies; return the number of faults."""
    shutil.rmtree(FOUND / name, ignore_errors=True)
    begun = time.monotonic()
    for attempt in range(20):
        left = seconds - (time.monotonic() - begun)
        if attempt and left < 1:
            break
        with tempfile.TemporaryDirectory(dir=_memory_folder()) as folder:
            command = [sys.executable, __file__, "--here", folder, "--seconds", str(max(left, 1.0))]
            code = subprocess.run([*command, "--seed", str(seed + attempt), name], check=False).returncode
            if not code:
                break
            current = Path(folder) / "input"
            data = current.read_bytes() if current.exists() else b""
            _keep(name, f"death-{hashlib.sha256(data).hexdigest()[:8]}", data, f"the process ended with {code}")
    return len(list((FOUND / name).glob("*.txt")))


def _memory_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main() -> int:
    from parsers import PARSERS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="PARSER", help=", ".join(PARSERS))
    parser.add_argument("--seconds", type=float, default=60, help="for each parser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.names) - set(PARSERS):
        parser.error(f"unknown: {', '.join(unknown)}; expected {', '.join(PARSERS)}")
    if options.here:
        [name] = options.names
        fuzz_here(name, PARSERS[name], options.seconds, options.seed, options.here)
        return 0
    faults = sum(fuzz_alone(name, options.seconds, options.seed) for name in options.names or PARSERS)
    print(f"{faults} faults" + (f"; their inputs are in {FOUND}" if faults else ""))
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
