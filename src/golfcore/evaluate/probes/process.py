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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from golfcore.errors import InputError
from golfcore.evaluate.probes.phases import Surroundings
from golfcore.evaluate.probes.scorer import Entry, Floats, Scorer, Tokens
from golfcore.processes import ended, python_command

ANSWER_S = 600.0  # the longest that one answer may take
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
        names = set(self._ask({"call": "load"})["names"])
        self.load_s = time.perf_counter() - began
        if missing := {"vocab_size", "score"} - names:
            raise InputError(f"{name} defines no {' and no '.join(sorted(missing))}; expected vocab_size and score")
        self.scorer = Scorer(
            self._vocab_size(), self._score,
            predict=self._predict if "predict" in names else None,
            ledger=self._ledger if "ledger" in names else None,
            byte_counts=self._byte_counts if "byte_counts" in names else None,
            decode=self._decode if "decode" in names else None,
            encode=self._encode if "encode" in names else None,
        )  # fmt: skip

    def surroundings(self) -> Surroundings:
        """Return what the process could reach and did reach up to now."""
        found = self._ask({"call": "surroundings"})
        return Surroundings(found["network"], tuple(found["opened"]), tuple(found["called"]))

    def _vocab_size(self) -> int:
        size = self._ask({"call": "vocab_size"})["value"]
        if type(size) is not int or not 2 <= size <= 1 << 20:
            raise InputError(f"{self._name}: vocab_size is {size!r}; expected a whole number from 2 to 1048576")
        return size

    def _score(self, tokens: Tokens) -> Floats:
        return self._floats("score", tokens)

    def _predict(self, tokens: Tokens) -> Floats:
        return self._floats("predict", tokens)

    def _ledger(self, tokens: Tokens) -> list[Entry]:
        lines = self._called("ledger", tokens.tolist())
        try:
            return [Entry(int(first), int(last), str(state)) for first, last, state in lines]
        except (TypeError, ValueError) as error:
            raise InputError(f"{self._name}: ledger gave no list of [first token, last token, state]") from error

    def _byte_counts(self, tokens: Tokens) -> Tokens:
        return np.asarray(self._called("byte_counts", tokens.tolist()), np.int64)

    def _decode(self, tokens: Tokens) -> bytes:
        return bytes.fromhex(self._called("decode", tokens.tolist()))

    def _encode(self, text: bytes) -> Tokens:
        return np.asarray(self._called("encode", text.hex()), np.int64)

    def _floats(self, name: str, tokens: Tokens) -> Floats:
        return np.asarray(self._called(name, tokens.tolist()), np.float64)

    def _called(self, name: str, argument: Any) -> Any:
        return self._ask({"call": name, "argument": argument})["value"]

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        pipe = self._process.stdin
        try:
            if pipe is not None:
                pipe.write(json.dumps(question).encode() + b"\n")
                pipe.flush()
        except BrokenPipeError as error:
            raise self._broken() from error
        try:
            answer = json.loads(self._line(str(question["call"])))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self._name}: {question['call']} gave an answer that is no JSON") from error
        if not isinstance(answer, dict) or "error" in answer:
            reason = answer.get("error") if isinstance(answer, dict) else answer
            raise InputError(f"{self._name}: {question['call']} failed: {reason}")
        return answer

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
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _broken(self) -> InputError:
        code = self._process.wait()
        self._said.seek(0)
        last = self._said.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
        return InputError(f"{self._name}: its process {ended(code)}" + (f": {last[-1][:300]}" if last else ""))


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
