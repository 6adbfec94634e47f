"""Ranks as processes: forked from a server that has everything imported, so that a rank starts in a moment."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from golfcore.errors import GolfError
from golfcore.ranks.verdict import Limits
from golfcore.ranks.world import join_world

QUICK = Limits(silent_s=4.0, hang_s=4.0, slow_s=3.0, slow_factor=0.0, leave_s=1.0)

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["many_ranks", "golfcore.training.trainer", "golfcore.data.loader", "tiny"])


@dataclass
class Outcome:
    """How a rank ended: ``value`` of its function, or the ``error`` it raised, or neither where it was ended."""

    value: Any = None
    error: str = ""
    stderr: str = ""
    exit_code: int | None = None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Ranks:
    """``function(world, *arguments)`` on ``size`` ranks of one thread each; processes that are left are killed."""

    def __init__(
        self, size: int, function: Callable[..., Any], *arguments: Any, limits: Limits = QUICK,
        each: Sequence[dict[str, Any]] = (), environment: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            each: further keywords of ``join_world`` for each rank.
            environment: over what torchrun would set.
        """
        port = free_port()
        self.processes, self._ends = [], []
        self._folder = tempfile.TemporaryDirectory()
        for rank in range(size):
            here, there = multiprocessing.Pipe()
            place = {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port), **(environment or {}),
            }  # fmt: skip
            more = each[rank] if each else {}
            process = _server.Process(
                target=_rank, args=(there, self._stderr(rank), place, limits, more, function, arguments)
            )
            process.start()
            there.close()
            self.processes.append(process)
            self._ends.append(here)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.is_alive():
                process.kill()
            process.join(10)
        self._folder.cleanup()

    def _stderr(self, rank: int) -> Path:
        return Path(self._folder.name) / f"stderr{rank}.txt"

    def outcomes(self, timeout: float = 120.0, only: Sequence[int] | None = None) -> dict[int, Outcome]:
        """Waits for every rank, or for ``only`` these, to end by itself.

        In short waits, which a pause of the whole machine does not use up.
        """
        patience = int(timeout / 0.1)
        found = {}
        for rank in range(len(self.processes)) if only is None else only:
            process, connection = self.processes[rank], self._ends[rank]
            outcome = Outcome()
            while patience > 0 and not connection.poll(0.1):
                patience -= 1
            with contextlib.suppress(EOFError):
                outcome = connection.recv() if connection.poll() else outcome
            while patience > 0 and process.exitcode is None:
                process.join(0.1)
                patience -= 1
            outcome.exit_code, outcome.stderr = process.exitcode, self._stderr(rank).read_text()
            found[rank] = outcome
        return found


def run_ranks(size: int, function: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
    """The values of ``function`` on every rank; raises AssertionError where a rank failed."""
    with Ranks(size, function, *arguments, **options) as ranks:
        outcomes = ranks.outcomes()
    assert all(o.exit_code == 0 and not o.error for o in outcomes.values()), outcomes
    return [o.value for o in outcomes.values()]


def _rank(
    end: Connection, stderr: Path, place: dict[str, str], limits: Limits, more: dict[str, Any],
    function: Callable[..., Any], arguments: tuple[Any, ...],
) -> None:  # fmt: skip
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
    torch.set_num_threads(1)
    try:
        with join_world(environment=place, limits=limits, **more) as world:
            outcome = Outcome(value=function(world, *arguments))
    except GolfError as error:
        outcome = Outcome(error=f"{type(error).__name__}: {error}")
    end.send(outcome)
