"""The journal of a sweep: an SQLite file with the state and result of every job.

Each change is a transaction, so a process that is killed leaves a consistent journal. The journal cannot know whether a
run that it lists as running still runs; the lock of ``worker`` tells.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from golfcore.errors import FormatError, MachineError
from golfcore.sweep.spec import Job

State = Literal["waiting", "running", "done", "stopped", "failed"]
ENDED: tuple[State, ...] = ("done", "stopped", "failed")
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, variant TEXT NOT NULL, sets TEXT NOT NULL, seed INTEGER NOT NULL,
    trial INTEGER, state TEXT NOT NULL, slot INTEGER, remote TEXT, attempts INTEGER NOT NULL DEFAULT 0,
    result TEXT, note TEXT NOT NULL DEFAULT '', began REAL, ended REAL
);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A job in the journal; ``remote`` is its id at a scheduler, ``trial`` the number of its trial in a search."""

    id: int
    job: Job
    state: State
    slot: int | None
    remote: str | None
    attempts: int
    trial: int | None
    result: dict[str, Any] | None
    note: str
    began: float | None
    ended: float | None


class Queue:
    """The journal at ``path``, made if it does not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_TABLES)
        except (OSError, sqlite3.OperationalError) as error:
            raise MachineError(f"cannot open the sweep's journal {path}: {error}") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise FormatError(f"{path} is not a sweep's journal ({error}): choose another folder") from error

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _change(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                with contextlib.suppress(sqlite3.OperationalError):  # a full disk has rolled it back already
                    self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                raise MachineError(f"cannot write the sweep's journal {self.path}: {error}") from error
            if isinstance(error, (sqlite3.DatabaseError, UnicodeDecodeError)) and not isinstance(
                error,
                sqlite3.IntegrityError,  # of what is written, not of the file
            ):
                raise self._damaged(error) from error
            raise

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            if "UTF-8" in str(error):
                raise self._damaged(error) from error
            raise MachineError(f"cannot read the sweep's journal {self.path}: {error}") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> FormatError:
        return FormatError(f"{self.path} is a damaged journal ({error}): restore it, or choose another folder")

    def meta(self, key: str) -> str | None:
        row = next(iter(self._rows("SELECT value FROM meta WHERE key = ?", key)), None)
        return None if row is None else str(row[0])

    def begin(self, spec: str, jobs: Iterable[Job]) -> None:
        """Write the spec and the jobs of a new sweep, both or neither."""
        with self._change():
            self._db.execute("INSERT INTO meta VALUES ('spec', ?)", (spec,))
            self._insert(jobs, None)

    def add(self, jobs: Iterable[Job], trial: int) -> None:
        """Add further jobs of a trial of a search, all of them or none."""
        with self._change():
            self._insert(jobs, trial)

    def _insert(self, jobs: Iterable[Job], trial: int | None) -> None:
        self._db.executemany(
            "INSERT INTO jobs (name, variant, sets, seed, trial, state) VALUES (?, ?, ?, ?, ?, 'waiting')",
            [(job.name, job.variant, json.dumps(job.sets), job.seed, trial) for job in jobs],
        )

    def entries(self) -> list[Entry]:
        """Return every job, in the order in which they were added."""
        rows = self._rows(
            "SELECT id, name, variant, sets, seed, state, slot, remote, attempts, trial, result, note, began, ended "
            "FROM jobs ORDER BY id"
        )
        try:
            return [
                Entry(
                    id=row[0], job=Job(row[1], row[2], tuple(json.loads(row[3])), row[4]), state=row[5], slot=row[6],
                    remote=row[7], attempts=row[8], trial=row[9],
                    result=None if row[10] is None else json.loads(row[10]),
                    note=row[11], began=row[12], ended=row[13],
                )
                for row in rows
            ]  # fmt: skip
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged(error) from error

    def start(self, job_id: int, slot: int) -> None:
        """Mark a waiting job as running; call this before its process starts, so that every process has a mark."""
        with self._change():
            self._db.execute(
                "UPDATE jobs SET state = 'running', slot = ?, remote = NULL, attempts = attempts + 1, "
                "began = COALESCE(began, ?) WHERE id = ? AND state = 'waiting'",
                (slot, time.time(), job_id),
            )

    def hand_over(self, job_id: int, remote: str) -> None:
        """Keep the scheduler's id of a running job."""
        with self._change():
            self._db.execute("UPDATE jobs SET remote = ? WHERE id = ? AND state = 'running'", (remote, job_id))

    def again(self, job_id: int, note: str) -> None:
        """Put a running job back into the queue."""
        with self._change():
            self._db.execute(
                "UPDATE jobs SET state = 'waiting', slot = NULL, remote = NULL, note = ? "
                "WHERE id = ? AND state = 'running'",
                (note, job_id),
            )

    def retry_failed(self) -> None:
        """Put every job that failed back into the queue."""
        with self._change():
            self._db.execute("UPDATE jobs SET state = 'waiting', result = NULL, ended = NULL WHERE state = 'failed'")

    def end(self, job_id: int, state: State, result: dict[str, Any] | None, note: str = "") -> None:
        """Write the result of a running job; a job ends only once."""
        with self._change():
            self._db.execute(
                "UPDATE jobs SET state = ?, result = ?, note = ?, slot = NULL, ended = ? "
                "WHERE id = ? AND state = 'running'",
                (state, None if result is None else json.dumps(result), note, time.time(), job_id),
            )
