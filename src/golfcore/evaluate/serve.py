"""The program of a scorer's process: cut off the network, watch, execute the file, and answer questions.

It reads one JSON object per line from standard input and writes one per line. What the file prints goes to standard
error. Only the standard library is imported before the network is cut off, since a thread would prevent that.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("vocab_size", "score", "predict", "ledger", "byte_counts", "decode", "encode")
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # of unshare(2)
SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/lib64", "/bin", "/System", "/Library")
MOST = 20  # files and addresses that are listed


def cut_off_network() -> bool:
    """Give this process a network of its own, without any device; return whether the system allows it."""
    user, group = os.getuid(), os.getgid()
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except (OSError, AttributeError):
        return False
    if unshare(NEW_NETWORK) == 0:
        return True
    if unshare(NEW_USER | NEW_NETWORK) != 0:
        return False
    for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with contextlib.suppress(OSError):
            Path("/proc/self", name).write_text(line, encoding="ascii")
    return True


class Watch:
    """A list of the files that Python code opens outside the given folders, and of the addresses that it calls."""

    def __init__(self, folder: str) -> None:
        own = Path(__file__).parents[1]  # an editable install is in no folder of sys.path
        roots = [folder, str(own), sys.prefix, sys.base_prefix, *(path for path in sys.path if path), *SYSTEM]
        self._roots = tuple({os.path.realpath(root) for root in roots})
        self.opened: list[str] = []
        self.called: list[str] = []
        self._busy = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take in an audit event of the interpreter."""
        if self._busy:
            return
        self._busy = True
        try:
            if event == "open" and isinstance(arguments[0], (str, bytes)):
                path = os.path.realpath(os.fsdecode(arguments[0]))
                inside = any(path == root or path.startswith(root.rstrip("/") + "/") for root in self._roots)
                if not inside and Path(path).is_file():
                    self._add(self.opened, path)
            elif event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
                self._add(self.called, str(arguments[1] if event == "socket.connect" else arguments[0]))
        finally:
            self._busy = False

    @staticmethod
    def _add(found: list[str], what: str) -> None:
        if what not in found and len(found) < MOST:
            found.append(what)


def _plain(name: str, value: Any) -> Any:
    """Return an answer as JSON holds it."""
    if name == "decode":
        return (value.encode() if isinstance(value, str) else bytes(value)).hex()
    if name == "ledger":
        return [[int(first), int(last), str(state)] for first, last, state in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return [number.item() if hasattr(number, "item") else number for number in value]


def _answer(name: str, argument: Any, file: str, offered: dict[str, Any], watch: Watch, network: bool) -> Any:
    if name == "load":
        found = runpy.run_path(file)
        offered.update({key: found[key] for key in NAMES if key in found})
        return list(offered)
    if name == "surroundings":
        return [network, watch.opened, watch.called]
    if name == "vocab_size":
        return int(offered[name])
    import numpy as np

    given = bytes.fromhex(argument) if name == "encode" else np.array(argument, np.int64)
    work: Callable[[Any], Any] = offered[name]
    return _plain(name, work(given))


def main() -> int:
    """Answer questions until standard input ends."""
    file = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    network = cut_off_network()
    watch = Watch(str(Path.cwd()))
    sys.addaudithook(watch)
    offered: dict[str, Any] = {}
    for line in sys.stdin:
        try:
            name, argument = json.loads(line)
            answer = json.dumps({"value": _answer(name, argument, file, offered, watch, network), "error": ""})
        except (Exception, SystemExit) as error:
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            answer = json.dumps({"value": None, "error": text[:500]})
        answers.write(answer + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
