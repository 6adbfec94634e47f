"""Preparing text: a deterministic split without leaks, exact bytes kept, and nothing half-done."""

import errno
import json
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zstandard
from byte_tokenizer import ByteTokenizer

from golfcore.data import prepare as module
from golfcore.data.contracts import BOS
from golfcore.data.manifest import Manifest, doc_hash
from golfcore.data.prepare import load_prepared, prepare
from golfcore.data.val_text import read_val_text, write_val_text
from golfcore.errors import FormatError, InputError, UsageError
from golfcore.paths import sha256_file


def documents_of(folder: Path, split: str) -> list[bytes]:
    """A split's documents from its tokens, the slow and obvious way."""
    ids = load_prepared(folder).shards(split)[:]
    starts = [*np.flatnonzero(ids == BOS), len(ids)]
    return [ByteTokenizer().decode(ids[a:b]) for a, b in pairwise(starts)]


def test_the_splits_are_the_documents_once_each(prepared: tuple[Path, Manifest], documents: list[bytes]) -> None:
    folder, manifest = prepared
    train, val = documents_of(folder, "train"), documents_of(folder, "val")
    assert sorted(train + val) == sorted(documents)
    assert val == [d for d in documents if d in set(val)]  # reading order
    assert 0 < len(val) < len(train)
    assert load_prepared(folder).val_documents() == val
    assert manifest.duplicates == 1
    for split, docs in ((manifest.train, train), (manifest.val, val)):
        assert (split.docs, split.bytes) == (len(docs), sum(map(len, docs)))
        assert split.tokens == sum(s.tokens for s in split.shards) == split.bytes + split.docs
        assert all(s.tokens == 500 for s in split.shards[:-1])
    assert (folder / "train_docs.sha").read_bytes() == b"".join(doc_hash(d) for d in train)
    assert (folder / "val_docs.sha").read_bytes() == b"".join(doc_hash(d) for d in val)


def test_the_manifest_names_every_file_by_hash(prepared: tuple[Path, Manifest]) -> None:
    folder, manifest = prepared
    assert Manifest.load(folder) == manifest
    named = {s.name: s.sha256 for split in (manifest.train, manifest.val) for s in split.shards} | {
        "tokenizer.bpe": manifest.tokenizer_sha256,
        "val_text.zst": manifest.val_text_sha256,
        "train_docs.sha": manifest.train.docs_sha256,
        "val_docs.sha": manifest.val.docs_sha256,
    }
    assert {p.name for p in folder.iterdir()} == {*named, "manifest.json"}
    assert all(sha256_file(folder / name) == sha256 for name, sha256 in named.items())
    assert manifest.source == "corpus.jsonl"


def test_the_result_is_the_same_bytes_each_time(prepared: tuple[Path, Manifest], corpus: Path, tmp_path: Path) -> None:
    folder, _ = prepared
    again = tmp_path / "again"
    prepare([corpus], again, tokenizer=ByteTokenizer(), val_fraction=0.2, shard_tokens=500, threads=1)
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_more_text_moves_no_document_to_the_other_split(
    prepared: tuple[Path, Manifest], corpus: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"text": f"more text {i}"}) + "\n" for i in range(40)))
    prepare([more, corpus], tmp_path / "both", tokenizer=ByteTokenizer(), val_fraction=0.2)
    assert set(documents_of(prepared[0], "val")) <= set(documents_of(tmp_path / "both", "val"))


@pytest.mark.parametrize(("fraction", "sizes"), [(1e-9, (59, 1)), (1 - 1e-9, (1, 59))])
def test_no_split_is_ever_empty(corpus: Path, tmp_path: Path, fraction: float, sizes: tuple[int, int]) -> None:
    manifest = prepare([corpus], tmp_path / "out", tokenizer=ByteTokenizer(), val_fraction=fraction)
    assert (manifest.train.docs, manifest.val.docs) == sizes


def test_the_tokenizer_is_trained_on_training_documents_only(
    corpus: Path, tmp_path: Path, trained: list[ByteTokenizer]
) -> None:
    prepare([corpus], tmp_path / "out", vocab_size=260, val_fraction=0.2)
    (tokenizer,) = trained
    assert tokenizer.seen == documents_of(tmp_path / "out", "train")


def test_the_tokenizers_sample_is_bounded_and_does_not_depend_on_the_order(
    corpus: Path, tmp_path: Path, trained: list[ByteTokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLE_BYTES", 2000)
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(reversed(corpus.read_text().splitlines())))
    for path in (corpus, turned):
        prepare([path], tmp_path / path.stem, val_fraction=0.2)
    first, second = (t.seen for t in trained)
    assert sorted(first) == sorted(second)
    assert 0 < sum(map(len, first)) <= 2000


def test_text_longer_than_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: Path) -> None:
    monkeypatch.setattr(module, "_BATCH_BYTES", 100)
    ticks: list[tuple[float, float, str]] = []
    manifest = prepare([corpus], tmp_path / "a", val_fraction=0.2, tick=lambda *t: ticks.append(t))
    monkeypatch.setattr(module, "_BATCH_BYTES", 1 << 20)
    assert prepare([corpus], tmp_path / "b", val_fraction=0.2) == manifest
    assert [note for _, _, note in ticks] == ["training the tokenizer"]


@pytest.mark.parametrize("lines", [1, 3])
def test_one_document_is_not_enough(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"text": "the same"}\n' * lines)
    with pytest.raises(InputError, match="expected at least 2"):
        prepare([path], tmp_path / "out", tokenizer=ByteTokenizer())


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 7])
def test_fractions_outside_their_range(corpus: Path, tmp_path: Path, fraction: float) -> None:
    with pytest.raises(UsageError, match="val_fraction"):
        prepare([corpus], tmp_path / "out", val_fraction=fraction)


def test_a_tokenizer_that_loses_bytes_is_refused(corpus: Path, tmp_path: Path) -> None:
    class Lossy(ByteTokenizer):
        def encode_batch(self, docs, threads=0):
            return super().encode_batch([d[:-1] for d in docs], threads)

    class Odd(ByteTokenizer):
        vocab_size = 200

    with pytest.raises(InputError, match="loses nothing"):
        prepare([corpus], tmp_path / "out", tokenizer=Lossy())
    with pytest.raises(FormatError, match="vocab_size = 200"):
        prepare([corpus], tmp_path / "out", tokenizer=Odd())
    assert not (tmp_path / "out").exists()


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("place", ["ShardWriter.append", "write_val_text", "Manifest.save"])
def test_an_interrupted_prepare_leaves_nothing(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, place: str
) -> None:
    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr(f"golfcore.data.prepare.{place}", stop)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else InputError
    with pytest.raises(expected) as caught:
        prepare([corpus], tmp_path / "deep" / "out", tokenizer=ByteTokenizer(), shard_tokens=100)
    if expected is InputError:
        assert "the disk is full" in str(caught.value)
    assert leftovers(tmp_path / "deep") == []


def test_a_folder_in_the_way_is_left_alone(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    prepare([corpus], out, tokenizer=ByteTokenizer())  # an empty folder may be filled
    before = leftovers(out)
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        prepare([corpus], out, tokenizer=ByteTokenizer())
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        prepare([corpus], corpus, tokenizer=ByteTokenizer())
    assert leftovers(out) == before


def test_text_that_changes_while_it_is_read(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._survey

    def survey_then_change(*args: object, **kwargs: object) -> object:
        found = real(*args, **kwargs)
        corpus.write_text('{"text": "other"}\n{"text": "text"}\n')
        return found

    monkeypatch.setattr(module, "_survey", survey_then_change)
    with pytest.raises(InputError, match="changed while it was read"):
        prepare([corpus], tmp_path / "out", tokenizer=ByteTokenizer())
    assert leftovers(tmp_path) == ["corpus.jsonl"]


def edit(folder: Path, change) -> None:
    tree = json.loads((folder / "manifest.json").read_text())
    change(tree)
    (folder / "manifest.json").write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.update(format=2), "format 2, expected 1"),
        (lambda t: t.pop("source"), "source"),
        (lambda t: t.update(extra=1), "extra"),
        (lambda t: t.update(vocab_size="260"), "vocab_size = '260'"),
        (lambda t: t["val"].update(docs=-1), "docs = -1"),
        (lambda t: t.update(train=[]), "train: expected a table"),
        (lambda t: t["train"].update(shards=5), "not a list"),
        (lambda t: t["train"]["shards"][0].update(tokens=7), "500 tokens, the manifest says 7"),
        (lambda t: t["train"].update(tokens=7), "do not add up to 7"),
        (lambda t: t.update(tokenizer_sha256="0"), "tokenizer.bpe: not the file that was prepared"),
    ],
)
def test_manifests_that_do_not_fit(prepared: tuple[Path, Manifest], change, expected: str) -> None:
    edit(prepared[0], change)
    with pytest.raises(FormatError, match=expected):
        load_prepared(prepared[0])


def test_prepared_folders_with_files_missing(prepared: tuple[Path, Manifest]) -> None:
    folder, _ = prepared
    (folder / "val_text.zst").unlink()
    with pytest.raises(InputError, match=r"val_text\.zst: missing"):
        load_prepared(folder)
    (folder / "manifest.json").write_text("[")
    with pytest.raises(FormatError, match="not JSON"):
        load_prepared(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match="golfcore data prepare"):
        load_prepared(folder)


def test_validation_text_comes_back_exactly(tmp_path: Path) -> None:
    documents = [b"first", b"", "é☕".encode(), bytes(range(256))]
    write_val_text(tmp_path / "v", documents)
    assert read_val_text(tmp_path / "v") == documents


def packed(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(plain)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "damaged"),
        (b"nonsense", "damaged"),
        (packed(b"GOLFTXT1" + bytes(8))[:-2], "damaged"),
        (packed(b"GOLFTXT1"), "claims 8 bytes"),
        (packed(b"GOLFTXT0" + bytes(8)), "starts with"),
        (packed(b"GOLFTXT1" + struct.pack("<Q", 2**61) + b"x"), "too many"),
        (packed(b"GOLFTXT1" + struct.pack("<2Q", 1, 3) + b"xx"), "end at byte 27"),
        (
            # Lengths that would add up in 64 bits.
            packed(b"GOLFTXT1" + struct.pack("<3Q", 2, 2**64 - 1, 3) + b"xx"),
            "end at byte",
        ),
        (zstandard.ZstdCompressor(write_content_size=False).compress(bytes(50)), "claims"),
    ],
)
def test_damaged_validation_text(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(FormatError, match=expected):
        read_val_text(tmp_path / "v")


def test_too_much_validation_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("golfcore.data.val_text.MAX_BYTES", 100)
    with pytest.raises(InputError, match="--val-fraction"):
        write_val_text(tmp_path / "v", [b"x" * 100])
    assert not (tmp_path / "v").exists()
