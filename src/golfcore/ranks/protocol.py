"""The line protocol between the monitors of rank 0 and of the other ranks."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

MAX_LINE = 4096  # bytes of a message


class Lines:
    """A socket that carries JSON objects, one per line of at most MAX_LINE bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket, self._read = connection, b""
        connection.settimeout(5.0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: Mapping[str, Any]) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]]:
        """Return the objects that have arrived.

        Raises:
            EOFError: the other side is gone.
            ValueError: the other side sent something else than such objects.
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
        try:
            messages = [json.loads(line) for line in lines]
        except RecursionError as error:
            raise ValueError("brackets without end") from error
        if not all(isinstance(message, dict) for message in messages):
            raise ValueError("not an object")
        return messages
