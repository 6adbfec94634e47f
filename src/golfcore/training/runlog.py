"""Write the records of a run into its folder: log.txt, metrics.jsonl, ledger.json and env.json.

log.txt holds lines in the contest's form, so that tools for the contest's logs can read it; metrics.jsonl holds the
same numbers unrounded. A resumed run goes on in the same files; no step occurs twice in metrics.jsonl.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from golfcore import machine
from golfcore.errors import FormatError, GolfError, InputError, RuleError
from golfcore.paths import atomic_write, disk_is_full, write_failure
from golfcore.printing import printable
from golfcore.ranges import COUNT, SECONDS, shown
from golfcore.run_folder import ENV, LEDGER, LOG, METRICS

MAX_PENDING = 16 << 20  # bytes of lines kept in memory while the disk is full


def train_line(step: int, total: int, loss: float, train_ms: float) -> str:
    """Return ``step:200/20000 train_loss:2.3456 train_time:8712ms step_avg:43.56ms``; ``loss`` in nats per token."""
    return f"step:{step}/{total} train_loss:{loss:.4f} {_clock(step, train_ms)}"


def val_line(step: int, total: int, loss: float, bpb: float, train_ms: float) -> str:
    """Return ``step:1000/20000 val_loss:2.2071 val_bpb:1.3072 train_time:43560ms step_avg:43.56ms``."""
    return f"step:{step}/{total} val_loss:{loss:.4f} val_bpb:{bpb:.4f} {_clock(step, train_ms)}"


def _clock(step: int, train_ms: float) -> str:
    return f"train_time:{train_ms:.0f}ms step_avg:{train_ms / max(step, 1):.2f}ms"


def stopping_early(step: int, total: int, train_ms: float) -> str:
    """Return ``stopping_early: wallclock_cap train_time:599981ms step:13780/20000``."""
    return f"stopping_early: wallclock_cap train_time:{train_ms:.0f}ms step:{step}/{total}"


def peak_memory(allocated: int, reserved: int) -> str:
    """Return ``peak memory allocated: 10184 MiB reserved: 10200 MiB``; the arguments are in bytes."""
    return f"peak memory allocated: {allocated // 2**20} MiB reserved: {reserved // 2**20} MiB"


def size_lines(code: int, total: int, codec: str) -> tuple[str, str]:
    """Return ``Code size: 47642 bytes`` and ``Total submission size <codec>: 15863489 bytes``."""
    return f"Code size: {code} bytes", f"Total submission size {codec}: {total} bytes"


def final_line(loss: float, bpb: float, codec: str) -> str:
    """Return ``final_<codec>_roundtrip_exact val_loss:2.07269931 val_bpb:1.22436570``.

    It is the line that the contest's tools look for. ``codec`` names how the scored weights were coded, such as
    ``int6_rans``; the contest's baseline has ``int8_zlib``.
    """
    return f"final_{codec}_roundtrip_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}"


@dataclass(slots=True)
class Phase:
    """A row of ledger.json. ``complete`` stays False if the run was interrupted within the phase."""

    phase: str
    seconds: float
    budget_s: float | None
    complete: bool = False


class RunLog:
    """A writer of a run's records; on every rank but the primary one it does nothing.

    Args:
        run_dir: the run's folder, made if it does not exist; a log, metrics and ledger in it are continued.
        primary: whether this process is the one that writes.
        echo: also called with each line of the log; as these lines show progress, it should print to standard error.
        resume_step: the step from which the run goes on; metric rows after it are dropped, since they will come again.

    Raises:
        InputError: the folder cannot be written.
        FormatError: an earlier metrics.jsonl or ledger.json is damaged.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        primary: bool,
        echo: Callable[[str], None] | None = None,
        resume_step: int | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.primary = primary
        self._echo = echo
        self._ledger: list[Phase] = []
        self._log: _Appender | None = None
        self._metrics: _Appender | None = None
        self._shown: set[str] = set()
        if not primary:
            return
        resumed = (run_dir / METRICS).exists()
        if resumed:
            self._ledger = [Phase(**row) for row in read_ledger(run_dir / LEDGER)]
            _keep_until(run_dir / METRICS, resume_step)
        self._write_env(resumed)
        self._log, self._metrics = _Appender(run_dir / LOG), _Appender(run_dir / METRICS)
        if resumed and resume_step is not None:
            self.line(f"resumed step:{resume_step}")

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, GolfError):
            self.line(f"error: {error}")
        self.close()

    def close(self) -> None:
        """Close the files; closing twice is allowed."""
        for f in (self._log, self._metrics):
            if f is not None:
                f.close()
        self._log = self._metrics = None

    def line(self, text: str) -> None:
        """Add a line to log.txt and echo it; a newline in a name of the user's is written escaped."""
        text = printable(text)
        if self._log is not None:
            self._log.line(text)
            if self._echo is not None:
                self._echo(text)

    def warn(self, text: str) -> None:
        """Add a warning to log.txt, and show it on standard error where the log's lines are not shown.

        Use it for what costs work unless somebody acts. The same warning is shown once.
        """
        self.line(f"warning: {text}")
        if self._log is not None and self._echo is None and text not in self._shown:
            self._shown.add(text)
            print(f"warning: {text}", file=sys.stderr, flush=True)

    def train(
        self, step: int, total: int, *, loss: float, train_s: float, tokens: int, lr_mult: float, step_ms: float
    ) -> None:
        """Record a training step.

        Args:
            step: number of steps done.
            total: number of steps planned.
            loss: training loss in nats per token.
            train_s: seconds on the training clock, which stands still during validation.
            tokens: tokens trained on so far.
            lr_mult: the schedule's factor on every learning rate.
            step_ms: milliseconds of the last step alone.
        """
        self.line(train_line(step, total, loss, 1000 * train_s))
        self._row(
            kind="train", step=step, train_loss=loss, train_s=train_s, tokens=tokens, lr_mult=lr_mult, step_ms=step_ms
        )

    def val(self, step: int, total: int, *, loss: float, bpb: float, train_s: float) -> None:
        """Record a validation: ``loss`` in nats per token, ``bpb`` in bits per byte."""
        self.line(val_line(step, total, loss, bpb, 1000 * train_s))
        self._row(kind="val", step=step, val_loss=loss, val_bpb=bpb, train_s=train_s)

    def _row(self, **values: Any) -> None:
        if self._metrics is not None:
            # JSON has no NaN: a diverged loss is null.
            finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
            self._metrics.line(json.dumps(finite))

    @contextmanager
    def phase(
        self, name: str, budget_s: float | None = None, *, spent_s: float | None = None
    ) -> Iterator[Phase]:  # fmt: skip
        """Time a phase of the run and write it into ledger.json.

        The phase is written when it begins and when it ends, however it ends. Set ``seconds`` of the yielded row within
        the block if another clock than the wall clock counts, as in training. A phase that occurs again, here or in
        the run that this one resumes, adds to its first row.

        Args:
            name: of the phase.
            budget_s: seconds that it may take; None for no limit.
            spent_s: seconds that count before this block: 0 if the work of an earlier attempt is discarded; default:
                all that the row holds.
        """
        row = next((p for p in self._ledger if p.phase == name), None)
        if row is None:
            row = Phase(name, 0.0, budget_s)
            self._ledger.append(row)
        row.budget_s, row.complete = budget_s, False
        row.seconds = row.seconds if spent_s is None else spent_s
        self._write_ledger()
        before, start = row.seconds, time.monotonic()
        try:
            yield row
            row.complete = True
        finally:
            if row.seconds == before:
                row.seconds = before + time.monotonic() - start
            self._write_ledger()

    def _write_ledger(self) -> None:
        if not self.primary:
            return
        try:
            _write_json(self.run_dir / LEDGER, [asdict(row) for row in self._ledger])
        except InputError as error:
            if not isinstance(error.__cause__, OSError) or not disk_is_full(error.__cause__):
                raise
            self.warn(f"{error}; the phases are written when there is room")

    def _write_env(self, resumed: bool) -> None:
        path = self.run_dir / ENV
        values = machine.environment()
        if resumed and "started" in (first := read_json(path, dict)):
            values |= {"started": first["started"], "resumed": values["started"]}
        _write_json(path, values)


class KeptLog(RunLog):
    """A log that writes nothing and keeps its lines, for trainings that are no runs."""

    def __init__(self) -> None:
        super().__init__(Path(), primary=False)
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def value(self, name: str) -> str:
        """Return the rest of the first line that begins with ``name:``; an empty string if there is none."""
        return next((line.partition(":")[2].strip() for line in self.lines if line.startswith(f"{name}:")), "")


class _Appender:
    """A file to which whole lines are appended, each written at once.

    A run that is killed leaves at most one torn line, its last. If the disk is full, lines are kept in memory and
    written when there is room: a full disk does not end a run.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._pending = path, bytearray()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise InputError(write_failure(path, error)) from error

    def line(self, text: str) -> None:
        self._pending += text.encode("utf-8", errors="replace") + b"\n"
        try:
            while self._pending:
                del self._pending[: self._file.write(self._pending)]
        except OSError as error:
            if not disk_is_full(error) or len(self._pending) > MAX_PENDING:
                raise InputError(write_failure(self._path, error)) from error

    def close(self) -> None:
        """Close the file; lines for which there is still no room are lost."""
        with contextlib.suppress(OSError):
            self._file.write(self._pending)
        self._file.close()


def _write_json(path: Path, value: object) -> None:
    with atomic_write(path, "w") as f:
        json.dump(value, f, indent=1)
        f.write("\n")


def _keep_until(path: Path, step: int | None) -> None:
    """Rewrite metrics.jsonl without a torn last line and, if ``step`` is given, without the rows after it."""
    rows = read_metrics(path)
    with atomic_write(path, "w") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows if step is None or row["step"] <= step)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a metrics.jsonl, oldest first; none if there is no file, and without a torn last line.

    Raises:
        FormatError: a line other than the last is not a metric row.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if row["kind"] not in ("train", "val") or row["step"] not in COUNT:
                raise ValueError(f"kind {row['kind']!r:.40}, step {shown(row['step'])}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if number == len(lines) and not line.endswith(b"\n"):
                break
            raise FormatError(
                f"{path}, line {number}: expected a JSON row with kind train or val and a step ({error}); "
                "remove the line, or the file if there are many"
            ) from error
        rows.append(row)
    return rows


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a ledger.json, each with every key of ``Phase``; none if there is no file.

    Raises:
        FormatError: the file is not a list of phases.
    """
    rows = read_json(path, list)
    result = []
    for row in rows:
        try:
            budget = row.get("budget_s")
            phase = Phase(
                phase=str(row["phase"]),
                seconds=float(row["seconds"]),
                budget_s=None if budget is None else float(budget),
                complete=bool(row.get("complete", True)),
            )
            if phase.seconds not in SECONDS or (phase.budget_s or 0.0) not in SECONDS:
                raise ValueError(str(SECONDS))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            found = shown(row)[:200]
            raise FormatError(f"{path}: expected phases with seconds and budget_s, found {found}") from error
        result.append(asdict(phase))
    return result


def budget_use(ledger: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    """Return the seconds of training and of evaluation, as a track counts them.

    All work that reads training data and changes the model, also calibration, has to be timed as phase ``train``.

    Raises:
        RuleError: a phase was interrupted, or training or evaluation is missing: such a run proves nothing.
    """
    rows = {row["phase"]: row for row in ledger}
    for name in ("train", "evaluate"):
        if name not in rows:
            raise RuleError(f"the ledger has no phase {name!r}, only {', '.join(rows) or 'none'}; run all stages")
    for name, row in rows.items():
        if not row["complete"]:
            raise RuleError(f"phase {name!r} of the ledger was cut off after {row['seconds']:.1f} s; resume the run")
    return rows["train"]["seconds"], rows["evaluate"]["seconds"]


def read_json(path: Path, kind: type) -> Any:
    """Read the JSON document at ``path``; an empty ``kind`` (dict or list) if there is no such file.

    Raises:
        FormatError: the file is not JSON, or its top is not a ``kind``.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return kind()
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not a JSON document ({error}); remove it or restore it") from error
    if not isinstance(value, kind):
        raise FormatError(f"{path}: expected a JSON {'object' if kind is dict else 'list'}, found {value!r:.80}")
    return value
