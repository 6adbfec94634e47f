"""What is written is read back: by golfcore, by a second decoder, from golden files, in any order of keys."""

import ast
import math
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import container_cases as cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from golfcore.container import Container, Tensor, encode, grid, plain_decoder, predict_size, write, writing
from golfcore.container.codecs import CODECS, Layout
from golfcore.container.tensors import DTYPES, Kind, kind_of
from golfcore.errors import InputError

NUMPY = {"f16": "f2", "bf16": "u2", "f32": "f4", "i8": "i1", "u8": "u1", "i16": "i2", "u16": "u2", "i32": "i4",
         "i64": "i8"}  # fmt: skip
NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=60)
MANIFESTS = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text(max_size=8)
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    name, role = draw(NAMES), draw(st.sampled_from(["matrix", "scale", "a.b_c-9"]))
    shape = draw(npst.array_shapes(min_dims=0, max_dims=8, min_side=0, max_side=4))
    if draw(st.booleans()):
        bits, trellis = draw(st.integers(1, 8)), draw(st.sampled_from([0, 0, 2, 3, 8]))
        symbols = st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)
        return Tensor(name, role, draw(npst.arrays(np.int8, shape, elements=symbols)), bits, trellis=trellis)
    dtype = draw(st.sampled_from(DTYPES))
    order = draw(st.sampled_from("<>"))
    array = draw(npst.arrays(np.dtype(order + NUMPY[dtype]), shape))
    return Tensor(name, role, array.T if draw(st.booleans()) else array, dtype=dtype)


def check(read: np.ndarray, stored: Tensor) -> None:
    """Equal shape and bits: NaNs count too."""
    little = stored.array.astype(stored.array.dtype.newbyteorder("<"))
    assert read.shape == little.shape
    assert read.dtype == little.dtype
    assert read.tobytes() == little.tobytes()
    assert read.flags.writeable and read.flags.c_contiguous


@settings(max_examples=150, deadline=None)
@given(st.lists(tensors(), max_size=6, unique_by=lambda t: t.name), MANIFESTS)
def test_round_trip(stored: list[Tensor], manifest: dict[str, Any]) -> None:
    data = encode(stored, manifest)
    assert encode(list(stored), dict(reversed(manifest.items()))) == data
    with Container.from_bytes(data) as c:
        assert c.manifest == manifest
        assert set(c.tensors) == {t.name for t in stored}
        for t in stored:
            info = c.tensors[t.name]
            assert (info.role, info.bits, info.shape, info.dtype) == (t.role, t.bits, t.array.shape, t.dtype or "i8")
            assert info.trellis == t.trellis
            check(c.read(t.name), t)
        c.verify()
    plain_manifest, plain = plain_decoder.decode(data)
    assert plain_manifest == manifest
    by_name = {t.name: t for t in stored}
    for name, role, code, array in plain:
        assert (role, Kind.from_code(code)) == (by_name[name].role, kind_of(by_name[name]))
        check(array.copy(), by_name[name])


def test_two_files_of_numpy_decode_without_golfcore(tmp_path: Path) -> None:
    for name in ("plain_decoder.py", "plain_binary.py"):
        shutil.copy(Path(plain_decoder.__file__).with_name(name), tmp_path / name)
    program = (
        "import sys, plain_decoder\n"
        "_, tensors = plain_decoder.decode(open(sys.argv[1], 'rb').read())\n"
        "assert not [name for name in sys.modules if name.startswith('golfcore')]\n"
        "print({name: array.tolist() for name, _, _, array in tensors})"
    )
    command = [sys.executable, "-c", program, str(cases.GOLDEN.resolve() / "smallest.golf")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == {t.name: t.array.tolist() for t in cases.smallest()}


@pytest.mark.parametrize("case", cases.GOOD)
def test_golden_files_are_read(case: str) -> None:
    stored, manifest = cases.GOOD[case]
    with Container.open(cases.GOLDEN / f"{case}.golf") as c:
        c.verify()
        assert c.manifest == manifest
        for t in stored:
            check(c.read(t.name), t)


@pytest.mark.skipif(
    cases.encoders() != (cases.GOLDEN / "ENCODERS").read_text(),
    reason="another zstd or LZMA may write other bytes; test_golden_files_are_read covers reading",
)
def test_golden_files_are_written_again_byte_by_byte() -> None:
    files = cases.files()
    assert set(cases.GOLDEN.rglob("*.golf")) == set(files)
    for path, data in files.items():
        assert path.read_bytes() == data, path


def test_write_is_encode_and_predict_size_is_its_length(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.golf"
    write(path, cases.small_model(), cases.MANIFEST)
    assert path.read_bytes() == encode(cases.small_model(), cases.MANIFEST)
    assert predict_size(cases.small_model(), cases.MANIFEST) == path.stat().st_size
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.golf"
    path.write_bytes(b"old")
    with pytest.raises(InputError):
        write(path, [Tensor("", "r", np.zeros(1, np.int8))], {})
    assert path.read_bytes() == b"old"
    with pytest.raises(InputError, match="cannot write"):
        write(path / "model.golf", [], {})


def test_a_canceled_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.golf"
    path.write_bytes(b"old")
    seen: list[tuple[float, float]] = []

    def tick(done: float, total: float, note: str) -> None:
        seen.append((done, total))
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(path, cases.every_codec(), {}, threads=2, tick=tick)
    assert len(seen) == 2 and 0 < seen[0][0] < seen[1][0] < seen[1][1]
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_an_interrupt_waits_for_no_codec_and_none_is_started_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    release, started, in_time = threading.Event(), list[int](), list[bool]()

    def attempt(raw: bytes, layout: Layout, codec: int, params: bytes) -> None:
        started.append(codec)
        if len(started) > 1:
            in_time.append(release.wait(60))

    def tick(done: float, total: float, note: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "attempt", attempt)
    before = threading.enumerate()
    with pytest.raises(KeyboardInterrupt):
        encode(cases.every_codec(), {}, threads=2, tick=tick)
    release.set()
    for thread in set(threading.enumerate()) - set(before):
        thread.join()
    assert len(started) <= 3 and all(in_time)


def test_what_a_codec_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(raw: bytes, layout: Layout, codec: int, params: bytes) -> None:
        raise MemoryError(codec)

    monkeypatch.setattr(writing, "attempt", attempt)
    with pytest.raises(MemoryError):
        encode(cases.every_codec(), {})


def test_nothing_but_a_file_is_replaced(tmp_path: Path) -> None:
    """Root could rename a file over /dev/null."""
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path, what in ((pipe, "a device or pipe"), (folder, "a folder")):
        with pytest.raises(InputError, match=f"cannot write .*: it is {what}; name a file"):
            write(path, [], {})
    assert pipe.is_fifo() and sorted(tmp_path.iterdir()) == [folder, pipe]


def test_progress_ends_at_its_total() -> None:
    seen: list[tuple[float, float]] = []
    encode(cases.small_model(), {}, tick=lambda done, total, note: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] and len({total for _, total in seen}) == 1


@pytest.mark.parametrize("threads", [1, 5])
def test_all_tensors_at_once_are_each_by_itself(threads: int) -> None:
    with Container.open(cases.GOLDEN / "every_codec.golf") as c:
        together = c.read_all(threads)
        assert list(together) == list(c.tensors)
        with ThreadPoolExecutor(4) as pool:  # and a container may be read from several threads
            apart = dict(zip(c.tensors, pool.map(c.read, c.tensors), strict=True))
        for name, array in together.items():
            assert array.tobytes() == apart[name].tobytes() and array.flags.writeable


def test_tensors_are_grouped_by_role_and_kind_in_order_of_appearance() -> None:
    with Container.from_bytes(encode(cases.small_model(), {})) as c:
        assert [(chunk.role, len(chunk.layout.shapes)) for chunk in c.chunks] == [
            ("matrix", 4),
            ("scale", 4),
            ("code", 1),
        ]
        assert list(c.tensors)[:2] == ["blocks.0.q", "blocks.0.mlp.up"]
        assert [info.offset for info in list(c.tensors.values())[:4]] == [0, 512, 1280, 1792]


def test_opening_reads_only_header_and_directory(tmp_path: Path) -> None:
    path = tmp_path / "model.golf"
    write(path, cases.small_model(), {})
    with Container.open(path) as c:
        path.write_bytes(path.read_bytes()[: 24 + c.directory_coded] + bytes(c.payload_len + 8))
        with Container.open(path) as damaged:
            assert list(damaged.tensors) == list(c.tensors)


def test_overhead_of_a_hundred_tensors() -> None:
    stored = [
        Tensor(f"blocks.{layer}.{part}.weight{suffix}", role, np.zeros(shape, np.int8 if bits else np.float16), bits)
        for layer in range(10)
        for part, rows in (("attn.c_q", 8), ("attn.c_k", 4), ("attn.c_v", 4), ("attn.proj", 8), ("mlp.fc", 32))
        for suffix, role, shape, bits in (("", "matrix", (rows, 8), 6), (".scale", "scale", (rows,), 0))
    ]
    with Container.from_bytes(encode(stored, {})) as c:
        assert 24 + c.directory_coded + 8 <= 400


def test_the_golden_files_hold_every_codec() -> None:
    with Container.open(cases.GOLDEN / "every_codec.golf") as c:
        assert [CODECS[chunk.codec].name for chunk in c.chunks] == [chunk.role for chunk in c.chunks]
        assert {chunk.codec for chunk in c.chunks} == set(CODECS) - {9}
    with Container.open(cases.GOLDEN / "smallest.golf") as c:
        assert {chunk.codec for chunk in c.chunks} == {9}


@pytest.mark.parametrize("codec", [0, 2, 3, 8])
@pytest.mark.parametrize("dtype", ["u8", "f16", "f32", "i64"])
def test_each_codec_of_bytes_by_itself(codec: int, dtype: str) -> None:
    layout = Layout(Kind(dtype), ((5, 7), (), (0, 3), (40,)))
    raw = (np.arange(layout.raw_len) * 31 % 200).astype(np.uint8).tobytes()
    tried = list(CODECS[codec].params(layout))
    assert bool(tried) == ((codec, dtype == "u8") not in [(3, True), (8, False)])
    for params in tried:
        assert CODECS[codec].decode(CODECS[codec].encode(raw, layout, params) or b"", layout, params) == raw


def test_the_smallest_codec_wins_and_ties_go_to_the_lower_id() -> None:
    def chosen(array: np.ndarray, dtype: str, bits: int = 0) -> int:
        with Container.from_bytes(encode([Tensor("t", "r", array, bits, dtype)], {})) as c:
            return c.chunks[0].codec

    rng = np.random.default_rng(0)
    assert chosen(np.zeros(1000, np.uint8), "u8") == 2
    assert chosen((np.arange(3000) * 40503 % 65536 % 997).astype(np.uint16), "u16") == 3
    assert chosen(rng.permutation(256).astype(np.uint8), "u8") == 0
    assert chosen(np.zeros(0, np.float32), "f32") == 0
    assert chosen(np.full(1000, 0x01010101, np.int32), "i32") == 2  # a shuffle changes nothing here
    assert chosen(rng.integers(-8, 8, (40, 40)).astype(np.int8), "i8", 4) == 1
    assert chosen(rng.integers(-1, 2, (40, 40)).astype(np.int8), "i8", 2) == 6
    assert chosen(rng.normal(0, 3, (200, 200)).round().astype(np.int8), "i8", 6) == 5
    # Few rows, columns of very different scale: they are cheaper to describe than to learn.
    scales = rng.permutation(np.geomspace(0.2, 9, 4000))
    assert chosen((rng.normal(size=(9, 4000)) * scales).round().clip(-32, 31).astype(np.int8), "i8", 6) == 4
    assert chosen(np.frombuffer(Path(__file__).read_bytes(), np.uint8), "u8") == 8
    assert chosen(grid.VALUES[rng.integers(90, 100, 500)], "f16") == 7


def test_containers_need_a_regular_file_that_exists(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*No such file"):
        Container.open(tmp_path / "none.golf")


def test_unknown_tensor_names_the_nearest() -> None:
    with (
        Container.from_bytes(encode(cases.small_model(), {})) as c,
        pytest.raises(InputError, match=r"no tensor 'blocks.0.k'; did you mean 'blocks.0.q'"),
    ):
        c.read("blocks.0.k")


I8 = np.zeros(2, np.int8)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor("", "r", I8), "a name of 0 bytes"),
        (Tensor("x" * 256, "r", I8), "a name of 256 bytes"),
        (Tensor("a\nb", "r", I8), "control character"),
        (Tensor("\ud800", "r", I8), "lone surrogate"),
        (Tensor("t", "Role", I8), "role 'Role'"),
        (Tensor("t", "r\n", I8), "role 'r.n'"),
        (Tensor("t", "r", [1, 2]), "array is a list"),  # type: ignore[arg-type]
        (Tensor("t", "r", np.zeros(2)), "dtype float64"),
        (Tensor("t", "r", np.array([None])), "dtype object"),
        (Tensor("t", "r", I8, dtype="bf16"), "'bf16' does not fit"),
        (Tensor("t", "r", I8, dtype="int8"), "'int8' does not fit"),
        (Tensor("t", "r", I8, bits=9), "bits = 9"),
        (Tensor("t", "r", I8, bits=-1), "bits = -1"),
        (Tensor("t", "r", np.zeros(2, np.uint8), bits=4), "bits = 4 with dtype u8"),
        (Tensor("t", "r", np.array([[0, -9]], np.int8), bits=4), "symbol 1 is -9, expected -8 to 7"),
        (Tensor("t", "r", np.zeros((1,) * 9, np.int8)), "9 dimensions"),
        (Tensor("t", "r", np.zeros((0, 1 << 30, 1 << 11), np.int8)), "beyond"),
    ],
)
def test_what_cannot_be_stored_is_named(tensor: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode([tensor], {})


def test_too_many_tensors_and_equal_names() -> None:
    with pytest.raises(InputError, match="'t' is given twice"):
        encode([Tensor("t", "r", I8), Tensor("t", "s", I8)], {})
    with pytest.raises(InputError, match="more than 65535 tensors"):
        encode((Tensor(str(i), "r", I8) for i in range(65_536)), {})


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"a": math.inf}, "'a' is inf"),
        ({"a": 1 << 63}, "more than 64 bits"),
        ({"a": {"b": {1: 2}}}, "'b' has the key 1"),
        ({"a": [b"x"]}, "'a' is a bytes"),
        ({"a": np.float32(1)}, "is a float32"),
        ({"a": "\ud800"}, "lone surrogate"),
        ({"a": "x" * (1 << 18)}, "expected at most 262144"),
    ],
)
def test_what_a_manifest_cannot_hold_is_named(manifest: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode([], manifest)


def test_manifest_depth() -> None:
    def nested(levels: int) -> dict[str, Any]:
        tree: Any = 1
        for _ in range(levels):
            tree = {"k": tree}
        return tree  # type: ignore[no-any-return]

    with Container.from_bytes(encode([], nested(16))) as c:
        assert c.manifest == nested(16)
    with pytest.raises(InputError, match="more than 16 levels"):
        encode([], nested(17))
