"""Small files of every kind that golfcore reads, as bytes: what the fuzzers begin with."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import sqlite3
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard

sys.path.insert(0, str(Path(__file__).parent.parent))
import tiny

from golfcore.artifact import folder, interchange
from golfcore.artifact.model_io import StoredTensor, model_tensors
from golfcore.config import to_toml, to_tree
from golfcore.container import Container, Tensor, encode
from golfcore.data.prepare import prepare
from golfcore.data.shards import header
from golfcore.data.val_text import write_val_text
from golfcore.model import get_family
from golfcore.run_folder import CONFIG, LEDGER, LOG, METRICS, QUANTIZATION_ERRORS, SCORE
from golfcore.sweep.queue import Queue
from golfcore.sweep.spec import grid_jobs, parse_axis, spec_text
from golfcore.tokenizer import Tokenizer
from golfcore.training.checkpoint import save_checkpoint
from golfcore.training.runlog import RunLog, final_line, size_lines

DOCUMENTS = [
    b"The model predicts the next token.",
    b"A byte counts once; caf\xc3\xa9.",
    b"\xf0\x9f\x98\x80 and 42",
    b"x",
]


def written(write: Callable[[Path], object], name: str = "file") -> bytes:
    """The bytes that ``write`` puts into the file that it is given."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / name
        write(path)
        return path.read_bytes()


def files_of(write: Callable[[Path], object]) -> dict[str, bytes]:
    """The files, by name, that ``write`` puts into the folder that it is given."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "folder"
        write(path)
        return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def put(files: Mapping[str, bytes], into: Path) -> None:
    """Write files into a folder."""
    for name, content in files.items():
        (into / name).write_bytes(content)


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.train([document * 9 for document in DOCUMENTS], 280)


@cache
def prepared() -> dict[str, bytes]:
    """The files of a prepared folder."""
    text = json_lines([document.decode() for document in DOCUMENTS * 2])

    def write(path: Path) -> None:
        source = path.parent / "documents.jsonl"
        source.write_bytes(text)
        prepare([source], path, tokenizer=tokenizer(), val_fraction=0.4)

    return files_of(write)


def json_lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@cache
def model() -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """The tensors and the manifest of a model of one layer, without its code."""
    from golfcore.model.gpt.config import GPTConfig

    config = GPTConfig(num_layers=1, model_dim=8, num_heads=2, num_kv_heads=1, mlp_mult=1)
    module = tiny.scrambled(config, tokenizer().vocab_size)
    family = get_family("gpt")
    stored = [
        StoredTensor(name, role.group, module.state_dict()[name].half())
        for name, role in module.parameter_roles().items()
    ]
    facts = {
        "recipe": "tiny",
        "tokenizer_sha256": tokenizer().sha256,
        "eval": {"context": 64, "stride": "auto", "budget_s": 9.0},
    }
    tensors, manifest = model_tensors(family, config, tokenizer().vocab_size, stored, tokenizer().to_bytes(), facts)
    return tuple(tensor for tensor in tensors if tensor.role != "code"), manifest


@cache
def model_file() -> bytes:
    return encode(*model())


def shards() -> dict[str, bytes]:
    return {
        "four": header(4) + np.array([1, 5, 259, 7], "<u2").tobytes(),
        "empty": header(0),
        "one": header(1) + b"\1\0",
    }


def val_text(documents: list[bytes]) -> bytes:
    return written(lambda path: write_val_text(path, documents))


@cache
def run_folder() -> dict[str, bytes]:
    """The files of a run with a score, but without its weights."""

    def write(path: Path) -> None:
        with RunLog(path, primary=True) as log:
            with log.phase("train", 60.0):
                for step in range(3):
                    log.train(step, 3, loss=6.0 - step, train_s=0.1 * step, tokens=8 * step, lr_mult=1.0, step_ms=50.0)
                log.val(2, 3, loss=4.0, bpb=2.5, train_s=0.2)
            with log.phase("evaluate", 60.0):
                pass
            for line in (*size_lines(100, 900, "int6+rans"), final_line(4.0, 2.5, "int6_rans")):
                log.line(line)
        (path / CONFIG).write_text(to_toml(to_tree(tiny.recipe())))
        (path / SCORE).write_text(json.dumps(SCORE_SAMPLE))
        row = {
            "name": "w",
            "role": "q",
            "params": 64,
            "bits": 6,
            "states": 0,
            "error_db": 9.0,
            "hessian_db": None,
            "kl": 0.1,
            "bpb": 2.6,
        }
        total = {
            "params": 64,
            "hessian_db": None,
            "kl": 0.1,
            "bpb": 2.6,
            "bpb_before": 2.5,
            "tokens": 64,
            "calibration_tokens": 0,
        }
        (path / QUANTIZATION_ERRORS).write_text(json.dumps({"tensors": [row], "total": total, "plan": None}))

    return files_of(write)


SCORE_SAMPLE = {
    "val_bpb": 2.5, "val_loss": 4.0, "tokens": 64, "bytes": 150, "eval_s": 1.5, "context": 64, "stride": 32,
    "pace": {"strides": [[1, 32]], "warnings": []}, "artifact": "model.golf", "artifact_bytes": 900,
    "artifact_sha256": "0" * 64, "made_by": {"python": "3"}, "code_matches": True, "future_flip_nats": 0.0,
    "precision": "float32", "world_size": 1, "batch_tokens": 64, "adapt": "none", "documents": 1, "source": {},
    "data_sha256": "0" * 64, "ledger_sha256": "0" * 64,
    "ledger": [{"tokens": [1, 64], "seconds": 1.0, "learned": 0, "state": ""}],
}  # fmt: skip
RUN_FILES = (CONFIG, METRICS, LEDGER, SCORE, QUANTIZATION_ERRORS, LOG, "env.json")


@cache
def sweep_spec() -> str:
    axes = [parse_axis("optim.matrix_lr=0.02,0.03"), parse_axis("train.batch_ramp=[8192,16384],[]")]
    return spec_text(to_tree(tiny.recipe()), axes, [0, 1], 0, {"margin": 0.05, "after": 0.3})


@cache
def journal() -> bytes:
    """A sweep's journal with jobs that wait, run and are done, in as small pages as SQLite has."""

    def write(path: Path) -> None:
        with sqlite3.connect(path) as empty:
            empty.execute("PRAGMA page_size = 512")
        empty.close()
        queue = Queue(path)
        queue.begin(sweep_spec(), grid_jobs([parse_axis("optim.matrix_lr=0.02,0.03")], [0, 1]))
        for entry in queue.entries()[:2]:
            queue.start(entry.id, 0)
        queue.end(1, "done", {"val_bpb": 2.5, "bytes_total": 900}, "")
        queue.close()

    return written(write, "sweep.db")


def hub_manifest() -> bytes:
    data = {"name": "fineweb10B_sp1024", "tokenizer_name": "sp", "stats": {"files_train": 3, "files_val": 1}}
    own = {"name": "sp", "model_path": "tokenizers/sp.model", "vocab_path": "tokenizers/sp.vocab"}
    return json.dumps({"datasets": [data], "tokenizers": [own]}).encode()


@cache
def sentencepiece_model() -> bytes:
    import sentencepiece

    content = io.BytesIO()
    sentences = [*(document.decode() for document in DOCUMENTS), "the next model counts the byte once"] * 5
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=content, model_type="bpe", vocab_size=300,
        byte_fallback=True, hard_vocab_limit=False, pad_id=0, bos_id=1, eos_id=2, unk_id=3, minloglevel=2,
        normalization_rule_name="identity",
    )  # fmt: skip
    return content.getvalue()


# --- torch.save files ---


def checkpoint_state() -> dict[str, Any]:
    """The form of a checkpoint, with two tensors that share memory."""
    weights = torch.arange(6.0).reshape(2, 3)
    return {
        "module": {"w": weights}, "weights": {"w": weights, "half": torch.ones(3, dtype=torch.bfloat16)},
        "optimizers": {"muon": {"step": 3, "m": torch.zeros(2, 3)}}, "loader": {"position": 17}, "final": False,
        "choices": {"precision": "fp32", "attention": "own"}, "step": 3, "train_s": 1.5, "tokens": 768, "averaged": 0,
    }  # fmt: skip


def checkpoint() -> bytes:
    return written(lambda path: save_checkpoint(path.parent, checkpoint_state()), "checkpoint.pt")


def quantized_state() -> dict[str, Any]:
    symbols = StoredTensor("q", "q", torch.ones(2, 4, dtype=torch.int8), torch.ones(2, dtype=torch.float16), 6, 3)
    low = StoredTensor("a", "q", torch.ones(2, 1).half()), StoredTensor("b", "q", torch.ones(1, 4).half())
    rows = [
        symbols,
        StoredTensor("e", "embed", torch.ones(3).half()),
        StoredTensor("c", "q", symbols.values, symbols.scale, 6, 0, None, low),
    ]
    return {"version": 2, "tensors": [astuple(row) for row in rows]}


def torch_file(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def pickle_of(state: object) -> bytes:
    """The pickle inside of ``torch.save``'s file."""
    with zipfile.ZipFile(io.BytesIO(torch_file(state))) as file:
        return file.read(next(name for name in file.namelist() if name.endswith("/data.pkl")))


def zipped(
    data: bytes, *, storages: int = 6, compression: int = zipfile.ZIP_STORED, storage: bytes = bytes(64)
) -> bytes:
    """A file as ``torch.save`` writes it around any pickle, with storages 0, 1, ... of zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/byteorder", "little")
        for number in range(storages):
            file.writestr(f"archive/data/{number}", storage)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/.data/serialization_id", "0" * 40)
    return buffer.getvalue()


class Bomb:
    """An object whose pickle calls a function of the standard library when it is read."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def bombs(mark: str) -> dict[str, bytes]:
    """Pickles that would make the file or folder ``mark`` if anything in them were called, and others that swell."""
    import os
    import subprocess

    python = f"open({mark!r}, 'w')"
    return {
        "system": pickle.dumps({"version": 3, "weights": Bomb(os.system, f"touch {mark}")}, 2),
        "mkdir": pickle.dumps(Bomb(os.mkdir, mark), 2),
        "eval": pickle.dumps(Bomb(eval, python), 2),
        "exec": pickle.dumps([Bomb(exec, python)], 2),
        "open": pickle.dumps(Bomb(open, mark, "w"), 2),
        "popen": pickle.dumps(Bomb(subprocess.Popen, ["touch", mark]), 2),
        "getattr": b"cbuiltins\ngetattr\n(cos\nsystem\nX\x04\x00\x00\x00nameetR.",
        "nested": b"ctorch.serialization\nload\n(X" + len(mark).to_bytes(4, "little") + mark.encode() + b"tR.",
        "instance": b"(X" + len(mark).to_bytes(4, "little") + mark.encode() + b"ios\nmkdir\n.",
        "numpy": pickle.dumps(np.arange(4), 2),
        "numpy_object": pickle.dumps(np.array([Bomb(os.mkdir, mark)], dtype=object), 2),
        "deep": b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".",
        "deeper": b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b".",
        "marks": b"\x80\x02" + b"]" * 100_000 + b".",
        "long": b"\x80\x02\x8b" + (1 << 31).to_bytes(4, "little"),
        "text": b"\x80\x02X" + (0xFFFFFFF0).to_bytes(4, "little") + b"a.",
        "self": b"\x80\x02]q\x00h\x00a.",
        "twice": b"\x80\x02]q\x00" + b"(h\x00h\x00h\x00h\x00lq\x00" * 40 + b".",
        "huge": _tensor_of(1 << 40),
        "negative": _tensor_of(-1),
    }


def _tensor_of(numel: int) -> bytes:
    """A pickled tensor whose storage claims to have ``numel`` elements; a few bytes are there."""
    honest = pickle_of({"version": 3, "w": torch.zeros(77)})
    assert honest.count(b"KM") == 2  # the size of the storage, and that of the tensor
    return honest.replace(b"KM", b"\x8a\x08" + numel.to_bytes(8, "little", signed=True))


# --- texts ---


def texts() -> dict[str, bytes]:
    """Files of text, each behind the number of its kind (``parsers.TEXTS``)."""
    rng = random.Random(0)
    plain = b"One paragraph.\n\nAnother, caf\xc3\xa9.\n" * 3
    long = "\n".join(" ".join(rng.choices(("the", "of", "byte"), k=12)) for _ in range(400)).encode()
    lines = json_lines(["first", "", "caf\u00e9 \U0001f600", "last"])
    return {
        "txt": b"\0" + plain, "long": b"\0" + long, "bom": b"\0\xef\xbb\xbf" + plain, "jsonl": b"\1" + lines,
        "jsonl_bom": b"\1\xef\xbb\xbf" + lines, "gz": b"\2" + gzip.compress(plain, mtime=0),
        "two_gz": b"\2" + gzip.compress(plain, mtime=0) * 2, "zst": b"\3" + zstandard.compress(lines),
        "two_zst": b"\3" + zstandard.compress(lines) * 2, "in_gz": b"\4" + plain, "in_zst": b"\5" + lines,
    }  # fmt: skip


def unpacked() -> dict[str, bytes]:
    """The files of an unpacked folder of three tensors."""
    with Container.from_bytes(encode(*few_tensors())) as container:
        return files_of(lambda path: folder.unpack(container, path))


def few_tensors() -> tuple[list[Tensor], dict[str, Any]]:
    tensors = [
        Tensor("q", "matrix", np.array([[1, -2], [0, 3]], np.int8), 6),
        Tensor("s", "scale", np.array([0.5, 1.5], np.float16)),
        Tensor("b", "control", np.array([1, 2, 3], np.uint16), dtype="bf16"),
    ]
    return tensors, {"recipe": "tiny"}


def safetensors_file() -> bytes:
    with Container.from_bytes(encode(*few_tensors())) as container:
        return written(lambda path: interchange.write_safetensors(container, path), "model.safetensors")
