"""Feed bytes, as a file where it belongs, to each parser of golfcore that reads what others may have written."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import socket
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zstandard

sys.path.insert(0, str(Path(__file__).parent))
import samples

from golfcore.artifact import folder as unpacked_folder
from golfcore.artifact import interchange
from golfcore.artifact.inspect import summary
from golfcore.artifact.model_io import load_model
from golfcore.bench import store
from golfcore.config import CONTEST_ENV, build_recipe, to_toml, to_tree
from golfcore.container import Container, encode
from golfcore.contest.logs import final_score, parse_log
from golfcore.data import hub
from golfcore.data.prepare import load_prepared
from golfcore.data.shards import ShardSet, check_ids
from golfcore.data.text import read_documents
from golfcore.data.val_text import read_val_text, write_val_text
from golfcore.data.verify import verify
from golfcore.errors import FormatError
from golfcore.installed import target_of
from golfcore.model import family_configs
from golfcore.ops import products
from golfcore.pipeline.config import check_fits, read_config
from golfcore.pipeline.pack import read_quantized
from golfcore.pipeline.replay import compare, read_record
from golfcore.pipeline.score import windows_of
from golfcore.ranks.protocol import Lines
from golfcore.recipes import load_recipe, read_recipe
from golfcore.report import build_report, load_run, summarize
from golfcore.run_folder import CHECKPOINT, LEDGER, METRICS, QUANTIZED, SCORE
from golfcore.sweep.early_stopping import read_curve
from golfcore.sweep.queue import Queue
from golfcore.sweep.spec import differences, grid_jobs, parse_axis
from golfcore.tokenizer import SentencePieceTable, Tokenizer
from golfcore.training.checkpoint import SUM_MAGIC, load_checkpoint
from golfcore.training.runlog import budget_use, read_ledger, read_metrics


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def same(a: object, b: object, what: str) -> None:
    if a != b:
        raise AssertionError(f"{what} differs after it was written and read again")


# --- data and tokenizers ---


def shards(data: bytes, folder: Path) -> None:
    write(folder, "fineweb_val_000000.bin", data)
    check_ids(ShardSet.of_split(folder, "val")[:], 260, "shard")


def tokenizer(data: bytes, folder: Path) -> object:
    """Mode 0: a file; mode 1: the merges, behind a header and before a checksum that fit."""
    mode, data = data[:1], data[1:]
    if mode == b"\1":
        data = struct.pack("<8sHHI", b"golfbpe\0", 1, 1, len(data) // 4) + data[: len(data) // 4 * 4]
        data += zlib.crc32(data).to_bytes(4, "little")
    elif mode != b"\0":
        return False
    loaded = Tokenizer.load(write(folder, "tokenizer.bpe", data))
    same(loaded.to_bytes(), data, "a tokenizer")
    text = b"".join(samples.DOCUMENTS) + data[:100]
    return same(loaded.decode(loaded.encode(text)), text, "text")


def sentencepiece(data: bytes, folder: Path) -> None:
    table = SentencePieceTable.load(write(folder, "sp.model", data))
    table.count_bytes(np.arange(min(table.vocab_size, 500)).astype(np.uint16))


def manifest(data: bytes, folder: Path) -> None:
    samples.put(samples.prepared(), folder)
    write(folder, "manifest.json", data)
    prepared = load_prepared(folder)
    prepared.shards("val"), prepared.shards("train"), prepared.val_documents()
    verify(folder)


def val_text(data: bytes, folder: Path) -> object:
    """Mode 0: a file; mode 1: its content before compression."""
    mode, data = data[:1], data[1:]
    if mode == b"\1":
        data = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    documents = read_val_text(write(folder, "val_text.zst", data))
    write_val_text(folder / "again.zst", documents)
    return same(read_val_text(folder / "again.zst"), documents, "validation text")


TEXTS = ("a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.zst")


def text(data: bytes, folder: Path) -> object:
    """The first byte picks a kind; 4 and 5 are compressed here."""
    mode, data = data[0] if data else 99, data[1:]
    if mode > 5:
        return False
    if mode >= 4:
        mode, data = mode - 2, zlib.compress(data, wbits=31) if mode == 4 else zstandard.compress(data)
    for document in read_documents([write(folder, TEXTS[mode], data)]):
        document.decode()
    return None


def hub_manifest(data: bytes, folder: Path) -> None:
    path = write(folder, "manifest.json", data)
    for remote, _ in hub._plan(hub._check_manifest(path), hub.VARIANTS["sp1024"], 1):
        if not (folder / remote).resolve().is_relative_to(folder.resolve()):
            raise AssertionError(f"a file outside of the folder: {remote!r}")


# --- recipes ---


def recipe(data: bytes, folder: Path) -> object:
    """Mode 0: a file; mode 1: the text after --set; mode 2: NAME=value of the contest."""
    mode, data = data[:1], data[1:]
    path, sets, environment = "pocket", [], {}
    if mode == b"\0":
        path = str(write(folder, "t.toml", data))
    elif mode == b"\1":
        sets = [data.decode("utf-8", "surrogateescape")]
    else:
        name, _, value = data.decode("utf-8", "surrogateescape").partition("=")
        if mode != b"\2" or name not in CONTEST_ENV:
            return False
        environment[name] = value
    found = load_recipe(path, environment=environment, sets=sets).config
    write(folder, "again.toml", to_toml(to_tree(found)).encode())
    again = build_recipe(read_recipe(str(folder / "again.toml")), family_configs(), "again.toml")
    same(again, found, "a recipe")
    return check_fits(found, found.data.vocab_size)


# --- models ---


def model(data: bytes, folder: Path) -> object:
    """Mode 0: a file; mode 1: a manifest as JSON, with the tensors of a small model."""
    mode, data = data[:1], data[1:]
    if mode == b"\1":
        try:
            tree = json.loads(data)
        except (ValueError, RecursionError):
            return False
        if not isinstance(tree, dict):
            return False
        data = encode(samples.model()[0], tree)
    path = write(folder, "model.golf", data)
    summary(path, 1000)
    with Container.open(path) as container:
        unpacked_folder.unpack(container, folder / "unpacked")
        same(encode(*unpacked_folder.load(folder / "unpacked")), encode_again(container), "an unpacked model")
    loaded = load_model(path)
    return windows_of(loaded.manifest, 0, None, None)


def encode_again(container: Container) -> bytes:
    from golfcore.container import Tensor

    tensors = [
        Tensor(t.name, t.role, container.read(t.name), t.bits, t.dtype, t.trellis) for t in container.tensors.values()
    ]
    return encode(tensors, container.manifest)


def unpacked(data: bytes, folder: Path) -> object:
    """Mode 0: manifest.json; mode 1: a .npy file."""
    mode, data = data[:1], data[1:]
    samples.put(samples.unpacked(), folder)
    write(folder, "s.npy" if mode == b"\1" else "manifest.json", data)
    return encode(*unpacked_folder.load(folder))


def safetensors(data: bytes, folder: Path) -> object:
    """Mode 0: a file; mode 1: golfcore's metadata in it, as JSON; mode 2: the whole header, as JSON."""
    mode, data = data[:1], data[1:]
    if mode in (b"\1", b"\2"):
        whole = samples.safetensors_file()
        size = int.from_bytes(whole[:8], "little")
        head = data
        if mode == b"\1":
            tree = json.loads(whole[8 : 8 + size])
            tree["__metadata__"] = {interchange.KEY: data.decode("utf-8", "replace")}
            head = json.dumps(tree).encode()
        data = len(head).to_bytes(8, "little") + head + whole[8 + size :]
    path = write(folder, "model.safetensors", data)
    interchange.load_tensors(path)
    return encode(*interchange.read_safetensors(path))


def torch_bytes(data: bytes) -> bytes | None:
    """Mode 0: a file; mode 1: a torch.save file, to be summed; mode 2: a pickle, in a right file around it, summed."""
    mode, data = data[:1], data[1:]
    if mode == b"\0":
        return data
    if mode not in (b"\1", b"\2"):
        return None
    content = samples.zipped(data) if mode == b"\2" else data
    return content + SUM_MAGIC + hashlib.sha256(content).digest()


def checkpoint(data: bytes, folder: Path) -> object:
    content = torch_bytes(data)
    return content is not None and load_checkpoint(write(folder, CHECKPOINT, content))


def quantized(data: bytes, folder: Path) -> object:
    content = torch_bytes(data)
    if content is None:
        return False
    stored, _ = read_quantized(write(folder, QUANTIZED, content))
    return encode([part for item in stored for part in item.parts()], {})


# --- runs, sweeps, benches ---


def run_files(data: bytes, folder: Path) -> object:
    """The first byte picks the file of a run's folder that the rest replaces."""
    mode = data[0] if data else 99
    if mode >= len(samples.RUN_FILES):
        return False
    samples.put(samples.run_folder(), folder)
    write(folder, samples.RUN_FILES[mode], data[1:])
    found = summarize(load_run(folder))  # in any state: what cannot be read is a note
    json.dumps(found, allow_nan=False)
    final_score(parse_log(data[1:].decode("utf-8", "replace")))
    read_curve(folder, read_config(folder))
    read_metrics(folder / METRICS)
    return budget_use(read_ledger(folder / LEDGER))


def record(data: bytes, folder: Path) -> object:
    """A score.json that is to be replayed, as far as no model is needed."""
    write(folder, SCORE, data)
    found = read_record(folder / SCORE)
    now = samples.SCORE_SAMPLE | {"ledger": [{"tokens": [1, 64], "seconds": 1.0, "learned": 0, "state": ""}]}
    return compare(found.content, now)


def report(data: bytes, folder: Path) -> object:
    mode = data[0] if data else 99
    if mode >= len(samples.RUN_FILES):
        return False
    samples.put(samples.run_folder(), folder)
    write(folder, samples.RUN_FILES[mode], data[1:])
    return build_report(folder)


def sweep(data: bytes, folder: Path) -> object:
    """Mode 0: the text after --set; mode 1: a journal; mode 2: the spec in a journal."""
    mode, data = data[:1], data[1:]
    if mode == b"\0":
        axis = parse_axis(data.decode("utf-8", "surrogateescape"))
        return not axis.searched and grid_jobs([axis], [0, 1])
    if mode == b"\2":
        return differences(data.decode("utf-8", "replace"), samples.sweep_spec())
    if mode != b"\1":
        return False
    with contextlib.closing(Queue(write(folder, "sweep.db", data))) as queue:
        differences(queue.meta("spec") or "{}", samples.sweep_spec())
        for entry in queue.entries():
            queue.start(entry.id, 0)
        return queue.entries()


def bench(data: bytes, folder: Path) -> None:
    numbers = {field.name: 1 for field in dataclasses.fields(store.Row)}
    row = store.Row(**numbers | {"case": "norm", "dtype": "fp32", "shape": "8x8", "backend": "own"})
    store.compare(store.read(write(folder, "bench.csv", data)), [row])


def products_cache(data: bytes, folder: Path) -> None:
    with _variable("GOLFCORE_CACHE", str(folder)):
        write(folder, "products.json", data)
        products._read()


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def library(data: bytes, folder: Path) -> None:
    target_of(write(folder, "_core.so", data))


def protocol(data: bytes, folder: Path) -> None:
    """What arrives at a monitor; its caller knows EOFError and ValueError."""
    one, other = socket.socketpair()
    with one, other:
        lines = Lines.__new__(Lines)
        lines.socket, lines._read = one, b""
        one.settimeout(5.0)
        other.sendall(data[:4000])
        other.shutdown(socket.SHUT_WR)
        try:
            while True:
                lines.receive()
        except (EOFError, ValueError) as error:
            if str(error) != "closed":
                raise FormatError("not of the protocol") from error
