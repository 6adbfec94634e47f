"""The two sides of the monitor: rank 0 collects reports and decides which rank is lost; the others report to it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from golfcore.errors import RankError
from golfcore.ranks.protocol import MAX_LINE, Lines
from golfcore.ranks.ticks import Ticks
from golfcore.ranks.verdict import Limits, Member, Pulse, judge

MAX_SKEW_S = 5.0


class Watched(Protocol):
    """The part of a monitor that both sides use; ``verdict`` is why the run ends, empty as long as all is well."""

    rank: int
    size: int
    name: str
    limits: Limits
    token: str
    clock: Callable[[], float]
    ticks: Ticks
    verdict: str


class Hub:
    """Rank 0's side: it collects the reports of all ranks, decides which is lost, and tells all of them."""

    def __init__(self, monitor: Watched, address: tuple[str, int]) -> None:
        self.monitor = monitor
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listener = socket.create_server(address, family=family, backlog=monitor.size)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._members = {0: Member(0, monitor.name)}
        self._lines: dict[int, Lines] = {}
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
            self._selector.register(connection, selectors.EVENT_READ, [Lines(connection), None])

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

    def _admit(self, lines: Lines, hello: Mapping[str, Any]) -> int:
        """Find the rank behind a new connection; close the connection of a stranger."""
        rank = int(hello["rank"])
        if hello.get("token") != self.monitor.token or not 0 < rank < self.monitor.size or rank in self._members:
            raise EOFError("a stranger")
        lines.send({"kind": "clock", "now": self.monitor.clock(), "name": self.monitor.name})
        self._members[rank] = Member(rank, str(hello["name"])[:200], heard_at=self.monitor.ticks.now)
        self._lines[rank] = lines
        return rank

    def _take(self, rank: int, message: Mapping[str, Any]) -> None:
        member = self._members[rank]
        member.heard_at = self.monitor.ticks.now
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
            self.announce(f"{member.name} sent an invalid message ({error!r:.100})")

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
        """Tell the ranks that are still there why the run ends, then close the connections."""
        text = f"{self.monitor.name} failed: {reason}" if reason and not self.monitor.verdict else ""
        for lines in list(self._lines.values()):
            with contextlib.suppress(OSError):
                lines.send({"kind": "bye", "reason": text[: MAX_LINE // 2]})
        self._listener.close()


class Spoke:
    """The side of every other rank: it reports to rank 0, and learns its verdict or notes its silence."""

    def __init__(self, monitor: Watched, address: tuple[str, int]) -> None:
        self.monitor, self.port = monitor, address[1]
        self._heard_at, self._over, self._hub = 0.0, False, ""
        try:
            self._lines = Lines(socket.create_connection(address, timeout=10))
            self._compare_clocks()
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise RankError(
                f"{monitor.name} cannot reach rank 0 at {address[0]}:{address[1]} ({error}): open that port between "
                "the machines, or check MASTER_ADDR"
            ) from error

    def _compare_clocks(self) -> None:
        """End the run if this machine's wall clock differs from rank 0's, or times in logs would be wrong."""
        monitor = self.monitor
        before, started = monitor.clock(), time.monotonic()
        self._lines.send({"rank": monitor.rank, "token": monitor.token, "name": monitor.name})
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
            self._heard_at = self.monitor.ticks.now
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
