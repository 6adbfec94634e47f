"""Containers good and bad, built byte by byte; ``python tests/container_cases.py`` rewrites golden/."""

import lzma
from pathlib import Path

import numpy as np
import zstandard

from golfcore import _core
from golfcore.container import Tensor, encode, grid
from golfcore.container.file import HEADER
from golfcore.container.wire import varint

GOLDEN = Path(__file__).parent / "container" / "golden"
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


def drawn(n: int) -> np.ndarray:
    """Numbers below 2^24: the same on every machine, unlike a library's generator's."""
    seed, found = 1, []
    for _ in range(n):
        seed = seed * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        found.append(seed >> 40)
    return np.array(found)


def every_codec() -> list[Tensor]:
    """Small tensors, each of which is coded in another way."""
    noise = drawn(16_000)
    # Sums of four terms look enough like a normal distribution.
    bell = (noise.reshape(4, 4000) % 11).sum(0) - 20
    wide = bell.reshape(5, 800) * (1 + 11 * (noise[:800] % 3 == 0)) // 8
    text = (Path(__file__).parent.parent / "LICENSE").read_bytes()
    return [
        Tensor("raw", "raw", (noise[:256] % 256).astype(np.uint8)),
        Tensor("bitpack", "bitpack", (noise[:255] % 32 - 16).astype(np.int8), 5),
        Tensor("zstd", "zstd", np.full(300, 7, np.int16)),
        Tensor("shuffle", "shuffle", (noise[:2400] % 997).astype(np.uint16)),
        Tensor("rans", "rans", wide.clip(-32, 31).astype(np.int8), 6),
        Tensor("adaptive", "adaptive", bell[:600].reshape(40, 15).clip(-32, 31).astype(np.int8), 6),
        Tensor("trellis", "adaptive", bell[:600].reshape(30, 20).clip(-16, 15).astype(np.int8), 5, trellis=3),
        Tensor("base3", "base3", (noise[:2400] % 3 - 1).astype(np.int8), 2),
        Tensor("loggrid.0", "loggrid", grid.VALUES[80 + bell[:300] // 3]),
        Tensor("loggrid.1", "loggrid", grid.VALUES[95 + bell[300:600] // 3]),
        Tensor("lzma", "lzma", np.frombuffer(text, np.uint8)),
    ]


def smallest() -> list[Tensor]:
    """Symbols that the setting of that name codes as binary decisions, without and with a trellis."""
    bell = (drawn(32_000).reshape(8, 4000) % 11).sum(0) - 40
    return [
        Tensor("plain.0", "plain", bell[:1200].reshape(60, 20).clip(-32, 31).astype(np.int8), 6),
        Tensor("plain.1", "plain", bell[1200:2000].reshape(20, 40).clip(-32, 31).astype(np.int8), 6),
        Tensor(
            "trellis", "trellis", (bell[2000:3000] // 2).reshape(50, 20).clip(-16, 15).astype(np.int8), 5, trellis=3
        ),
    ]


MANIFEST = {
    "golfcore": "0.1.0",
    "layers": 2,
    "rope": 1e4,
    "tied": True,
    "none": None,
    "nested": {"ö": [1, -0.5, "x\n"]},
}
GOOD = {
    "empty": ([], {}),
    "every_kind": (every_kind(), {}),
    "every_codec": (every_codec(), {}),
    "small_model": (small_model(), MANIFEST),
    "smallest": (smallest(), {}),
}


def encoders() -> str:
    """What golden files depend on beside golfcore: the encoders of zstd and LZMA."""
    probe = lzma.compress(bytes(range(256)) * 9 + b"golf" * 99, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1}])
    return f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}\nlzma {_core.crc32c(probe):08x}\n"


# One symbol with all 2^14 slots, and the state in which coding starts and ends.
TABLE, STATE = b"\x20\0\x80\x80", b"\0\0\1\0"
BITS = b"\0\0\0\1\0"  # the same of binary decisions
ZEROS = _core.entropy_encode_adaptive(bytes(40), np.array([[40, 1]], np.uint64), 8, 0, 0, 15, 2)
LZMA = lzma.compress(bytes(400), lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 4096, "pb": 0}])


def rans(coded: bytes, params: bytes = b"\0\0") -> bytes:
    return one(coded, shape(1, 40), codec=4, kind=0x86, params=params)


def adaptive(coded: bytes, params: bytes = b"\0\5\0") -> bytes:
    return one(coded, shape(1, 40), codec=5, kind=0x86, params=params)


def binary(coded: bytes, params: bytes = b"\0\5\0", kind: int = 0x86) -> bytes:
    return one(coded, shape(1, 40), codec=9, kind=kind, params=params)


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
        "major": (container(raw_ok, ok, major=2), r"byte 4: .* incompatible .*\(format 2, this one reads 1\)"),
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
        "codec": (
            container(directory(chunk(ok, codec=10), t, shape(4)), ok),
            "byte 2: chunk 0 has the unknown codec 10",
        ),
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
        "lzma_tail": (one(LZMA + b"x", shape(400), codec=8, params=b"\3"), "codec lzma: lzma stream of other than"),
        "lzma_cut": (one(LZMA[:-1], shape(400), codec=8, params=b"\3"), "codec lzma: lzma stream of other than"),
        "lzma_bomb": (one(LZMA, shape(200), codec=8, params=b"\3"), "codec lzma: lzma stream of other than 200"),
        "lzma_params": (one(LZMA, shape(400), codec=8, params=b"\5"), "codec lzma: lzma parameters '05'"),
        "lzma_kind": (one(LZMA, shape(400), codec=8, kind=3, params=b"\3"), "codec lzma: lzma of 400 bytes of kind i8"),
        "bitpack_short": (one(b"abc", shape(9), codec=1, kind=0x83), "codec bitpack: 3 packed bytes, expected 4"),
        "bitpack_tail": (one(b"abc\xff", shape(9), codec=1, kind=0x83), "bits are set after the last packed symbol"),
        "bitpack_kind": (one(b"abc", shape(3), codec=1), "codec bitpack: 3 packed bytes, expected 0 for symbols of 0"),
        "base3_byte": (one(b"\xf3", shape(5), codec=6, kind=0x82), "codec base3: base-3 bytes above 242"),
        "base3_tail": (one(b"\xf2", shape(4), codec=6, kind=0x82), "codec base3: .*digits after the last symbol"),
        "base3_short": (one(b"a", shape(9), codec=6, kind=0x82), "codec base3: 1 bytes of base-3 symbols, expected 2"),
        "binary_lanes": (binary(bytes(8), params=b"\x09\5\0"), "codec binary: parameters out of range"),
        "binary_prior": (binary(bytes(8), params=b"\0\x10\0"), "codec binary: parameters out of range"),
        "binary_shift": (binary(bytes(8), params=b"\0\5\4"), "codec binary: parameters out of range"),
        "binary_params": (binary(bytes(8), params=b"\0\5"), "codec binary: 2 bytes of parameters"),
        "binary_one_bit": (binary(bytes(8), kind=0x81), "codec binary: parameters out of range"),
        "binary_kind": (one(bytes(4), codec=9, params=b"\0\5\0"), "codec binary: 3 bytes of parameters for kind u8"),
        "binary_empty": (binary(b"\0"), "codec binary: the coded symbols end early"),
        "binary_states": (binary(b"\0\1" + BITS[:4]), "codec binary: the coded symbols end early"),
        "binary_state": (binary(b"\0\1" + bytes(5)), "codec binary: the coded symbols do not end where"),
        "binary_cut": (binary(b"\0\1" + BITS), "codec binary: the coded symbols end early"),
        "binary_tail": (binary(b"\0\1" + BITS + bytes(30)), "codec binary: the coded symbols do not end where"),
        "rans_kind": (
            one(bytes(8), shape(9), codec=4, params=b"\0\0"),
            "codec rans: 2 bytes of parameters for kind u8",
        ),
        "rans_lanes": (rans(bytes(8), params=b"\x09\0"), "codec rans: parameters out of range"),
        "rans_classes": (rans(bytes(8), params=b"\0\5"), "codec rans: parameters out of range"),
        "rans_params": (rans(bytes(8), params=b"\0"), "codec rans: 1 bytes of parameters"),
        "rans_cut": (rans(TABLE[:2] + STATE[:3]), "codec rans: the coded symbols end early"),
        "rans_symbol": (rans(b"\x3f\1\1\1" + STATE), "codec rans: a frequency table does not fit"),
        "rans_sum": (rans(b"\0\1\xff\x7f\xff\x7f" + STATE), "codec rans: a frequency table does not fit"),
        "rans_varint": (rans(b"\0\0\x81\0" + STATE), "codec rans: a frequency table does not fit"),
        "rans_state": (rans(TABLE + bytes(4)), "codec rans: the coded symbols do not end where"),
        "rans_tail": (rans(TABLE + STATE + b"x"), "codec rans: the coded symbols do not end where"),
        "rans_last_state": (rans(TABLE + b"\1\0\1\0"), "codec rans: the coded symbols do not end where"),
        "rans_escape": (rans(b"\0\0\0" + STATE + b"\x40"), "codec rans: an escaped symbol is outside"),
        "rans_column_class": (
            one(TABLE * 2 + b"\xff" + STATE, shape(4, 5), codec=4, kind=0x86, params=b"\0\1"),
            "codec rans: a frequency table does not fit",
        ),
        "adaptive_prior": (adaptive(bytes(8), params=b"\0\x10\0"), "codec adaptive: parameters out of range"),
        "adaptive_shift": (adaptive(bytes(8), params=b"\0\5\4"), "codec adaptive: parameters out of range"),
        "adaptive_params": (adaptive(bytes(8), params=b"\0\5"), "codec adaptive: 2 bytes of parameters"),
        "adaptive_empty": (adaptive(b"\0"), "codec adaptive: the coded symbols end early"),
        "adaptive_state": (adaptive(bytes(6)), "codec adaptive: the coded symbols do not end where"),
        "adaptive_cut": (adaptive(b"\0\1\0\0\1\0"), "codec adaptive: the coded symbols end early"),
        "trellis_lanes": (
            one(bytes(30), shape(9, 7), codec=5, kind=0xA6, params=b"\3\5\0"),
            "codec adaptive: parameters out of range",
        ),
        "grid_index": (one(b"\xf1" + ZEROS, shape(40), codec=7, kind=0, params=b"\0\x0f\2"), "loggrid: grid index 241"),
        "grid_short": (one(b"", shape(1), codec=7, kind=0, params=b"\0\5\0"), "codec loggrid: 0 bytes of grid"),
        "grid_kind": (one(b"x", shape(1), codec=7, kind=1, params=b"\0\5\0"), "codec loggrid: .*of kind bf16"),
        "symbol": (one(b"\0\x1f\x20\0", kind=0x86), "tensor 't' .*symbol 2 is 32, expected -32 to 31"),
    }


def files() -> dict[Path, bytes]:
    """Every golden file and its content."""
    good = {
        GOLDEN / f"{case}.golf": encode(*content, coder="smallest" if case == "smallest" else "fast")
        for case, content in GOOD.items()
    }
    return good | {GOLDEN / "bad" / f"{case}.golf": data for case, (data, _) in bad().items()}


if __name__ == "__main__":
    for path, data in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (GOLDEN / "ENCODERS").write_text(encoders())
