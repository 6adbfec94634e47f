"""Verification: a sound folder passes, and each kind of damage fails the check that is about it."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from byte_tokenizer import ByteTokenizer

from golfcore.data.contracts import BOS
from golfcore.data.manifest import Manifest, doc_hash
from golfcore.data.shards import HEADER_BYTES, ShardSet, ShardWriter
from golfcore.data.val_text import write_val_text
from golfcore.data.verify import verify, whole_documents
from golfcore.errors import FormatError, InputError

PREPARED_CHECKS = [
    "manifest", "shard headers", "file hashes", "tokenizer", "train tokens", "train text", "val tokens", "val text",
    "splits disjoint",
]  # fmt: skip


def failures(folder: Path, **options: int) -> dict[str, str]:
    return {c.name: c.detail for c in verify(folder, **options) if not c.ok}


def stream(documents: list[bytes]) -> np.ndarray:
    return np.concatenate([np.append(BOS, ByteTokenizer().encode_batch([d])[0]) for d in documents]).astype(np.uint16)


def write_split(folder: Path, split: str, ids: np.ndarray, shard_tokens: int = 500) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder, split, shard_tokens) as writer:
        writer.append(ids.astype(np.uint16))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reseal(folder: Path) -> None:
    """Rewrites every hash and count that can be rewritten, as someone who hides a change would."""
    tree = json.loads((folder / "manifest.json").read_text())
    tree["tokenizer_sha256"] = sha256(folder / "tokenizer.bpe")
    tree["val_text_sha256"] = sha256(folder / "val_text.zst")
    for split in ("train", "val"):
        tree[split]["docs_sha256"] = sha256(folder / f"{split}_docs.sha")
        for shard in tree[split]["shards"]:
            shard["sha256"] = sha256(folder / shard["name"])
            shard["tokens"] = ((folder / shard["name"]).stat().st_size - HEADER_BYTES) // 2
        tree[split]["tokens"] = sum(s["tokens"] for s in tree[split]["shards"])
    (folder / "manifest.json").write_text(json.dumps(tree))


def patch_ids(path: Path, at: int, value: int) -> None:
    with path.open("r+b") as f:
        f.seek(HEADER_BYTES + 2 * at)
        f.write(value.to_bytes(2, "little"))


def test_a_sound_prepared_folder(prepared: tuple[Path, Manifest]) -> None:
    folder, manifest = prepared
    ticks: list[tuple[float, float, str]] = []
    checks = verify(folder, tick=lambda *t: ticks.append(t))
    assert [c.name for c in checks] == PREPARED_CHECKS
    assert all(c.ok for c in checks), checks
    details = {c.name: c.detail for c in checks}
    assert f"{manifest.train.docs} documents, {manifest.train.tokens:,} tokens" in details["train tokens"]
    assert details["splits disjoint"].startswith(f"none of {manifest.val.docs} validation documents")
    assert {note for _, _, note in ticks} == {"train", "val"}


def damage_size(folder: Path) -> None:
    with (folder / "fineweb_train_000001.bin").open("ab") as f:
        f.write(b"\0")


def damage_zero(folder: Path) -> None:
    (folder / "fineweb_val_000000.bin").write_bytes(b"")


def damage_extra(folder: Path) -> None:
    shutil.copy(folder / "fineweb_train_000000.bin", folder / "fineweb_train_000099.bin")


def damage_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "check", "expected"),
    [
        (damage_manifest, "manifest", "format None"),
        (damage_size, "shard headers", "fineweb_train_000001.bin: 2025 bytes"),
        (damage_zero, "shard headers", "an empty file"),
        (damage_extra, "shard headers", "000099"),
        (lambda f: (f / "train_docs.sha").write_bytes(b"x"), "file hashes", "train_docs.sha"),
        (lambda f: (f / "tokenizer.bpe").write_bytes(b"x"), "file hashes", "tokenizer.bpe"),
        (lambda f: (f / "val_text.zst").unlink(), "file hashes", "val_text.zst"),
        (lambda f: patch_ids(f / "fineweb_train_000000.bin", 3, 77), "file hashes", "fineweb_train_000000.bin"),
    ],
)
def test_damage_is_found_by_headers_and_hashes(
    prepared: tuple[Path, Manifest], damage: Callable[[Path], object], check: str, expected: str
) -> None:
    damage(prepared[0])
    assert expected in failures(prepared[0])[check]


def swap_val_texts(folder: Path) -> None:
    """The same bytes in total, with the border between the first two documents moved."""
    documents = [ByteTokenizer().decode(ids) for ids in np.split(*_val_stream(folder))][1:]
    write_val_text(folder / "val_text.zst", [documents[0][:-1], documents[0][-1:] + documents[1], *documents[2:]])


def _val_stream(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    ids = ShardSet.of_split(folder, "val")[:]
    return ids, np.flatnonzero(ids == BOS)


@pytest.mark.parametrize(
    ("damage", "check", "expected"),
    [
        (lambda f: patch_ids(f / "fineweb_train_000001.bin", 7, 260), "train tokens", "id 260 at token 507"),
        (lambda f: patch_ids(f / "fineweb_train_000000.bin", 0, 70), "train tokens", "starts with id 70"),
        (lambda f: patch_ids(f / "fineweb_train_000000.bin", 5, 2), "train text", "1 pad, eos or unk"),
        (lambda f: patch_ids(f / "fineweb_train_000000.bin", 5, BOS), "train text", "documents of"),
        (lambda f: patch_ids(f / "fineweb_train_000000.bin", 5, 77), "train text", "train_docs.sha"),
        (lambda f: patch_ids(f / "fineweb_val_000000.bin", 5, 77), "val text", "val_docs.sha"),
        (lambda f: write_val_text(f / "val_text.zst", [b"other"]), "val text", "val_text.zst"),
        (swap_val_texts, "val text", "val_text.zst"),
    ],
)
def test_changes_hidden_behind_fresh_hashes_are_found_in_the_text(
    prepared: tuple[Path, Manifest], damage: Callable[[Path], object], check: str, expected: str
) -> None:
    damage(prepared[0])
    reseal(prepared[0])
    found = failures(prepared[0])
    assert list(found) == [check]
    assert expected in found[check]


def test_a_validation_document_put_into_training_is_found(prepared: tuple[Path, Manifest]) -> None:
    """Even with every count and hash in the folder made to fit."""
    folder, manifest = prepared
    leaked = load_val(folder)[3]
    train = ShardSet.of_split(folder, "train")[:].copy()
    write_split(folder, "train", np.concatenate([train, stream([leaked])]), 500)
    with (folder / "train_docs.sha").open("ab") as f:
        f.write(doc_hash(leaked))
    tree = json.loads((folder / "manifest.json").read_text())
    tree["train"]["docs"] += 1
    tree["train"]["bytes"] += len(leaked)
    tree["train"]["shards"] = [
        {"name": p.name, "tokens": 0, "sha256": ""} for p in sorted(folder.glob("fineweb_train_*"))
    ]
    (folder / "manifest.json").write_text(json.dumps(tree))
    reseal(folder)
    found = failures(folder)
    assert list(found) == ["splits disjoint"]
    assert f"1 of {manifest.val.docs} validation documents" in found["splits disjoint"]
    assert f"validation document 3 = training document {manifest.train.docs}" in found["splits disjoint"]


def load_val(folder: Path) -> list[bytes]:
    ids, starts = _val_stream(folder)
    return [ByteTokenizer().decode(part) for part in np.split(ids, starts)[1:]]


def test_a_tokenizer_of_another_size(prepared: tuple[Path, Manifest]) -> None:
    folder = prepared[0]
    tree = json.loads((folder / "manifest.json").read_text())
    tree["vocab_size"] = 300
    (folder / "manifest.json").write_text(json.dumps(tree))
    assert failures(folder) == {"tokenizer": "tokenizer.bpe: 260 tokens, the manifest says 300"}


@pytest.fixture
def contest(tmp_path: Path, documents: list[bytes]) -> Path:
    folder = tmp_path / "shards"
    write_split(folder, "train", stream(documents[:40]))
    write_split(folder, "val", stream(documents[40:]))
    return folder


def test_a_sound_folder_of_contest_shards(contest: Path) -> None:
    checks = verify(contest, vocab_size=260)
    assert [c.name for c in checks] == ["shard headers", "train tokens", "val tokens", "splits disjoint"]
    assert all(c.ok for c in checks)
    assert "20 documents" in checks[2].detail
    assert checks[3].detail == "none of 20 validation documents is among 40 in training"


def test_a_leak_between_contest_shards_is_found_without_a_tokenizer(contest: Path, documents: list[bytes]) -> None:
    write_split(contest, "train", stream(documents[:42]))
    assert "2 of 20 validation documents are in training" in failures(contest)["splits disjoint"]


def test_the_vocabulary_is_read_from_a_contest_folders_name(contest: Path) -> None:
    folder = contest.rename(contest.with_name("fineweb10B_sp1024"))
    patch_ids(folder / "fineweb_val_000000.bin", 9, 1024)
    assert "id 1024 at token 9, expected below vocab_size = 1024" in failures(folder)["val tokens"]


def test_a_part_of_the_contests_validation_is_not_taken_for_the_whole(
    contest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = contest.rename(contest.with_name("fineweb10B_byte260"))
    assert "20 validation documents, the contest's split has 50,000" in failures(folder)["whole validation"]
    monkeypatch.setattr("golfcore.data.verify.CONTEST_VAL_DOCS", 20)
    assert failures(folder) == {}


def test_contest_shards_missing_in_between(contest: Path) -> None:
    (contest / "fineweb_train_000002.bin").unlink()
    assert "train: shard 2 is missing" in failures(contest)["shard headers"]


def test_the_first_validation_shard_missing(contest: Path) -> None:
    (contest / "fineweb_val_000000.bin").unlink()
    assert "val: shard 0 is missing" in failures(contest)["shard headers"]


def test_training_shards_without_validation(contest: Path) -> None:
    for path in contest.glob("fineweb_val_*"):
        path.unlink()
    assert "no fineweb_val_000000.bin" in failures(contest)["shard headers"]


def test_validation_shards_alone_say_that_nothing_was_compared(contest: Path) -> None:
    for path in contest.glob("fineweb_train_*"):
        path.unlink()
    checks = verify(contest)
    assert [c.name for c in checks] == ["shard headers", "val tokens"]
    assert "no train shards" in checks[0].detail


def test_byte_counts_beside_validation_shards(contest: Path) -> None:
    ids = ShardSet.of_split(contest, "val")[:]
    write_split(contest, "val_bytes", (ids >= 4).astype(np.uint16))
    details = {c.name: c.detail for c in verify(contest)}
    assert details["byte counts"] == f"{np.count_nonzero(ids >= 4):,} bytes of text"
    write_split(contest, "val_bytes", np.ones(7), 7)
    assert "7 counts for 500 tokens" in failures(contest)["byte counts"]
    (contest / "fineweb_val_bytes_000001.bin").unlink()
    assert "files of byte counts" in failures(contest)["byte counts"]


def test_folders_that_hold_no_tokens(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        verify(tmp_path / "nowhere")
    with pytest.raises(InputError, match="neither"):
        verify(tmp_path)


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 10_000])
def test_documents_are_whole_whatever_the_size_of_the_pieces(tmp_path: Path, chunk: int) -> None:
    rng = np.random.default_rng(0)
    ids = np.where(rng.random(500) < 0.1, BOS, rng.integers(4, 260, 500))
    ids[0] = ids[-1] = BOS
    ids[200:260] = 9  # a document longer than most pieces
    write_split(tmp_path, "val", ids, 64)
    pieces = list(whole_documents(ShardSet.of_split(tmp_path, "val"), chunk))
    assert np.concatenate([p for p, _ in pieces]).tolist() == ids.tolist()
    for piece, starts in pieces:
        assert starts.tolist() == np.flatnonzero(piece == BOS).tolist()
        assert starts[0] == 0


def test_a_stream_without_document_starts_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("golfcore.data.verify.MAX_DOCUMENT_TOKENS", 64)
    write_split(tmp_path, "val", np.append(BOS, np.full(499, 9)), 1000)
    with pytest.raises(FormatError, match="no BOS in 64 tokens"):
        list(whole_documents(ShardSet.of_split(tmp_path, "val"), 8))
