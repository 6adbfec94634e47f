"""Failure detection for distributed runs: find the rank that died, hangs or is slow, and tell all others.

A collective cannot tell: a rank that waits for a dead one waits for ever. So each rank has a thread that tells rank 0
once a second how its main thread fares, over a connection of its own. The kernel closes the connection of a process
that is killed; one that is stopped, or whose machine or link is gone, falls silent; one whose main thread does not get
on says so itself. Rank 0 names the rank and the cause to all of them. Each then leaves by an exception at its next
collective, or, where the main thread cannot be reached, by ending the process.

A rank that does not get on hangs only if its process does not compute either: work without a sign of life, as in one
long call of the compiled core, is slow and not dead, and gets longer.

Seconds are counted in ticks of the thread, so that a machine that was suspended as a whole, or a clock that was set,
looks to nobody like a rank that is late.
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
    """This rank's part in watching. Made by ``join_world``; ``close`` ends it.

    Args:
        rank, size: this rank among how many.
        limits: when a rank counts as lost.
        address: where rank 0 listens, ``(host, port)``; on rank 0 the port may be 0.
        token: proves to rank 0 that a connection is from a rank of this run.
        clock: the wall clock, compared with rank 0's.
        period_s: between messages.
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
        """A sign of life of the main thread, which is now at ``where``, or still at the same place.

        Raises:
            RankError: the run is to end.
        """
        self.raise_verdict()
        with self._lock:
            self._move()
            self._pulse.where = where or self._pulse.where
            self._pulse.steps += step and self._pulse.watched

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Around a wait for other ranks: what goes wrong in it is explained by who is lost.

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
        """Inside, the main thread should get on all the time; it may need ``pause_s`` between two signs of life."""
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
        """Raises RankError where the run is to end."""
        if self.verdict:
            raise RankError(self.verdict)

    def explain(self, symptom: str) -> RankError:
        """The error for a failed collective: the verdict, which takes a moment to come, or else the symptom."""
        end = time.monotonic() + self.limits.silent_s + 2 * self._period_s
        while not self.verdict and time.monotonic() < end and self._thread.is_alive():
            time.sleep(0.02)
        return RankError(self.verdict or f"{self.name}: {symptom}")

    def close(self, reason: str = "") -> None:
        """Says goodbye: ``reason`` is what went wrong, empty where nothing did."""
        if not self._closing.is_set():
            self._peers.goodbye(reason)
            self._closing.set()
            self._thread.join(timeout=2 * self._period_s + 1)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _move(self) -> None:
        """The main thread gets on; the lock is held."""
        pulse, now = self._pulse, self.ticks.read()
        if pulse.watched and not pulse.waiting:
            pulse.work_s += now - self._moved_at
            pulse.longest_s = max(pulse.longest_s, now - self._moved_at)
        self._moved_at = now

    def pulse(self) -> Pulse:
        """A copy of how the main thread fares."""
        with self._lock:
            self.ticks.advance()
            now = self.ticks.now
            return replace(self._pulse, idle_s=now - self._moved_at, still_s=now - self._worked_at)

    def _look_at_processor(self) -> None:
        """Whether this process, this thread aside, has computed since the last look."""
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
        """The main thread waits where no exception reaches it."""
        with contextlib.suppress(Exception):
            self.on_end(self.verdict)
        with contextlib.suppress(Exception):
            sys.stderr.write(f"golfcore: {self.verdict}\n")
            sys.stderr.flush()
        os._exit(1)
