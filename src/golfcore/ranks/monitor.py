"""Failure detection for distributed runs: find the rank that died, hangs or is slow, and tell all others.

A collective cannot do it: a rank that waits for a dead one waits for ever. So each rank has a thread that reports the
state of its main thread to rank 0 once per second, over its own connection. There are three cases. If a process is
killed, the kernel closes its connection. If it is stopped, or its machine or link is gone, its reports stop. If its
main thread makes no progress, its reports say so. Rank 0 tells all ranks which rank is lost and why. Each then leaves
by an exception at its next collective or, if its main thread cannot be reached, by ending the process.

A rank without progress counts as hung only if its process uses no processor time either: one long call of the compiled
core sends no heartbeat but computes, so it gets more time.

Seconds are counted in ticks of the thread. So a suspended machine, or a clock that was set, does not look like a rank
that is late.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from golfcore.errors import RankError
from golfcore.ranks.peers import Hub, Spoke
from golfcore.ranks.ticks import Ticks
from golfcore.ranks.verdict import Limits, Pulse

WORKING = 0.05  # of a processor: less is what waiting costs


class Monitor:
    """The monitor of this rank. ``join_world`` makes it; ``close`` ends it.

    Args:
        rank, size: this rank and the number of ranks.
        limits: limits beyond which a rank counts as lost.
        address: ``(host, port)`` of rank 0; on rank 0 the port may be 0.
        token: proves to rank 0 that a connection is from a rank of this run.
        clock: the wall clock, compared with rank 0's.
        period_s: seconds between messages.
    """

    def __init__(
        self, rank: int, size: int, limits: Limits, address: tuple[str, int], token: str, *,
        clock: Callable[[], float] = time.time, period_s: float = 1.0,
    ) -> None:  # fmt: skip
        self.rank, self.size, self.limits = rank, size, limits
        self.name = f"rank {rank} of {size} (process {os.getpid()} on {socket.gethostname()})"
        self.verdict = ""  # why the run ends; empty while all is well
        self.on_end: Callable[[str], None] = lambda text: None  # told before the process is ended from here
        self.token, self.clock, self._period_s = token, clock, period_s
        self._pulse, self._lock = Pulse(), threading.Lock()
        self.ticks, self._moved_at = Ticks(), 0.0
        self._used_s, self._looked_at, self._worked_at = time.process_time(), 0.0, 0.0
        self._closing = threading.Event()
        self._peers: Hub | Spoke
        if rank == 0:
            self._peers = Hub(self, address)
        else:
            self._peers = Spoke(self, address)
        self.port = self._peers.port
        self._thread = threading.Thread(target=self._work, name="rank-monitor", daemon=True)
        self._thread.start()

    # --- called by the main thread ------------------------------------------------------------------------------------

    def heartbeat(self, where: str = "", *, step: bool = False) -> None:
        """Report that the main thread makes progress; it is now at ``where``, or at the same place if empty.

        Raises:
            RankError: the run has to end.
        """
        self.raise_verdict()
        with self._lock:
            self._move()
            self._pulse.where = where or self._pulse.where
            self._pulse.steps += step and self._pulse.watched

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Wrap a wait for other ranks; if it fails, the error names the rank that is lost.

        Raises:
            RankError: in place of the collective's own error.
        """
        self.raise_verdict()
        with self._lock:
            self._move()
            self._pulse.waiting, self._pulse.collectives = True, self._pulse.collectives + 1
        try:
            yield
        except RuntimeError as error:  # torch's DistError and its relations
            raise self.explain(f"{what} failed: {str(error).splitlines()[0]:.200}") from error
        finally:
            with self._lock:
                self._move()
                self._pulse.waiting = False
        self.raise_verdict()

    @contextlib.contextmanager
    def expect_progress(self, pause_s: float = 0.0) -> Iterator[None]:
        """Watch the main thread within this context; it may need ``pause_s`` seconds between two heartbeats."""
        with self._lock:
            self._move()
            self._pulse.watched, self._pulse.longest_s = True, pause_s
        try:
            yield
        finally:
            with self._lock:
                self._move()
                self._pulse.watched = False

    def raise_verdict(self) -> None:
        """Raise RankError if the run has to end."""
        if self.verdict:
            raise RankError(self.verdict)

    def explain(self, symptom: str) -> RankError:
        """Return the error for a failed collective: the verdict, after a moment's wait for it, or else the symptom."""
        end = time.monotonic() + self.limits.silent_s + 2 * self._period_s
        while not self.verdict and time.monotonic() < end and self._thread.is_alive():
            time.sleep(0.02)
        return RankError(self.verdict or f"{self.name}: {symptom}")

    def close(self, reason: str = "") -> None:
        """Say goodbye to the other ranks; ``reason`` is what went wrong, or empty."""
        if not self._closing.is_set():
            self._peers.goodbye(reason)
            self._closing.set()
            self._thread.join(timeout=2 * self._period_s + 1)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _move(self) -> None:
        """Note progress of the main thread; the caller holds the lock."""
        pulse, now = self._pulse, self.ticks.read()
        if pulse.watched and not pulse.waiting:
            pulse.work_s += now - self._moved_at
            pulse.longest_s = max(pulse.longest_s, now - self._moved_at)
        self._moved_at = now

    def pulse(self) -> Pulse:
        """Return a copy of the main thread's state."""
        with self._lock:
            self.ticks.advance()
            now = self.ticks.now
            return replace(self._pulse, idle_s=now - self._moved_at, still_s=now - self._worked_at)

    def _look_at_processor(self) -> None:
        """Note whether this process, but for this thread, has used processor time since the last call."""
        used = time.process_time() - time.thread_time()
        if used - self._used_s > WORKING * (self.ticks.now - self._looked_at):
            self._worked_at = self.ticks.now
        self._used_s, self._looked_at = used, self.ticks.now

    def _work(self) -> None:
        beat_at = 0.0
        while not self._closing.is_set() and not self.verdict:
            self._peers.poll(0.1)
            with self._lock:
                self.ticks.advance()
            if self.ticks.now >= beat_at:
                beat_at = self.ticks.now + self._period_s
                self._look_at_processor()
                self._peers.beat(self.pulse(), self.ticks.now)
        if self.verdict and not self._closing.wait(self.limits.leave_s):
            self._end_process()

    def _end_process(self) -> None:
        """End the process, since its main thread waits where no exception reaches it."""
        with contextlib.suppress(Exception):
            self.on_end(self.verdict)
        with contextlib.suppress(Exception):
            sys.stderr.write(f"golfcore: {self.verdict}\n")
            sys.stderr.flush()
        os._exit(1)
