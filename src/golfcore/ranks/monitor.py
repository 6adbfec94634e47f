"""Who of the ranks is alive, and who holds the others up.

Collectives cannot tell: a rank that waits for a dead one waits for ever. So each rank has a thread that tells rank 0
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
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from golfcore.errors import RankError
from golfcore.ranks.judge import Limits, Member, Pulse, judge

MAX_LINE = 4096  # bytes of a message
MAX_SKEW_S = 5.0
WORKING = 0.05  # of a processor: less is what waiting costs


class Ticks:
    """Seconds during which this thread could run; a pause of the whole machine counts as two at most."""

    def __init__(self) -> None:
        self.now, self._last = 0.0, time.monotonic()

    def advance(self) -> None:
        """Called often, by one thread."""
        now = time.monotonic()
        self.now += min(2.0, now - self._last)
        self._last = now

    def read(self) -> float:
        """The seconds so far, between two calls of ``advance``."""
        return self.now + min(2.0, time.monotonic() - self._last)


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
        self._token, self._clock, self._period_s = token, clock, period_s
        self._pulse, self._lock = Pulse(), threading.Lock()
        self._ticks, self._moved_at = Ticks(), 0.0
        self._used_s, self._looked_at, self._worked_at = time.process_time(), 0.0, 0.0
        self._closing = threading.Event()
        self._peers: _Hub | _Spoke
        if rank == 0:
            self._peers = _Hub(self, address)
        else:
            self._peers = _Spoke(self, address)
        self.port = self._peers.port
        self._thread = threading.Thread(target=self._work, name="rank-monitor", daemon=True)
        self._thread.start()

    # --- called by the main thread ------------------------------------------------------------------------------------

    def note(self, where: str = "", *, step: bool = False) -> None:
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
    def watched(self, pause_s: float = 0.0) -> Iterator[None]:
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
        pulse, now = self._pulse, self._ticks.read()
        if pulse.watched and not pulse.waiting:
            pulse.work_s += now - self._moved_at
            pulse.longest_s = max(pulse.longest_s, now - self._moved_at)
        self._moved_at = now

    def pulse(self) -> Pulse:
        """A copy of how the main thread fares."""
        with self._lock:
            self._ticks.advance()
            now = self._ticks.now
            return replace(self._pulse, idle_s=now - self._moved_at, still_s=now - self._worked_at)

    def _look_at_processor(self) -> None:
        """Whether this process, this thread aside, has computed since the last look."""
        used = time.process_time() - time.thread_time()
        if used - self._used_s > WORKING * (self._ticks.now - self._looked_at):
            self._worked_at = self._ticks.now
        self._used_s, self._looked_at = used, self._ticks.now

    def _work(self) -> None:
        beat_at = 0.0
        while not self._closing.is_set() and not self.verdict:
            self._peers.poll(0.1)
            with self._lock:
                self._ticks.advance()
            if self._ticks.now >= beat_at:
                beat_at = self._ticks.now + self._period_s
                self._look_at_processor()
                self._peers.beat(self.pulse(), self._ticks.now)
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


class _Lines:
    """A socket that carries JSON objects, one a line, none longer than MAX_LINE."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket, self._read = connection, b""
        connection.settimeout(5.0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: Mapping[str, Any]) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]]:
        """What has come.

        Raises:
            EOFError: the other side is gone.
            ValueError: it does not speak our language.
        """
        try:
            data = self.socket.recv(MAX_LINE)
        except TimeoutError:
            return []
        except OSError as error:
            raise EOFError(str(error)) from error
        if not data:
            raise EOFError("closed")
        *lines, self._read = (self._read + data).split(b"\n")
        if len(self._read) > MAX_LINE:
            raise ValueError("a line without end")
        messages = [json.loads(line) for line in lines]
        if not all(isinstance(message, dict) for message in messages):
            raise ValueError("not an object")
        return messages


class _Hub:
    """Rank 0's side: hears every rank, judges, and tells the verdict to all."""

    def __init__(self, monitor: Monitor, address: tuple[str, int]) -> None:
        self.monitor = monitor
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listener = socket.create_server(address, family=family, backlog=monitor.size)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._members = {0: Member(0, monitor.name)}
        self._lines: dict[int, _Lines] = {}
        self._done: set[int] = set()

    def poll(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._listener:
                self._accept()
            else:
                self._hear(key.fileobj, key.data)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            self._selector.register(connection, selectors.EVENT_READ, [_Lines(connection), None])

    def _hear(self, connection: Any, entry: list[Any]) -> None:
        lines, rank = entry
        try:
            for message in lines.receive():
                if rank is None:
                    rank = entry[1] = self._admit(lines, message)
                else:
                    self._take(rank, message)
        except (EOFError, ValueError, KeyError, TypeError, OSError) as error:
            self._selector.unregister(connection)
            connection.close()
            if rank is not None:
                self._lines.pop(rank, None)
                if rank not in self._done:
                    self._lost(rank, error)

    def _admit(self, lines: _Lines, hello: Mapping[str, Any]) -> int:
        """The rank behind a new connection; a stranger's is closed."""
        rank = int(hello["rank"])
        if hello.get("token") != self.monitor._token or not 0 < rank < self.monitor.size or rank in self._members:
            raise EOFError("a stranger")
        lines.send({"kind": "clock", "now": self.monitor._clock(), "name": self.monitor.name})
        self._members[rank] = Member(rank, str(hello["name"])[:200], heard_at=self.monitor._ticks.now)
        self._lines[rank] = lines
        return rank

    def _take(self, rank: int, message: Mapping[str, Any]) -> None:
        member = self._members[rank]
        member.heard_at = self.monitor._ticks.now
        if message["kind"] == "pulse":
            member.pulse = Pulse(**message["pulse"])
        elif message["kind"] == "bye":
            self._done.add(rank)
            if reason := str(message["reason"]):
                self.announce(f"{member.name} failed: {reason}")

    def _lost(self, rank: int, error: Exception) -> None:
        member = self._members[rank]
        if isinstance(error, EOFError):
            self.announce(f"{member.name} was killed or crashed: its connection closed, last at {member.pulse.where}")
        else:
            self.announce(f"{member.name} sent what no rank sends ({error!r:.100})")

    def beat(self, own: Pulse, now: float) -> None:
        self._members[0].pulse, self._members[0].heard_at = own, now
        for lines in list(self._lines.values()):
            with contextlib.suppress(OSError):
                lines.send({"kind": "beat"})
        members = [m for m in self._members.values() if m.rank not in self._done]
        if verdict := judge(members, now, self.monitor.limits):
            self.announce(verdict)

    def announce(self, verdict: str) -> None:
        if self.monitor.verdict:
            return
        for lines in list(self._lines.values()):
            with contextlib.suppress(OSError):
                lines.send({"kind": "verdict", "text": verdict[: MAX_LINE // 2]})
        self.monitor.verdict = verdict

    def goodbye(self, reason: str) -> None:
        """Ranks that are still there learn why; then the connections close."""
        text = f"{self.monitor.name} failed: {reason}" if reason and not self.monitor.verdict else ""
        for lines in list(self._lines.values()):
            with contextlib.suppress(OSError):
                lines.send({"kind": "bye", "reason": text[: MAX_LINE // 2]})
        self._listener.close()


class _Spoke:
    """Any other rank's side: tells rank 0, and hears its verdict or its silence."""

    def __init__(self, monitor: Monitor, address: tuple[str, int]) -> None:
        self.monitor, self.port = monitor, address[1]
        self._heard_at, self._over, self._hub = 0.0, False, ""
        try:
            self._lines = _Lines(socket.create_connection(address, timeout=10))
            self._compare_clocks()
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise RankError(
                f"{monitor.name} cannot reach rank 0 at {address[0]}:{address[1]} ({error}): open that port between "
                "the machines, or check MASTER_ADDR"
            ) from error

    def _compare_clocks(self) -> None:
        """Ends the run where this machine's wall clock and rank 0's differ: logs and checkpoints would lie."""
        monitor = self.monitor
        before, started = monitor._clock(), time.monotonic()
        self._lines.send({"rank": monitor.rank, "token": monitor._token, "name": monitor.name})
        answers: list[dict[str, Any]] = []
        while not answers and time.monotonic() - started < 10:
            answers = self._lines.receive()
        if not answers:
            raise EOFError("no answer for 10 s")
        self._hub = str(answers[0]["name"])
        took = time.monotonic() - started
        skew = before + took / 2 - float(answers[0]["now"])
        # A slow answer says nothing about clocks beyond its own length.
        if abs(skew) > MAX_SKEW_S + took:
            self.goodbye(
                f"its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} rank 0's: set both machines' "
                "clocks by the same time server (timedatectl set-ntp true)"
            )
            monitor.verdict = (
                f"{monitor.name}: its clock is {skew:+.0f} s from rank 0's, at most {MAX_SKEW_S:g} is allowed"
            )

    def poll(self, seconds: float) -> None:
        if self._over:
            time.sleep(seconds)
            return
        self._lines.socket.settimeout(seconds)
        try:
            messages = self._lines.receive()
        except (EOFError, ValueError) as error:
            self._over = True
            self._end(f"{self._hub} was killed or crashed: its connection closed ({error})")
            return
        for message in messages:
            self._heard_at = self.monitor._ticks.now
            if message.get("kind") == "verdict":
                self._end(str(message.get("text")))
            elif message.get("kind") == "bye":
                self._over = True
                if reason := str(message.get("reason")):
                    self._end(reason)

    def beat(self, own: Pulse, now: float) -> None:
        if self._over:
            return
        with contextlib.suppress(OSError):
            self._lines.socket.settimeout(1.0)
            self._lines.send({"kind": "pulse", "pulse": asdict(own)})
        if now - self._heard_at > self.monitor.limits.silent_s:
            self._end(
                f"{self._hub} gives no sign of life for {now - self._heard_at:.0f} s: its process is "
                "stopped, or its machine or the link to it is gone"
            )

    def goodbye(self, reason: str) -> None:
        with contextlib.suppress(OSError):
            self._lines.send({"kind": "bye", "reason": reason[: MAX_LINE // 2]})

    def _end(self, verdict: str) -> None:
        if not self.monitor.verdict:
            self.monitor.verdict = verdict
