"""A run knows its data: every later stage refuses other tokens, and its advice brings back the right ones."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import recipe

import golfcore
from golfcore.cli import main
from golfcore.config import DATA_HASHES, DataConfig, RecipeConfig, to_toml, to_tree
from golfcore.data.cache import cached_prepare
from golfcore.data.hints import how_to_prepare, prepared_cache
from golfcore.data.prepare import prepare
from golfcore.data.tokens import open_run, prepare_data
from golfcore.errors import GolfError, InputError, UsageError
from golfcore.pipeline.config import read_config, write_config
from golfcore.recipes import load_recipe
from golfcore.run_folder import CHECKPOINT, CONFIG, LOG, QUANTIZED
from golfcore.training.checkpoint import load_checkpoint

VOCAB, FRACTION = 300, 0.1


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> dict[str, Path]:
    """Our text, in a folder with a blank in its name, and one of the same lengths with other words."""
    folder = tmp_path_factory.mktemp("my texts")
    own, other = folder / "my text.jsonl", folder / "other.jsonl"
    own.write_bytes(text_file.read_bytes())
    other.write_text(text_file.read_text().replace("the ", "eht ").replace("and ", "dna "))
    return {"own": own, "other": other}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def trained(home: Path, texts: dict[str, Path]) -> Path:
    """A run on our text in the cache, with a checkpoint from the middle of its training beside the last one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOLFCORE_CACHE", str(home / "cache"))
        data = DataConfig(vocab_size=VOCAB, val_fraction=FRACTION)
        config = dataclasses.replace(recipe(iterations=3), data=data)
        config = dataclasses.replace(config, quant=dataclasses.replace(config.quant, method="rtn"))
        run_dir = golfcore.train(config, text=texts["own"], runs=home / "runs", run_id="a")
        assert run_dir is not None
        golfcore.quantize(run_dir)
    return run_dir


@pytest.fixture
def run_dir(trained: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run and of the cache, whose paths in the config point to the copy."""
    shutil.copytree(home / "cache", tmp_path / "cache")
    shutil.copytree(trained, tmp_path / "a")
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path / "cache"))
    config = tmp_path / "a" / CONFIG
    config.write_text(config.read_text().replace(str(home), str(tmp_path)))
    return tmp_path / "a"


def folder_of(run_dir: Path) -> Path:
    return Path(read_config(run_dir).data.path)


def unfinished(run_dir: Path) -> None:
    """Make the last checkpoint one of a run that was cut off."""
    saved = torch.load(run_dir / CHECKPOINT, weights_only=True)
    torch.save(saved | {"final": False, "step": 2}, run_dir / CHECKPOINT)


STAGES: dict[str, Callable[[Path], object]] = {
    "quantize": golfcore.quantize,
    "pack": golfcore.pack,
    "train --resume": lambda run_dir: (unfinished(run_dir), golfcore.train("tiny", resume=run_dir)),
    "run --resume": lambda run_dir: golfcore.run(resume=run_dir),
    "run its config": lambda run_dir: golfcore.run(str(run_dir / CONFIG), runs=run_dir / "again"),
}
"""Each with what it is called with; all of them read the run's tokens."""


def test_config_checkpoint_quantized_weights_and_log_name_the_data(run_dir: Path, texts: dict[str, Path]) -> None:
    data = read_config(run_dir).data
    assert all(len(value) == 64 for value in data.identity().values())
    assert load_checkpoint(run_dir / CHECKPOINT)["data"] == data.identity()
    assert torch.load(run_dir / QUANTIZED, weights_only=True)["data"] == data.identity()
    assert data.text == (str(texts["own"]),)
    manifest = json.loads((folder_of(run_dir) / "manifest.json").read_text())
    assert (data.text_sha256, data.tokenizer_sha256) == (manifest["source_sha256"], manifest["tokenizer_sha256"])
    log = (run_dir / LOG).read_text()
    assert f"text_sha256:{data.text_sha256[:16]}" in log and "text: 80 documents in 1 file; " in log


def replaced(folder: Path, other: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(cached_prepare([other], vocab_size=VOCAB, val_fraction=FRACTION), folder)


def prepared_again(folder: Path, other: Path) -> None:
    """What the advice of old made of it: another text under the name of the first."""
    shutil.rmtree(folder)
    away = folder.with_name("away")
    prepare([other], away.parent.parent / "away", vocab_size=VOCAB, val_fraction=FRACTION)
    (away.parent.parent / "away").rename(folder)


def swap(*names: str, honest: bool = False) -> Callable[[Path, Path], None]:
    """Swap files with those of another prepared text; ``honest``: the manifest is edited so that it fits."""

    def swapped(folder: Path, other: Path) -> None:
        source = cached_prepare([other], vocab_size=VOCAB, val_fraction=FRACTION)
        for name in names:
            shutil.copyfile(source / name, folder / name)
        if honest:
            own, theirs = (json.loads((place / "manifest.json").read_text()) for place in (folder, source))
            keys = {"tokenizer.bpe": "tokenizer_sha256", "val_text.zst": "val_text_sha256"}
            own |= {keys[name]: theirs[keys[name]] for name in names if name in keys}
            own |= {split: theirs[split] for split in ("train", "val") if f"fineweb_{split}_000000.bin" in names}
            (folder / "manifest.json").write_text(json.dumps(own))

    return swapped


def edited_token(folder: Path, other: Path) -> None:
    shard = folder / "fineweb_train_000000.bin"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)


def edited_source(folder: Path, other: Path) -> None:
    tree = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(tree | {"source_sha256": "0" * 64}))


TROUBLES = {
    "gone": lambda folder, other: shutil.rmtree(folder),
    "replaced": replaced,
    "prepared again": prepared_again,
    "shard swapped": swap("fineweb_train_000000.bin"),
    "shard swapped, manifest too": swap("fineweb_train_000000.bin", honest=True),
    "validation swapped, manifest too": swap("fineweb_val_000000.bin", "val_text.zst", honest=True),
    "tokenizer swapped": swap("tokenizer.bpe"),
    "tokenizer swapped, manifest too": swap("tokenizer.bpe", honest=True),
    "validation text swapped": swap("val_text.zst"),
    "a token edited": edited_token,
    "manifest edited": edited_source,
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("stage", ["quantize", "pack"])
def test_other_data_are_refused(stage: str, trouble: str, run_dir: Path, texts: dict[str, Path]) -> None:
    TROUBLES[trouble](folder_of(run_dir), texts["other"])
    with pytest.raises(GolfError) as caught:
        STAGES[stage](run_dir)
    assert str(folder_of(run_dir)) in str(caught.value) and "\n" not in str(caught.value)
    if trouble in ("replaced", "prepared again", "manifest edited"):
        kept = read_config(run_dir).data.text_sha256[:12]
        assert re.search(rf"other data than this run's: text [0-9a-f]{{12}} instead of {kept}", str(caught.value))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("trouble", ["gone", "prepared again"])
def test_every_stage_compares_and_its_advice_is_right(
    stage: str, trouble: str, run_dir: Path, texts: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, before = folder_of(run_dir), open_run(read_config(run_dir))[1].identity()
    TROUBLES[trouble](folder, texts["other"])
    config = (run_dir / CONFIG).read_text()
    with pytest.raises(InputError) as caught:
        STAGES[stage](run_dir)
    assert (run_dir / CONFIG).read_text() == config
    command = shlex.split(str(caught.value).partition("make it with: ")[2])
    assert command[:3] == ["golfcore", "data", "prepare"] and str(texts["own"]) in command and "-o" not in command
    assert main(command[1:]) == 0
    assert open_run(read_config(run_dir))[1].identity() == before
    golfcore.quantize(run_dir)


def test_the_checkpoint_knows_its_data_if_the_config_does_not(run_dir: Path, texts: dict[str, Path]) -> None:
    config = read_config(run_dir)
    data = config.data.with_identity({})
    write_config(run_dir, dataclasses.replace(config, data=data))
    before = (run_dir / CONFIG).read_text()
    replaced(folder_of(run_dir), texts["other"])
    for stage in ("quantize", "pack", "train --resume", "run --resume"):
        with pytest.raises(InputError, match="other data than this run's"):
            STAGES[stage](run_dir)
    assert (run_dir / CONFIG).read_text() == before


def test_a_run_of_an_earlier_version_goes_on(run_dir: Path) -> None:
    """Neither its config nor its files hold hashes."""
    config = read_config(run_dir)
    data = DataConfig(path=config.data.path, vocab_size=VOCAB)
    write_config(run_dir, dataclasses.replace(config, data=data))
    for name in (CHECKPOINT, QUANTIZED):
        saved = torch.load(run_dir / name, weights_only=True)
        del saved["data"]
        torch.save(saved, run_dir / name)
    golfcore.pack(run_dir)
    golfcore.quantize(run_dir)


def test_text_edited_between_two_stages_changes_nothing(run_dir: Path, texts: dict[str, Path], tmp_path: Path) -> None:
    """The tokens are still there; only when they are gone does the text count."""
    config = read_config(run_dir)
    edited = tmp_path / "edited.jsonl"
    edited.write_bytes(texts["own"].read_bytes())
    write_config(run_dir, dataclasses.replace(config, data=dataclasses.replace(config.data, text=(str(edited),))))
    edited.write_text(edited.read_text() + '{"text": "one more"}\n')
    golfcore.quantize(run_dir)
    shutil.rmtree(folder_of(run_dir))
    with pytest.raises(InputError) as caught:
        golfcore.quantize(run_dir)
    assert main(shlex.split(str(caught.value).partition("make it with: ")[2])[1:]) == 0
    with pytest.raises(InputError, match="is gone"):
        golfcore.quantize(run_dir)


def test_a_run_on_a_folder_of_the_users(
    texts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "my data"
    prepare([texts["own"]], folder, vocab_size=VOCAB, val_fraction=FRACTION)
    config = prepare_data(dataclasses.replace(recipe(), data=DataConfig(path=str(folder), text=("x",))), [])
    config, tokens = open_run(config)
    assert config.data.text == ()  # which says nothing of this folder
    assert (config.data.vocab_size, config.data.val_fraction) == (VOCAB, FRACTION)  # the truth, not the defaults
    assert tokens.lock is None
    folder.rename(tmp_path / "moved")
    assert open_run(dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(tmp_path / "moved"))))
    with pytest.raises(InputError) as caught:
        open_run(config)
    command = shlex.split(str(caught.value).partition("make it with: ")[2])
    assert command[-2:] == ["-o", str(folder)]
    assert main([str(texts["own"]) if word == "YOUR_TEXT" else word for word in command[1:]]) == 0
    assert open_run(config)[0] == config
    shutil.rmtree(folder)
    prepare([texts["other"]], folder, vocab_size=VOCAB, val_fraction=FRACTION)
    with pytest.raises(InputError, match="move it away, then make it with"):
        open_run(config)


def test_advice_for_the_default_text_and_for_unknown_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path))
    key = prepared_cache() / "0123456789abcdef"
    default = DataConfig(path=str(key), text=(str(tmp_path / "text" / "news.jsonl"),))
    assert how_to_prepare(key, default).endswith("golfcore data prepare --vocab-size 1024 --val-fraction 0.07")
    unknown = "golfcore data prepare --text YOUR_TEXT"
    assert f"{unknown} --vocab-size 1024 --val-fraction 0.07" in how_to_prepare(key, DataConfig(path=str(key)))
    assert how_to_prepare(key).endswith(unknown)
    assert how_to_prepare(tmp_path / "d").endswith(f"{unknown} -o {shlex.quote(str(tmp_path / 'd'))}")
    skipped = DataConfig(path="d", text=("/a b", "/c"), skip_invalid=True)
    assert shlex.split(how_to_prepare(tmp_path / "d", skipped)) [3:] == [
        "golfcore", "data", "prepare", "--text", "/a b", "/c", "--vocab-size", "1024", "--val-fraction", "0.07",
        "--skip-invalid", "-o", str(tmp_path / "d"),
    ]  # fmt: skip


def test_hashes_belong_to_a_path_and_are_dropped_with_it(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(run_dir / CONFIG)
    kept = read_config(run_dir).data.identity()

    def identity(**given: object) -> dict[str, str]:
        config: RecipeConfig = load_recipe(path, **({"environment": {}} | given)).config  # type: ignore[arg-type]
        return config.data.identity()

    assert identity() == identity(sets=["train.seed=7"]) == kept
    assert not any(identity(sets=["data.path=elsewhere"]).values())
    assert not any(identity(environment={"DATA_PATH": "elsewhere"}).values())
    assert not any(identity(changes={"data.path": "elsewhere"}).values())
    pinned = identity(sets=["data.path=elsewhere", f"data.text_sha256={'1' * 64}"])
    assert pinned == dict.fromkeys(DATA_HASHES, "") | {"text_sha256": "1" * 64}
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        identity(sets=["data.text_sha256=abc"])


def test_scoring_another_text_on_purpose_is_allowed(run_dir: Path, texts: dict[str, Path], tmp_path: Path) -> None:
    golfcore.pack(run_dir)
    own = golfcore.load_model(run_dir / "model.golf").tokenizer
    prepare([texts["other"]], tmp_path / "other", tokenizer=own)
    assert golfcore.score(run_dir / "model.golf", data=tmp_path / "other", budget_s=0)["val_bpb"] > 0
    prepare([texts["other"]], tmp_path / "foreign", vocab_size=VOCAB)
    with pytest.raises(InputError, match="another tokenizer"):
        golfcore.score(run_dir / "model.golf", data=tmp_path / "foreign", budget_s=0)


def test_skip_invalid_on_the_command_line(
    texts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "A.JSONL").write_bytes(texts["own"].read_bytes() + b'{"text": "\\ud800"}\n{"text": ""}\n')
    (folder / "notes.md").write_text("left out")
    (tmp_path / "tiny.toml").write_text(to_toml(to_tree(recipe(iterations=2))))
    command = ["train", "tiny.toml", "--text", str(folder), "--run-id", "a"]
    assert main(command) == 1
    assert "A.JSONL:81: half of a surrogate pair" in (said := capfd.readouterr().err) and "--skip-invalid" in said
    assert main([*command, "--skip-invalid"]) == 0
    line = "text: 80 documents in 1 file; 1 empty left out; 1 that are no text left out"
    rest = "files left out: 1 .md"
    said = capfd.readouterr().err
    assert f"{line}, the first {folder}/A.JSONL:81" in said and rest in said
    assert f"{line}; {rest}; 0 doubles dropped" in (tmp_path / "runs" / "a" / LOG).read_text()
    assert read_config(tmp_path / "runs" / "a").data.skip_invalid
