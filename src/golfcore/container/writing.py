"""Write a container: group tensors into chunks, choose the codec of each chunk, and add the bytes around them."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from golfcore import _core, machine
from golfcore.container import directory as directories
from golfcore.container.codecs import Attempt, Coder, Layout, attempt, attempts, zstd_compress
from golfcore.container.directory import MAX_DIRECTORY, ChunkInfo
from golfcore.container.manifest import ManifestError
from golfcore.container.tensors import MAX_TENSORS, Kind, Tensor, kind_of, name_problem, role_problem, shape_problem
from golfcore.errors import InputError
from golfcore.paths import atomic_write
from golfcore.progress import Tick, silent

MAGIC = b"GCF1"
MAJOR, MINOR = 1, 2
HEADER = struct.Struct("<4sBBHIIII")  # magic, major, minor, flags, dir_raw, dir_coded, payload, crc32c
TRAILER = struct.Struct("<Q")
T = TypeVar("T")


def encode(
    tensors: Iterable[Tensor],
    manifest: Mapping[str, Any],
    *,
    coder: Coder = "fast",
    threads: int = 0,
    tick: Tick = silent,
) -> bytes:
    """Return the bytes of a container; equal input gives equal bytes, with any number of threads.

    Args:
        tensors: the tensors. They are grouped by role and kind; groups stand in the order of their first tensor,
            tensors of a group in the order given.
        manifest: a tree of str, int, float, bool, None, lists and mappings; the order of keys does not matter.
        coder: "smallest" tries more codecs, among them one that decodes slowly.
        threads: number of threads that try codecs; 0 for one per core.
        tick: called with the progress so far, in raw bytes times codecs tried.

    Raises:
        InputError: a container cannot hold a tensor, which the message names.
    """
    groups: dict[tuple[str, Kind], list[Tensor]] = {}
    for tensor, kind in _checked(tensors):
        groups.setdefault((tensor.role, kind), []).append(tensor)
    layouts = [Layout(kind, tuple(tensor.array.shape for tensor in group)) for (_, kind), group in groups.items()]
    chunks: list[ChunkInfo] = []
    payload: list[bytes] = []
    best = _encode_chunks(list(groups.values()), layouts, coder, threads or machine.threads(), tick)
    for (role, _), layout, (codec, params, coded) in zip(groups, layouts, best, strict=True):
        chunks.append(ChunkInfo(role, layout, codec, params, len(coded), _core.crc32c(coded), sum(map(len, payload))))
        payload.append(coded)
    try:
        raw = directories.to_bytes(manifest, chunks, [tensor.name for group in groups.values() for tensor in group])
    except ManifestError as error:
        raise InputError(f"manifest: {error}") from error
    return _assemble(raw, b"".join(payload))


def _encode_chunks(
    groups: Sequence[Sequence[Tensor]], layouts: Sequence[Layout], coder: Coder, threads: int, tick: Tick
) -> list[Attempt]:
    """Return the smallest coding of each chunk."""
    raws = [
        b"".join(t.array.astype(layout.kind.numpy, order="C", copy=False).tobytes() for t in group)
        for group, layout in zip(groups, layouts, strict=True)
    ]
    tries = [(i, order, *t) for i, layout in enumerate(layouts) for order, t in enumerate(attempts(layout, coder))]
    total, done = sum(len(raws[i]) for i, *_ in tries), 0
    best: list[tuple[int, int, Attempt] | None] = [None] * len(layouts)  # (bytes, order, coding): one a chunk is kept
    tries.sort(key=lambda t: -len(raws[t[0]]))  # no core is left alone with the largest at the end

    def run(n: int) -> Attempt | None:
        i, _, codec, params = tries[n]
        return attempt(raws[i], layouts[i], codec, params)

    for n, found in _side_by_side(run, len(tries), threads):
        i, order = tries[n][:2]
        if found is not None:
            candidate = (len(found[1]) + len(found[2]), order, found)
            best[i] = min(candidate, best[i] or candidate, key=lambda c: c[:2])
        done += len(raws[i])
        tick(done, total, "coding")
    return [chunk[2] for chunk in best if chunk is not None]


def _side_by_side(run: Callable[[int], T], count: int, threads: int) -> Iterator[tuple[int, T]]:
    """Yield ``(n, run(n))`` for n < count, in the order in which they end.

    Not a ThreadPoolExecutor: zstd needs minutes for a chunk of 100 MB, and after an interrupt the interpreter would not
    exit before it. Its threads are daemons, which take nothing new once the iterator is closed.
    """
    waiting: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[tuple[int, T | BaseException]] = SimpleQueue()
    closed = threading.Event()
    for n in range(count):
        waiting.put(n)

    def work() -> None:
        while not closed.is_set():
            try:
                n = waiting.get_nowait()
            except Empty:
                return
            try:
                done.put((n, run(n)))
            except BaseException as error:  # raised again where the results are taken
                done.put((n, error))

    for _ in range(min(threads, count)):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in range(count):
            n, found = done.get()
            if isinstance(found, BaseException):
                raise found
            yield n, found
    finally:
        closed.set()


def _assemble(raw_directory: bytes, payload: bytes) -> bytes:
    if len(raw_directory) > MAX_DIRECTORY or len(payload) >= 1 << 32:
        raise InputError(
            f"a directory of {len(raw_directory)} bytes and {len(payload)} coded bytes, expected at most"
            f" {MAX_DIRECTORY} and {(1 << 32) - 1}; write fewer tensors into one container"
        )
    coded = zstd_compress(raw_directory)
    head = HEADER.pack(MAGIC, MAJOR, MINOR, 0, len(raw_directory), len(coded), len(payload), 0)[:-4]
    body = head + _core.crc32c(coded, _core.crc32c(head)).to_bytes(4, "little") + coded + payload
    return body + TRAILER.pack(_core.xxh64(body))


def _checked(tensors: Iterable[Tensor]) -> Iterable[tuple[Tensor, Kind]]:
    names: set[str] = set()
    for tensor in tensors:
        kind = kind_of(tensor)
        try:
            name = tensor.name.encode()
        except UnicodeEncodeError:
            raise InputError(f"tensor {tensor.name!r}: the name holds a lone surrogate") from None
        problem = kind if isinstance(kind, str) else shape_problem(tensor.array.shape, kind.itemsize)
        problem = problem or name_problem(name) or role_problem(tensor.role)
        if problem or isinstance(kind, str):
            raise InputError(f"tensor {tensor.name!r}: {problem}")
        if tensor.name in names:
            raise InputError(f"tensor {tensor.name!r} is given twice; names must differ")
        names.add(tensor.name)
        if len(names) > MAX_TENSORS:
            raise InputError(f"more than {MAX_TENSORS} tensors; stack some of them into one")
        yield tensor, kind


def write(
    path: Path | str,
    tensors: Iterable[Tensor],
    manifest: Mapping[str, Any],
    *,
    coder: Coder = "fast",
    threads: int = 0,
    tick: Tick = silent,
) -> None:
    """Write ``encode(tensors, manifest, coder=coder)`` to ``path``, which never holds half a container.

    Raises:
        InputError: as for ``encode``, or the file cannot be written.
    """
    data = encode(tensors, manifest, coder=coder, threads=threads, tick=tick)
    with atomic_write(Path(path)) as f:
        f.write(data)


def predict_size(tensors: Iterable[Tensor], manifest: Mapping[str, Any], *, coder: Coder = "fast") -> int:
    """Return the number of bytes that ``write`` would write: exact and as slow, since the real coders run."""
    return len(encode(tensors, manifest, coder=coder))
