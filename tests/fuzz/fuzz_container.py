"""Feed the container: the first byte picks what the rest is.

It is a file; a directory and a payload, for which right checksums are made; or coded bytes for one codec. Whatever it
is, the outcome is a FormatError (CodecError) or data that can be written and read again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import container_cases as cases

from golfcore.container import Container, Tensor, encode, grid
from golfcore.container.codecs import CODECS, CodecError, Layout
from golfcore.container.tensors import Kind
from golfcore.errors import FormatError

LIMIT = 1 << 16
FILE, SEALED, CODED = range(3)


def one_input(data: bytes) -> bool:
    """Feeds one input; returns whether it was accepted. Any other exception is a finding."""
    if not data:
        return False
    mode, data = data[0] % 3, data[1:]
    try:
        if mode == CODED:
            return _decode_codec(data)
        if mode == SEALED:
            n = int.from_bytes(data[:2], "little")
            data = cases.container(data[2 : 2 + n], data[2 + n :])
        return _read_container(data)
    except (FormatError, CodecError) as error:
        if not str(error).isprintable():
            raise AssertionError(f"unprintable message {error!s:.200}") from error
        return False


def _read_container(data: bytes) -> bool:
    with Container.from_bytes(data, LIMIT) as c:
        c.verify()
        found = [Tensor(t.name, t.role, c.read(t.name), t.bits, t.dtype) for t in c.tensors.values()]
        manifest = c.manifest
    with Container.from_bytes(encode(found, manifest), LIMIT) as again:
        for tensor in found:
            if again.read(tensor.name).tobytes() != tensor.array.tobytes() or again.manifest != manifest:
                raise AssertionError(f"{tensor.name!r} changed when written again")
    return True


def _decode_codec(data: bytes) -> bool:
    if len(data) < 6 or data[0] not in CODECS or (kind := Kind.from_code(data[1])) is None:
        return False
    layout = Layout(kind, ((data[2], data[3]), (data[4],)))
    n = 6 + data[5] % 4
    if not layout.raw_len:
        return False
    raw = CODECS[data[0]].decode(data[n:], layout, data[6:n])
    if len(raw) != layout.raw_len:
        raise AssertionError(f"codec {data[0]} gave {len(raw)} bytes for {layout.raw_len}")
    return True


def seeds() -> dict[str, bytes]:
    """Golden files, sealed directories, and what each codec makes of a ramp."""
    found = {}
    for name, (tensors, manifest) in cases.GOOD.items():
        data = encode(tensors, manifest, coder="smallest" if name == "smallest" else "fast")
        n = int.from_bytes(data[12:16], "little")
        raw = cases.unzstd(data[24 : 24 + n], int.from_bytes(data[8:12], "little"))
        found[f"file_{name}"] = bytes((FILE,)) + data
        found[f"sealed_{name}"] = bytes((SEALED,)) + len(raw).to_bytes(2, "little") + raw + data[24 + n : -8]
    for codec in CODECS.values():
        for code in (0, 2, 4, 0x82, 0x86, 0xA5):
            layout = Layout(Kind.from_code(code) or Kind("u8"), ((9, 7), (5,)))
            raw = bytes(i % 60 for i in range(layout.raw_len))
            if layout.kind.bits:
                raw = bytes((i * i % 3 - 1) % 256 for i in range(layout.raw_len))
            elif codec.id == 7:
                raw = grid.VALUES[:68].tobytes()
            tried = (b"\1\5\0",) if codec.id == 9 and layout.kind.bits else codec.params(layout)
            for i, params in enumerate(tried):
                coded = codec.encode(raw, layout, params)
                head = bytes((CODED, codec.id, code, 9, 7, 5, len(params))) + params
                found[f"coded_{codec.name}_{code}_{i}"] = head + (coded or b"")
    return found
