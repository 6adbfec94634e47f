"""Read and write the directory's integers and byte strings, within bounds (docs/reference/formats.md, 3)."""

from __future__ import annotations

from golfcore.errors import FormatError

MAX_VARINT = (1 << 32) - 1


def varint(value: int) -> bytes:
    """Return ``value`` (0 to 2**32 - 1) as LEB128: seven bits per byte, the lowest first, as few bytes as possible."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Reader:
    """A reader that walks the raw directory; every read is bounded, and every error names its byte.

    Args:
        data: the bytes to read.
        where: name of the bytes for messages, such as ``"model.golf: directory"``.
    """

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.position = 0

    def fail(self, problem: str, at: int | None = None) -> FormatError:
        """Return the error to raise for a problem at byte ``at``; default: where reading stands."""
        return FormatError(f"{self.where} byte {self.position if at is None else at}: {problem}")

    def take(self, n: int, what: str) -> bytes:
        """Read the next ``n`` bytes."""
        left = len(self.data) - self.position
        if n > left:
            raise self.fail(f"{what} needs {n} bytes, {left} are left")
        self.position += n
        return self.data[self.position - n : self.position]

    def u8(self, what: str) -> int:
        return self.take(1, what)[0]

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little")

    def varint(self, what: str, low: int, high: int) -> int:
        """Read a varint in its shortest form, from ``low`` to ``high``."""
        start = self.position
        value = shift = 0
        while True:
            byte = self.u8(what)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift > 28:
                raise self.fail(f"{what} is a varint of more than 5 bytes", start)
        if value > MAX_VARINT or (byte == 0 and shift > 7):
            raise self.fail(f"{what} is not a varint of 32 bits in its shortest form", start)
        if not low <= value <= high:
            raise self.fail(f"{what} = {value}, expected {low} to {high}", start)
        return value

    def end(self) -> None:
        """Raise FormatError if not everything has been read."""
        if self.position != len(self.data):
            raise self.fail(f"{len(self.data) - self.position} bytes follow the last field")
