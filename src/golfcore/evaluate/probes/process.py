"""Run a stranger's scorer file in a process of its own, in an empty folder, and ask it through a pipe.

The file is executed there and nowhere else; answers are read as JSON, never as code. The process gets no variables of
ours but those that find programs and set threads. ``golfcore.evaluate.serve`` is its program.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from golfcore.errors import InputError
from golfcore.evaluate.probes.phases import Surroundings
from golfcore.evaluate.probes.scorer import Entry, Floats, Scorer, Tokens
from golfcore.processes import ended, python_command

Answer = TypeVar("Answer")
ANSWER_S = 600.0  # the longest that one answer may take
MOST_TOKENS = 1 << 20  # of a vocabulary
MOST_BYTES = 64 << 20  # of an answer
KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "VIRTUAL_ENV", "SYSTEMROOT")
KEPT_BEGINNINGS = ("OMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "GOLF_ISA", "ATEN_CPU")


class ScorerProcess:
    """A scorer file that runs in another process.

    Attributes:
        scorer: what the file offers.
        load_s: seconds from the start of the process until the file was executed.
    """

    def __init__(self, process: subprocess.Popen[bytes], name: str, said: IO[bytes]) -> None:
        self._process, self._name, self._said = process, name, said
        self._rest = b""
        began = time.perf_counter()
        names = self._asked("load", None, lambda found: {str(key) for key in found})
        self.load_s = time.perf_counter() - began
        if missing := {"vocab_size", "score"} - names:
            raise InputError(f"{name} defines no {' and no '.join(sorted(missing))}; expected vocab_size and score")
        size = self._asked("vocab_size", None, int)
        if not 2 <= size <= MOST_TOKENS:
            raise InputError(f"{name}: vocab_size is {size}; expected a whole number from 2 to {MOST_TOKENS}")

        def optional(word: str, convert: Callable[[Any], Answer]) -> Callable[[Any], Answer] | None:
            return self._function(word, convert) if word in names else None

        self.scorer = Scorer(
            size, self._function("score", _floats), predict=optional("predict", _floats),
            ledger=optional("ledger", lambda found: [Entry(int(a), int(b), str(state)) for a, b, state in found]),
            byte_counts=optional("byte_counts", lambda found: np.array(found, np.int64)),
            decode=optional("decode", bytes.fromhex),
            encode=optional("encode", lambda found: _ids(found, size)),
        )  # fmt: skip

    def surroundings(self) -> Surroundings:
        """Return what the process could reach and did reach up to now."""
        return self._asked(
            "surroundings", None,
            lambda found: Surroundings(bool(found[0]), tuple(map(str, found[1])), tuple(map(str, found[2]))),
        )  # fmt: skip

    def _function(self, name: str, convert: Callable[[Any], Answer]) -> Callable[[Any], Answer]:
        def call(argument: Any) -> Answer:
            plain = argument.hex() if isinstance(argument, bytes) else argument.tolist()
            return self._asked(name, plain, convert)

        return call

    def _asked(self, name: str, argument: Any, convert: Callable[[Any], Answer]) -> Answer:
        """Ask one question; whatever comes back is a value of the right kind, or one line of an InputError."""
        pipe = self._process.stdin
        try:
            if pipe is not None:
                pipe.write(json.dumps([name, argument]).encode() + b"\n")
                pipe.flush()
        except BrokenPipeError as error:
            raise self._broken() from error
        try:
            answer = json.loads(self._line(name))
            value, problem = answer["value"], answer["error"]
            if not problem:
                return convert(value)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError) as error:
            raise InputError(f"{self._name}: {name} gave an answer of the wrong kind ({error})") from error
        raise InputError(f"{self._name}: {name} failed: {problem}")

    def _line(self, what: str) -> bytes:
        pipe, until = self._process.stdout, time.monotonic() + ANSWER_S
        while b"\n" not in self._rest and pipe is not None:
            ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise InputError(f"{self._name}: {what} gave no answer in {ANSWER_S:.0f} s")
            part = os.read(pipe.fileno(), 1 << 20)
            if not part:
                raise self._broken()
            self._rest += part
            if len(self._rest) > MOST_BYTES:
                raise InputError(f"{self._name}: {what} gave an answer above {MOST_BYTES >> 20} MiB")
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _broken(self) -> InputError:
        code = self._process.wait()
        self._said.seek(0)
        last = self._said.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
        return InputError(f"{self._name}: its process {ended(code)}" + (f": {last[-1][:300]}" if last else ""))


def _floats(found: Any) -> Floats:
    return np.array(found, np.float64)


def _ids(found: Any, vocab_size: int) -> Tokens:
    ids = np.array(found, np.int64)
    if ids.ndim != 1 or (ids.size and not 0 <= ids.min() <= ids.max() < vocab_size):
        raise ValueError(f"tokens outside of 0 to {vocab_size - 1}")
    return ids


@contextmanager
def scorer_process(file: Path, beside: Sequence[Path] = ()) -> Iterator[ScorerProcess]:
    """Copy a scorer file into an empty folder, and execute it there in a process that ends with the block.

    Args:
        file: a Python file with ``vocab_size`` and ``score`` (docs/guides/evaluation.md).
        beside: files that it reads, which are copied beside it.

    Raises:
        InputError: the file cannot be read or executed, or lacks a name.
    """
    with tempfile.TemporaryDirectory(prefix="golfcore-probe-") as name, tempfile.TemporaryFile() as said:
        folder = Path(name).resolve()
        for path in (file, *beside):
            try:
                shutil.copyfile(path, folder / path.name)
            except OSError as error:
                raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        process = subprocess.Popen(
            [*python_command("golfcore.evaluate.serve"), file.name], cwd=folder, env=_environment(folder),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            yield ScorerProcess(process, file.name, said)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # its own session: nothing else is in the group
            process.communicate()


def _environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key in KEPT or key.startswith(KEPT_BEGINNINGS)}
    home = str(folder)
    return kept | {"HOME": home, "TMPDIR": home, "XDG_CACHE_HOME": home, "GOLFCORE_CACHE": f"{home}/cache"}
