"""What the last stage needs is asked for in the first second: text, tokens, settings, packages and the disk."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from many_ranks import Ranks
from tiny import recipe

import golfcore
from golfcore.config import RecipeConfig
from golfcore.data.manifest import VAL_TEXT
from golfcore.data.prepare import prepare
from golfcore.data.shards import ShardWriter
from golfcore.data.tokens import Tokens, open_tokens
from golfcore.errors import BuildError, FormatError, GolfError, InputError, MachineError, UsageError
from golfcore.model import get_family
from golfcore.pipeline import requirements
from golfcore.pipeline.requirements import check_quantizing, check_run, checkpoint_bytes, checkpoints_to_write
from golfcore.pipeline.setup import build_trainer
from golfcore.ranks.world import World
from golfcore.run_folder import CHECKPOINT, METRICS
from golfcore.tokenizer import Tokenizer
from golfcore.training.checkpoint import save_checkpoint
from golfcore.training.runlog import RunLog

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    prepare([text_file], folder, vocab_size=260)
    return folder


@pytest.fixture
def data(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "data"))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path


def shards(folder: Path, *, val: int, vocab_size: int = 260) -> tuple[Tokens, RecipeConfig]:
    """Contest shards of 4,000 training and ``val`` validation tokens, and a recipe for them."""
    folder.mkdir()
    for split, count in (("train", 4000), ("val", val)):
        with ShardWriter(folder, split) as writer:
            writer.append(np.full(count, 100, dtype=np.uint16))
    Tokenizer.train([], 260).save(folder / "bytes.bpe")
    config = recipe()
    section = dataclasses.replace(
        config.data, path=str(folder), tokenizer=str(folder / "bytes.bpe"), vocab_size=vocab_size
    )
    return open_tokens(section.path, section.tokenizer), dataclasses.replace(config, data=section)


# --- text and tokens --------------------------------------------------------------------------------------------------


def test_a_run_that_can_end_passes_and_leaves_nothing(data: Path, run_dir: Path) -> None:
    check_run(run_dir, recipe(), open_tokens(str(data)), ALONE)
    check_quantizing(run_dir, recipe(), open_tokens(str(data)), text=True, dry_run=False)
    assert not list(run_dir.iterdir())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def other_text(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("fineweb_val_000000.bin", Path.unlink), ("fineweb_val_000000.bin", truncate),
        ("fineweb_train_000000.bin", Path.unlink), (VAL_TEXT, Path.unlink), (VAL_TEXT, other_text),
        ("tokenizer.bpe", Path.unlink), ("tokenizer.bpe", truncate),
    ],
)  # fmt: skip
def test_a_file_that_a_later_stage_reads(data: Path, run_dir: Path, name: str, spoil: Callable[[Path], None]) -> None:
    spoil(data / name)
    with pytest.raises(GolfError, match=name[:11]):
        check_run(run_dir, recipe(), open_tokens(str(data)), ALONE)


def test_a_validation_split_that_is_missing_or_too_short(tmp_path: Path, run_dir: Path) -> None:
    tokens, config = shards(tmp_path / "short", val=32)  # a row of 32 has 33 tokens
    with pytest.raises(InputError, match="32 validation tokens, expected at least one window, 33"):
        check_run(run_dir, config, tokens, ALONE)
    check_run(run_dir, config, tokens, ALONE, whole=False)  # training alone reads none of it
    with pytest.raises(InputError, match="32 validation tokens"):
        validating = dataclasses.replace(config, train=dataclasses.replace(config.train, val_every=2))
        check_run(run_dir, validating, tokens, ALONE, whole=False)
    (tmp_path / "short" / "fineweb_val_000000.bin").unlink()
    with pytest.raises(InputError, match="fineweb_val"):
        check_run(run_dir, config, tokens, ALONE)
    tokens, config = shards(tmp_path / "whole", val=33)
    check_run(run_dir, config, tokens, ALONE)
    wide = dataclasses.replace(config, eval=dataclasses.replace(config.eval, context=64))
    with pytest.raises(InputError, match="one window, 65"):
        check_run(run_dir, wide, tokens, ALONE)


def test_settings_of_the_evaluation(data: Path, run_dir: Path) -> None:
    config = recipe()
    wide = dataclasses.replace(config, eval=dataclasses.replace(config.eval, stride=33))
    with pytest.raises(UsageError, match=r"eval.stride = 33: expected at most the context of 32"):
        check_run(run_dir, wide, open_tokens(str(data)), ALONE)


def test_another_vocabulary(tmp_path: Path, run_dir: Path, data: Path) -> None:
    tokens, config = shards(tmp_path / "shards", val=100, vocab_size=1024)
    with pytest.raises(InputError, match=r"has 260 ids, data.vocab_size"):
        check_run(run_dir, config, tokens, ALONE)
    small = dataclasses.replace(open_tokens(str(data)), vocab_size=40)
    with pytest.raises(FormatError, match=r"training split: id .* expected below vocab_size = 40"):
        check_run(run_dir, recipe(), small, ALONE)


def test_tokens_that_cannot_be_read(data: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(requirements, "sha256_file", fail)
    with pytest.raises(InputError, match=r"cannot be read \(Input/output error\)"):
        check_run(run_dir, recipe(), open_tokens(str(data)), ALONE)


@pytest.mark.parametrize("name", ["matplotlib", "jinja2"])
def test_a_package_of_the_last_stage(data: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda word, *a: None if word == name else real(word, *a))
    with pytest.raises(BuildError, match=f"pip install {name}"):
        check_run(run_dir, recipe(), open_tokens(str(data)), ALONE)
    check_run(run_dir, recipe(), open_tokens(str(data)), ALONE, whole=False)


# --- the disk ---------------------------------------------------------------------------------------------------------


def room_for(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    real = os.statvfs

    def statvfs(path: Any) -> os.statvfs_result:
        found = list(real(path))
        found[1], found[4] = 1, free
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "statvfs", statvfs)


@pytest.mark.parametrize("train", [{}, {"ema_decay": 0.9}])
def test_the_size_of_a_checkpoint_is_foretold(data: Path, run_dir: Path, train: dict[str, Any]) -> None:
    from golfcore.data.loader import TokenLoader

    config, tokens = recipe(**train), open_tokens(str(data))
    loader = TokenLoader(tokens.shards("train"), batch_tokens=256, seq_len=32)
    world = World(rank=0, size=1, device=torch.device("cpu"))
    with loader, RunLog(run_dir, primary=True) as log, build_trainer(config, 260, loader, world, log) as trainer:
        trainer.save(final=True)
    size, foretold = (run_dir / CHECKPOINT).stat().st_size, checkpoint_bytes(config, 260)
    assert foretold <= size < foretold + 100_000  # names, and the archive's own
    assert sum(p.numel() for p in trainer.module.parameters()) == sum(
        count for _, count, _ in get_family("gpt").counts(config.model, 260).values()
    )


def test_a_disk_that_is_clearly_too_small(data: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, one = open_tokens(str(data)), checkpoint_bytes(recipe(), 260)
    spare = 1 << 20
    room_for(monkeypatch, spare + 2 * one)
    check_run(run_dir, recipe(), tokens, ALONE)  # one checkpoint, at the end
    often = recipe(checkpoint_every_s=1.0)
    with pytest.raises(MachineError, match=rf"bytes are needed and {spare + 2 * one:,} are free; make room"):
        check_run(run_dir, often, tokens, ALONE)  # the newest, the one before it, and one that is written
    assert checkpoints_to_write(run_dir, often, 260) == 3 * one
    save_checkpoint(run_dir, {"w": torch.zeros(one // 4)})
    assert checkpoints_to_write(run_dir, often, 260) < 2 * one  # what is there is replaced
    room_for(monkeypatch, spare + one // 2)
    with pytest.raises(MachineError, match="too small"):
        check_run(run_dir, often, tokens, ALONE, whole=False)
    check_run(run_dir, often, tokens, ALONE, trained=True)
    room_for(monkeypatch, spare - 1)
    with pytest.raises(MachineError, match="too small"):
        check_quantizing(run_dir, recipe(), tokens, text=False, dry_run=False)
    check_quantizing(run_dir, recipe(), tokens, text=False, dry_run=True)


def test_a_limit_of_the_process(data: Path, run_dir: Path) -> None:
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    tokens = open_tokens(str(data))
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most[1]))
    try:
        with pytest.raises(MachineError, match=r"may write files of 20,000; raise the limit \(ulimit -f\)"):
            check_run(run_dir, recipe(), tokens, ALONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)


# --- the commands ask -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [golfcore.run, golfcore.train])
def test_nothing_is_trained_for_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Callable[..., Any]
) -> None:
    room_for(monkeypatch, 1000)
    with pytest.raises(MachineError, match="too small"):
        stage(recipe(), data=data, runs=tmp_path / "runs", run_id="a")
    assert not (tmp_path / "runs" / "a").exists()


def test_a_run_without_validation_shards(data: Path, tmp_path: Path) -> None:
    (data / VAL_TEXT).write_bytes(b"other text")
    with pytest.raises(FormatError, match="val_text"):
        golfcore.run(recipe(), data=data, runs=tmp_path / "runs", run_id="a")
    assert not list(tmp_path.glob("runs/a/" + METRICS))


def test_runs_that_cannot_be_made_are_refused_before_text_is_prepared(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("golfcore.pipeline.start.prepare_data", lambda *_: pytest.fail("text was prepared"))
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot write"):
        golfcore.train(recipe(), text=text_file, runs=tmp_path / "file" / "runs")


def test_a_packed_file_that_cannot_be_written_is_refused_before_it_is_coded(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = golfcore.train(recipe(iterations=1), data=data, runs=tmp_path / "runs", run_id="a")
    assert run_dir is not None
    golfcore.quantize(run_dir)
    monkeypatch.setattr("golfcore.pipeline.pack.save_model", lambda *_, **__: pytest.fail("it was coded"))
    for target in (tmp_path, run_dir / "config.toml" / "model.golf"):
        with pytest.raises(InputError, match="cannot write"):
            golfcore.pack(run_dir, target)


def small(world: World, data: Path, run_dir: Path) -> None:
    """A disk that only rank 0 sees, and that is full."""
    if world.primary:
        requirements.check_writable = refuse  # type: ignore[assignment]
    world.on_primary(lambda: check_run(run_dir, recipe(), open_tokens(str(data)), ALONE))


def refuse(folder: Path) -> None:
    raise MachineError(f"cannot write {folder}: the disk is full")


def test_every_rank_ends_with_the_line_of_rank_0(data: Path, run_dir: Path) -> None:
    with Ranks(2, small, data, run_dir) as ranks:
        outcomes = ranks.outcomes(60)
    assert all(f"cannot write {run_dir}: the disk is full" in outcome.error for outcome in outcomes.values()), outcomes
