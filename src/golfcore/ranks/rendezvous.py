"""Let ranks meet: open the store that torchrun names, exchange facts, join the process group, start the monitor."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import platform
import queue
import re
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from golfcore.errors import RankError, UsageError
from golfcore.ranges import SIZE, shown
from golfcore.ranks.monitor import Monitor
from golfcore.ranks.ticks import Ticks
from golfcore.ranks.verdict import Limits

JOIN_S = 25.0  # all ranks of a run start together
JOIN_GPU_S = 120.0  # eight cold imports of torch with CUDA, and eight contexts, can lie further apart
STORE_S = 10.0  # that a store may take to answer, whose port is open
# The monitor ends a run that is stuck; a barrier may well wait for hours while rank 0 packs.
COLLECTIVE_TIMEOUT = timedelta(hours=6)


@dataclass(frozen=True)
class Place:
    """The environment that torchrun gives a process."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    host: str = ""
    port: int = 0
    agent_store: bool = False  # torchrun's agent serves the store, and no rank has to
    attempt: str = "0"  # torchrun starts all ranks anew after a failure where it may
    local_size: int = 1  # ranks on this machine

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> Place:
        """Read the place from the environment; raise UsageError if RANK, WORLD_SIZE or the rendezvous is invalid."""
        if "WORLD_SIZE" not in environment:
            _require_alone(environment)
        numbers = {}
        names = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "0"}
        names["LOCAL_WORLD_SIZE"] = environment.get("WORLD_SIZE", "1")
        for name, default in names.items():
            text = environment.get(name, default)
            if not re.fullmatch(r"[0-9]{1,5}", text):
                raise UsageError(f"{name} = {shown(text)}: expected {SIZE}; let torchrun set it")
            numbers[name] = int(text)
            SIZE.check(name, numbers[name])
        size, rank = numbers["WORLD_SIZE"], numbers["RANK"]
        if not 0 <= rank < size:
            raise UsageError(f"RANK = {rank} with WORLD_SIZE = {size}: expected a rank below the size")
        host = environment.get("MASTER_ADDR", "")
        if size > 1 and not (host and 0 < numbers["MASTER_PORT"] < 65536):
            raise UsageError("WORLD_SIZE is above 1 without MASTER_ADDR and MASTER_PORT: start with torchrun")
        return Place(
            rank, size, numbers["LOCAL_RANK"], host, numbers["MASTER_PORT"],
            environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            environment.get("TORCHELASTIC_RESTART_COUNT", "0"), numbers["LOCAL_WORLD_SIZE"],
        )  # fmt: skip


def _require_alone(environment: Mapping[str, str]) -> None:
    """Raise UsageError if this process is one of several that were not started by torchrun: each would train alone."""
    for name in ("RANK", "LOCAL_RANK"):
        if name in environment:
            raise UsageError(f"{name} is set and WORLD_SIZE is not: start with torchrun, or unset {name}")
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"):
        tasks = environment.get(name, "")
        if tasks.isdecimal() and int(tasks) > 1:
            raise UsageError(
                f"{name} = {tasks} and WORLD_SIZE is not set: start one torchrun per machine, or set WORLD_SIZE=1 if "
                "each process is a run of its own"
            )


def environment_of_children(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a process that each rank starts; these processes meet as ranks at the same store."""
    attempt = environment.get("TORCHELASTIC_RESTART_COUNT", "0") + ".children"
    return {**environment, "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": attempt}


def meet(
    place: Place, device: torch.device, trouble: str, limits: Limits, clock: Callable[[], float], join_s: float
) -> Monitor:
    """Join the process group and start the monitor; with ``trouble``, why this rank cannot take part, tell the others.

    Raises:
        RankError: a rank is missing or cannot take part; raised on every rank, and the message names it.
    """
    try:
        store = _open_store(place, join_s)
        hellos = _exchange(store, place, device, trouble, join_s)
        if reason := _trouble(place, hellos):
            _let_others_read(store, place)
            error = RankError(reason)
            error.everywhere = True
            raise error
        return _start(store, place, device, limits, clock)
    except RuntimeError as error:  # torch's DistError and its relations
        raise RankError(
            f"rank {place.rank} of {place.size}: the rendezvous at {place.host}:{place.port} broke off "
            f"({str(error).splitlines()[0]:.160}): another rank has ended, or the link to rank 0 is gone"
        ) from error


def _exchange(store: Any, place: Place, device: torch.device, trouble: str, join_s: float) -> list[dict[str, Any]]:
    """Exchange facts; return those of each rank, this one included."""
    own = {
        "host": socket.gethostname(), "pid": os.getpid(), "device": device.type,
        "python": platform.python_version(), "torch": torch.__version__, "byte order": sys.byteorder,
        "error": trouble,
    }  # fmt: skip
    store.set(f"hello/{place.rank}", json.dumps(own))
    return _await_all(store, place, join_s)


def _start(store: Any, place: Place, device: torch.device, limits: Limits, clock: Callable[[], float]) -> Monitor:
    """Start the monitor, then the process group, which it already watches."""
    address = _address_towards(place.host, place.port)
    if place.rank == 0:
        token = secrets.token_hex(16)
        monitor = Monitor(0, place.size, limits, (address, 0), token, clock=clock)
        store.set("monitor", json.dumps([address, monitor.port, token]))
    else:
        host, port, token = json.loads(store.get("monitor"))
        monitor = Monitor(place.rank, place.size, limits, (host, port), token, clock=clock)
    try:
        monitor.raise_verdict()
        _join_group(place, device, store, address, monitor)
    except BaseException as error:
        monitor.close(str(error))
        raise
    return monitor


def _open_store(place: Place, join_s: float) -> Any:
    """Open the store that torchrun's agent or rank 0 serves.

    The port is tried first, because a store whose constructor waits for its server waits twice as long as told, and
    fails with a page of addresses. Rank 0 reaches the store that it serves within the machine, whatever its name.
    """
    serves = place.rank == 0 and not place.agent_store
    try:
        left_s = join_s if serves else _await_port(place, join_s)
        store = _connect(place, serves, min(max(left_s, STORE_S / 2), STORE_S))
        store.set_timeout(timedelta(seconds=join_s))
    except (RuntimeError, OSError) as error:
        raise RankError(
            f"rank {place.rank} of {place.size} on {socket.gethostname()} cannot open the rendezvous at "
            f"{place.host}:{place.port} within {join_s:.0f} s ({str(error).splitlines()[0]:.160}): check MASTER_ADDR "
            "and MASTER_PORT (--rdzv-endpoint), that rank 0 runs there, and that no firewall is between"
            f"{_about_names(place)}"
        ) from error
    return dist.PrefixStore(f"golfcore/{place.attempt}", store)  # type: ignore[attr-defined]


def _connect(place: Place, serves: bool, seconds: float) -> Any:
    """Return a client of the store, on rank 0 with the store; raise OSError if another program has the port."""
    made: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def connect() -> None:
        try:
            made.put(
                dist.TCPStore(  # type: ignore[attr-defined]
                    "localhost" if serves else place.host, place.port, place.size, serves,
                    timeout=timedelta(seconds=seconds), wait_for_workers=False,
                )
            )  # fmt: skip
        except RuntimeError as error:
            made.put(error)

    # The constructor waits for ever where somebody takes the connection and says nothing.
    threading.Thread(target=connect, name="rendezvous", daemon=True).start()
    try:
        store = made.get(timeout=1.5 * seconds)
    except queue.Empty:
        raise OSError("another program has that port: it takes the connection and says nothing") from None
    if isinstance(store, RuntimeError):
        raise store
    return store


def _await_port(place: Place, join_s: float) -> float:
    """Return the seconds that are left when the rendezvous answers; raise OSError if nothing answers."""
    ticks = Ticks()
    while True:
        try:
            socket.create_connection((place.host, place.port), timeout=min(2.0, join_s)).close()
        except OSError:
            ticks.advance()
            if ticks.now > join_s:
                raise
            time.sleep(0.1)
        else:
            ticks.advance()
            return join_s - ticks.now


def _await_all(store: Any, place: Place, join_s: float) -> list[dict[str, Any]]:
    """Wait for the facts of every rank. The wait is counted in small steps: a suspended machine does not use it up."""
    step_s = 0.05
    for _ in range(int(join_s / step_s)):
        missing = [rank for rank in range(place.size) if not store.check([f"hello/{rank}"])]
        if not missing:
            return [json.loads(store.get(f"hello/{rank}")) for rank in range(place.size)]
        time.sleep(step_s)
    raise RankError(
        f"rank {', '.join(map(str, missing[:8]))} of {place.size} did not come to the rendezvous at "
        f"{place.host}:{place.port} within {join_s:.0f} s: start as many ranks as WORLD_SIZE says, all at once"
        f"{_about_names(place)}"
    )


def _about_names(place: Place) -> str:
    """Return advice if torchrun took a machine's own name for an address that others can reach."""
    with contextlib.suppress(OSError, ValueError):
        address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0][4][0]
        if place.local_size == place.size or not ipaddress.ip_address(address).is_loopback:
            return ""
    return (
        f"; {place.host} names no machine that all ranks reach: give each machine's torchrun its address, as "
        "--local-addr=10.0.0.1"
    )


def _trouble(place: Place, hellos: list[dict[str, Any]]) -> str:
    """Return why these ranks cannot work together, the same text on every rank; empty if they can."""
    for rank, hello in enumerate(hellos):
        if hello["error"]:
            return f"rank {rank} of {place.size} cannot take part: {hello['error']}"
        for key in ("device", "python", "torch", "byte order"):
            if hello[key] != hellos[0][key]:
                return (
                    f"rank {rank} on {hello['host']} differs from rank 0 on {hellos[0]['host']}: {key} is {hello[key]} "
                    f"there and {hellos[0][key]} on rank 0; give all machines the same set-up"
                )
    return ""


def _let_others_read(store: Any, place: Place, patience_s: float = 5.0) -> None:
    """Keep rank 0, which may hold the store, alive until every rank has read the facts that it will complain about."""
    store.set(f"read/{place.rank}", "")
    end = time.monotonic() + patience_s
    while place.rank == 0 and time.monotonic() < end:
        if store.check([f"read/{rank}" for rank in range(place.size)]):
            return
        time.sleep(0.05)


def _join_group(place: Place, device: torch.device, store: Any, address: str, monitor: Monitor) -> None:
    interface = _interface_of(address)
    if interface:
        # Without it gloo takes the interface that the host's name resolves to, which need not reach the other ranks.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    # Nobody enters the group before all have compared clocks: no exception reaches a rank that waits in there.
    store.set(f"ready/{place.rank}", "")
    while not store.check([f"ready/{rank}" for rank in range(place.size)]):
        monitor.raise_verdict()
        time.sleep(0.02)
    prefixed = dist.PrefixStore("group", store)  # type: ignore[attr-defined]
    # What ranks tell each other about the run goes by gloo, for which no GPU has to finish its work.
    with monitor.waiting("joining the process group"):
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", store=prefixed, rank=place.rank,
            world_size=place.size, timeout=COLLECTIVE_TIMEOUT,
        )  # fmt: skip
    if device.type == "cuda":  # NCCL begins with the first collective, so that one is here and not in a step
        with monitor.waiting("the first collective of NCCL (NCCL_DEBUG=INFO says more)"):
            dist.all_reduce(torch.zeros(1, device=device))


def _address_towards(host: str, port: int) -> str:
    """Return this machine's address on the way to ``host``; the connected UDP socket sends nothing."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def _interface_of(address: str) -> str:
    """Return the network interface with this IPv4 address; an empty string if there is none."""
    request_address = 0xC0206921 if sys.platform == "darwin" else 0x8915  # SIOCGIFADDR
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe.fileno(), request_address, struct.pack("256s", name[:15].encode()))
            except OSError:
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""
