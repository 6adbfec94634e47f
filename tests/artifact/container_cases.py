"""Containers good and bad, built byte by byte; ``python tests/artifact/container_cases.py`` rewrites golden/."""

from pathlib import Path

import numpy as np
import zstandard

from golfcore import _core
from golfcore.artifact.container import HEADER, Tensor, encode
from golfcore.artifact.wire import varint

GOLDEN = Path(__file__).parent / "golden"
U8 = 4  # kind code


def zstd(data: bytes, **changes: object) -> bytes:
    options = {"format": zstandard.FORMAT_ZSTD1_MAGICLESS, "write_content_size": 0, "write_checksum": 0}
    parameters = zstandard.ZstdCompressionParameters.from_level(19, source_size=len(data), **(options | changes))
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def unzstd(frame: bytes, n: int) -> bytes:
    return zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS).decompress(frame, max_output_size=n)


def sealed(data: bytes, directory_len: int) -> bytes:
    """``data`` (header, directory, payload) with both checksums made right."""
    frame = data[24 : 24 + directory_len]
    head = data[:20] + _core.crc32c(data[:20] + frame).to_bytes(4, "little")
    body = head + data[24:]
    return body + _core.xxh64(body).to_bytes(8, "little")


def container(raw: bytes, payload: bytes = b"", *, magic: bytes = b"GCF1", major: int = 1, minor: int = 0,
              flags: int = 0, raw_len: int | None = None, frame: bytes | None = None,
              payload_len: int | None = None) -> bytes:  # fmt: skip
    """A container with right checksums around any directory and payload."""
    frame = zstd(raw) if frame is None else frame
    raw_len = len(raw) if raw_len is None else raw_len
    payload_len = len(payload) if payload_len is None else payload_len
    head = HEADER.pack(magic, major, minor, flags, raw_len, len(frame), payload_len, 0)
    return sealed(head + frame + payload, len(frame))


def chunk(coded: bytes, *, codec: int = 0, kind: int = U8, role: bytes = b"r", n: int = 1, params: bytes = b"",
          length: int | None = None, crc: int | None = None) -> bytes:  # fmt: skip
    length = len(coded) if length is None else length
    crc = _core.crc32c(coded) if crc is None else crc
    head = bytes((codec, kind, len(role))) + role + varint(n) + varint(length) + bytes((len(params),)) + params
    return head + crc.to_bytes(4, "little")


def name(text: bytes, shared: int = 0) -> bytes:
    return bytes((shared, len(text))) + text


def shape(*dims: int) -> bytes:
    return bytes((len(dims),)) + b"".join(map(varint, dims))


def directory(*parts: bytes, manifest: bytes = b"", chunks: bytes | None = None) -> bytes:
    return varint(len(manifest)) + manifest + (varint(1) if chunks is None else chunks) + b"".join(parts)


def one(coded: bytes, dims: bytes = shape(4), **fields: object) -> bytes:
    """A container of one chunk with one tensor ``t``; fields as for ``chunk``."""
    return container(directory(chunk(coded, **fields), name(b"t"), dims), coded)  # type: ignore[arg-type]


def every_kind() -> list[Tensor]:
    ramp = np.arange(24).reshape(2, 3, 4)
    return [
        Tensor("a.f16", "control", (ramp / 7).astype(np.float16)),
        Tensor("a.bf16", "control", (ramp * 999).astype(np.uint16), dtype="bf16"),
        Tensor("a.f32", "control", (ramp / 3).astype(np.float32)),
        *(Tensor(f"b.{t}", "table", (ramp - 9 * (t[0] == "i")).astype(t))
          for t in ("int8", "uint8", "int16", "uint16", "int32", "int64")),
        *(Tensor(f"q.{bits}", "matrix", ((ramp * 5) % (1 << bits) - (1 << bits - 1)).astype(np.int8), bits)
          for bits in range(1, 9)),
        Tensor("é" * 127, "control", np.float16([1.5])),
        Tensor("scalar", "control", np.array(-2.0, np.float32)),
        Tensor("empty", "control", np.zeros((3, 0, 5), np.int64)),
    ]  # fmt: skip


def small_model() -> list[Tensor]:
    tensors = []
    for layer in range(2):
        for matrix, rows in (("q", 16), ("mlp.up", 24)):
            noise = (np.arange(rows * 32) * 7919 % 251 * 6007 % 63).reshape(rows, 32) - 31
            tensors += [
                Tensor(f"blocks.{layer}.{matrix}", "matrix", (noise // 4).astype(np.int8), bits=6),
                Tensor(f"blocks.{layer}.{matrix}.scale", "scale", np.linspace(0.01, 0.02, rows).astype(np.float16)),
            ]
    code = b"def decode(x):\n    return x * scale\n" * 3
    return [*tensors, Tensor("@code", "code", np.frombuffer(code, np.uint8))]


MANIFEST = {
    "golfcore": "0.1.0",
    "layers": 2,
    "rope": 1e4,
    "tied": True,
    "none": None,
    "nested": {"ö": [1, -0.5, "x\n"]},
}
GOOD = {"empty": ([], {}), "every_kind": (every_kind(), {}), "small_model": (small_model(), MANIFEST)}


def bad() -> dict[str, tuple[bytes, str]]:
    """Broken containers, checksums right unless they are the point, and a part of the message each must give."""
    whole = encode(small_model(), MANIFEST)
    t, ok = name(b"t"), b"abcd"
    head = chunk(ok)
    raw_ok = directory(head, t, shape(4))
    flipped = bytearray(whole)
    flipped[-9] ^= 1
    return {
        "nothing": (b"", "cut off after 0 bytes"),
        "not_a_container": (b"PK\x03\x04" + bytes(40), "expected b'GCF1'"),
        "header_cut": (whole[:23], "cut off after 23 bytes"),
        "cut": (whole[:-1], "cut off after"),
        "tail": (whole + b"x", "1 bytes follow the trailer"),
        "major": (container(raw_ok, ok, major=2), "byte 4: format version 2"),
        "flags": (container(raw_ok, ok, flags=1), "byte 6: unknown flags 0x0001"),
        "directory_crc": (whole[:20] + bytes(4) + whole[24:], "byte 20: crc32c of header and directory"),
        "trailer": (whole[:-1] + bytes((whole[-1] ^ 1,)), "xxh64 of the file"),
        "payload_flip": (sealed(bytes(flipped[:-8]), int.from_bytes(whole[12:16], "little")), "'@code'.*crc32c is"),
        "directory_zero": (container(b"", frame=b""), "directory of 0 bytes"),
        "directory_huge": (container(raw_ok, ok, raw_len=(1 << 23) + 1), "directory of 8388609 bytes"),
        "directory_short": (container(raw_ok, ok, raw_len=len(raw_ok) + 1), "zstd frame of .* bytes, expected"),
        "directory_long": (container(raw_ok, ok, raw_len=len(raw_ok) - 1), "directory at byte 24"),
        "directory_not_zstd": (container(raw_ok, ok, frame=b"\0\0\xff\xff\xff"), "directory at byte 24"),
        "directory_frame_header": (container(raw_ok, ok, frame=zstd(raw_ok, write_content_size=1)), "not a magicless"),
        "payload_len": (container(raw_ok, ok + b"x"), "chunks of 4 bytes, the header says 5"),
        "directory_tail": (container(raw_ok + b"\0", ok), "directory byte 18: 1 bytes follow the last field"),
        "directory_cut": (container(raw_ok[:-1], ok), "dimension 0 of tensor 't' needs 1 bytes, 0 are left"),
        "varint_long": (container(b"\x80" * 5 + b"\0"), "varint of more than 5 bytes"),
        "varint_padded": (container(b"\0\x80\0"), "shortest form"),
        "varint_33_bits": (container(b"\0\xff\xff\xff\xff\x1f"), "varint of 32 bits"),
        "manifest_long": (container(varint((1 << 18) + 1)), "length of the manifest = 262145"),
        "manifest_cut": (container(b"\x05{}"), "the manifest needs 5 bytes, 2 are left"),
        "manifest_not_json": (container(directory(manifest=b"{]", chunks=b"\0")), "byte 1: manifest: not JSON"),
        "manifest_not_utf8": (container(directory(manifest=b'"\xff"', chunks=b"\0")), "manifest: not JSON"),
        "manifest_list": (container(directory(manifest=b"[]", chunks=b"\0")), "manifest: not a JSON object"),
        "manifest_order": (container(directory(manifest=b'{"b":1,"a":1}', chunks=b"\0")), "canonical"),
        "manifest_twice": (container(directory(manifest=b'{"a":1,"a":1}', chunks=b"\0")), "canonical"),
        "manifest_nan": (container(directory(manifest=b'{"a":NaN}', chunks=b"\0")), "expected a finite number"),
        "manifest_big_int": (container(directory(manifest=b'{"a":9223372036854775808}', chunks=b"\0")), "64 bits"),
        "manifest_deep": (
            container(directory(manifest=b'{"a":' + b"[" * 16 + b"]" * 16 + b"}", chunks=b"\0")),
            "levels",
        ),
        "manifest_very_deep": (container(directory(manifest=b"[" * 100_000, chunks=b"\0")), "manifest: not JSON"),
        "manifest_empty": (container(directory(manifest=b"{}", chunks=b"\0")), "canonical"),
        "chunks_many": (container(b"\0" + varint(65_536)), "number of chunks = 65536"),
        "codec": (container(directory(chunk(ok, codec=1), t, shape(4)), ok), "byte 2: chunk 0 has the unknown codec 1"),
        "kind": (container(directory(chunk(ok, kind=9), t, shape(4)), ok), "byte 3: chunk 0 has the unknown kind 0x09"),
        "kind_bits": (container(directory(chunk(ok, kind=0x89), t, shape(4)), ok), "unknown kind 0x89"),
        "role": (container(directory(chunk(ok, role=b"R"), t, shape(4)), ok), "byte 4: chunk 0 has the role 'R'"),
        "role_empty": (container(directory(chunk(ok, role=b""), t, shape(4)), ok), "chunk 0 has the role ''"),
        "chunk_of_nothing": (container(directory(chunk(b"", n=0))), "number of tensors of chunk 0 = 0"),
        "tensors_many": (container(directory(chunk(b"", n=65_535), chunk(b"", n=1), chunks=b"\2")), "65536 tensors"),
        "params": (one(ok, params=b"?"), "tensor 't' .*1 bytes of codec parameters"),
        "names_cut": (container(directory(chunk(ok, n=9), t), ok), "shared prefix of the name of tensor 1 needs"),
        "name_empty": (container(directory(head, name(b""), shape(4)), ok), "tensor 0 has a name of 0 bytes"),
        "name_control": (container(directory(head, name(b"\x1b[2J"), shape(4)), ok), "control character"),
        "name_not_utf8": (container(directory(head, name(b"\xff"), shape(4)), ok), "is not UTF-8"),
        "name_shared": (container(directory(head, name(b"t", 1), shape(4)), ok), "does not share just 1 bytes"),
        "name_twice": (
            container(directory(chunk(ok, n=2), t, name(b"", 1), shape(2), shape(2)), ok),
            "tensor 1 has the name 't' of an earlier one",
        ),
        "ndim": (one(ok, shape(*[1] * 9)), "tensor 't' has 9 dimensions"),
        "dim": (one(ok, shape(1 << 31)), "dimension 0 of tensor 't' = 2147483648"),
        "shape_overflow": (one(ok, shape(0, 1 << 20, 1 << 20, 2)), "tensor 't': shape .* is beyond"),
        "bomb_raw": (one(ok, shape(1 << 30, 2), codec=2), "tensors of 2147483648 bytes, more than the limit"),
        "coded_longer": (one(b"abcde"), "chunk 0 .tensor 't'.: 5 coded bytes for 4 raw ones"),
        "raw_short": (one(b"abc"), "tensor 't' .*codec raw: 3 raw bytes, expected 4"),
        "zstd_empty": (one(b"", codec=2), "tensor 't' .*not a magicless zstd frame"),
        "zstd_checksum": (one(zstd(bytes(99), write_checksum=1), shape(99), codec=2), "not a magicless zstd frame"),
        "zstd_bomb": (one(zstd(bytes(1 << 16)), shape(100), codec=2), "window of 65536 bytes, expected at most 1024"),
        "zstd_bomb_small_window": (one(zstd(bytes(1 << 16), window_log=10), shape(400), codec=2), "codec zstd: "),
        "zstd_short": (one(zstd(bytes(99)), shape(100), codec=2), "zstd frame of 99 bytes, expected 100"),
        "zstd_tail": (one(zstd(bytes(99)) + b"x", shape(99), codec=2), "codec zstd: .*unused data"),
        "zstd_cut": (one(zstd(bytes(99))[:-1], shape(99), codec=2), "codec zstd: "),
        "shuffle_bytes": (one(zstd(bytes(99)), shape(99), codec=3), "shuffle of one-byte elements"),
        "symbol": (one(b"\0\x1f\x20\0", kind=0x86), "tensor 't' .*symbol 2 is 32, expected -32 to 31"),
    }


def files() -> dict[Path, bytes]:
    """Every golden file and its content."""
    good = {GOLDEN / f"{case}.golf": encode(*content) for case, content in GOOD.items()}
    return good | {GOLDEN / "bad" / f"{case}.golf": data for case, (data, _) in bad().items()}


if __name__ == "__main__":
    for path, data in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (GOLDEN / "ZSTD_VERSION").write_text(".".join(map(str, zstandard.ZSTD_VERSION)) + "\n")
