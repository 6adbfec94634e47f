"""The cache of prepared texts: a folder is used only if it proves that it was made from this text."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from byte_tokenizer import ByteTokenizer

from golfcore.data import cache as module
from golfcore.data.cache import cached_prepare
from golfcore.data.hints import prepared_cache
from golfcore.data.manifest import Manifest
from golfcore.data.prepare import load_prepared, prepare
from golfcore.errors import InputError, UsageError


def test_the_cache_is_used_until_text_or_settings_change(corpus: Path, trained: list[ByteTokenizer]) -> None:
    first = cached_prepare([corpus], vocab_size=260, val_fraction=0.2)
    assert cached_prepare([corpus], vocab_size=260, val_fraction=0.2) == first
    assert len(trained) == 1
    others = {cached_prepare([corpus], vocab_size=300, val_fraction=0.2), cached_prepare([corpus], vocab_size=260)}
    corpus.write_text(corpus.read_text() + '{"text": "one more"}\n')
    others.add(cached_prepare([corpus], vocab_size=260, val_fraction=0.2))
    assert len(others | {first}) == 4


def test_a_damaged_folder_in_the_cache_is_made_again(corpus: Path, trained: list[ByteTokenizer]) -> None:
    folder = cached_prepare([corpus])
    (folder / "fineweb_val_000000.bin").unlink()
    assert cached_prepare([corpus]) == folder
    load_prepared(folder)
    assert len(trained) == 2


def test_two_processes_making_the_same_folder(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.prepare

    def slower(paths: list[Path], out: Path, **kwargs: object) -> Manifest:
        real(paths, out, **kwargs)  # the other process was first
        return real(paths, out, **kwargs)

    monkeypatch.setattr(module, "prepare", slower)
    load_prepared(cached_prepare([corpus]))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another text, of as many documents of as many bytes."""
    path = tmp_path / "other.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"News {i}: " + "other words " * (i % 7 + 1)}) + "\n" for i in range(60))
    )
    return path


def edited(**changes: object) -> Callable[[Path, Path], None]:
    def edit(folder: Path, other: Path) -> None:
        tree = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(tree | changes))

    return edit


def flipped(name: str) -> Callable[[Path, Path], None]:
    def flip(folder: Path, other: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)

    return flip


def replaced_by_a_prepared_folder(folder: Path, other: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(cached_prepare([other]), folder)


def swapped(name: str) -> Callable[[Path, Path], None]:
    return lambda folder, other: shutil.copyfile(cached_prepare([other]) / name, folder / name)


@pytest.mark.parametrize(
    "trouble",
    [
        replaced_by_a_prepared_folder, swapped("val_text.zst"), swapped("manifest.json"),
        flipped("fineweb_train_000000.bin"), flipped("val_text.zst"), edited(val_fraction=0.5), edited(vocab_size=300),
        edited(cache_key=""), edited(tokenizer_sha256="0" * 64),
    ],
)  # fmt: skip
def test_a_folder_that_does_not_prove_its_text_is_made_again(corpus: Path, other: Path, trouble) -> None:
    folder = cached_prepare([corpus])
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    trouble(folder, other)
    assert cached_prepare([corpus]) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == good


def test_a_folder_of_an_earlier_version_is_made_again(corpus: Path) -> None:
    """Its manifest has neither a key nor counts."""
    folder = cached_prepare([corpus])
    tree = json.loads((folder / "manifest.json").read_text())
    del tree["cache_key"], tree["reading"]
    (folder / "manifest.json").write_text(json.dumps(tree))
    assert load_prepared(folder).manifest.reading is None
    assert load_prepared(cached_prepare([corpus])).manifest.cache_key


def test_nobody_else_writes_into_the_cache(corpus: Path, other: Path) -> None:
    folder = cached_prepare([corpus])
    shutil.rmtree(folder)
    for place in (folder, prepared_cache(), folder.parent / ".." / "prepared" / folder.name, folder / "deeper"):
        with pytest.raises(UsageError, match="leave out -o"):
            prepare([other], place, tokenizer=ByteTokenizer())
    assert not folder.exists()


def test_text_that_changes_after_it_was_hashed(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.prepare

    def change_first(paths: list[Path], out: Path, **kwargs: object) -> Manifest:
        corpus.write_text(corpus.read_text() + '{"text": "late"}\n')
        return real(paths, out, **kwargs)

    monkeypatch.setattr(module, "prepare", change_first)
    with pytest.raises(InputError, match="changed while it was read"):
        cached_prepare([corpus])
    assert list(prepared_cache().iterdir()) == []


def test_what_was_read_is_told_each_time(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(corpus, folder / "deep" / "A.JSONL")
    (folder / "notes.md").write_text("left out")
    first = cached_prepare([folder])
    (folder / "more.md").write_text("left out too")
    assert cached_prepare([folder]) == first
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "text: 61 documents in 1 file; files left out: 1 .md; 1 doubles dropped",
        "text: 61 documents in 1 file; files left out: 2 .md; 1 doubles dropped; prepared before",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    reading = load_prepared(first).manifest.reading
    assert reading is not None and (reading.documents, reading.left_out) == (61, {".md": 1})
