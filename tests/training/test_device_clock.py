"""The clock of a device that works behind the host: a step counts when it is done, not when it was given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY, VOCAB, recipe

from golfcore.config import TrackConfig
from golfcore.data.loader import TokenLoader
from golfcore.data.shards import ShardSet, ShardWriter
from golfcore.model import get_family
from golfcore.ranks.world import World
from golfcore.training import trainer
from golfcore.training.feed import RunAhead
from golfcore.training.runlog import RunLog
from golfcore.training.trainer import Trainer

GIVE_S, STEP_S = 0.002, 0.125  # what the host takes to give a step, and the device to do it
LEAD = 4  # steps that the device's queue holds; then the host waits


class Device:
    """A fake clock with a queue: ``give`` takes the host a moment, ``wait`` lasts until all that was given is done."""

    def __init__(self) -> None:
        self.now = self.done_at = 50.0
        self.given = 0

    def give(self, seconds: float) -> None:
        self.given += 1
        self.now += GIVE_S
        self.done_at = max(self.done_at, self.now) + seconds
        self.now = max(self.now, self.done_at - LEAD * STEP_S)

    def wait(self) -> None:
        self.now = max(self.now, self.done_at)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    found = Device()
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: found.now))
    monkeypatch.setattr(RunAhead, "finish", lambda self: found.wait())

    def backward(self: Trainer) -> torch.Tensor:
        found.give(STEP_S)
        return torch.tensor(3.0)

    monkeypatch.setattr(Trainer, "backward", backward)
    monkeypatch.setattr(Trainer, "update", lambda *_: None)
    return found


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("shards")
    with ShardWriter(folder, "train") as writer:
        writer.append((np.arange(2000) % VOCAB).astype(np.uint16))
    return ShardSet.of_split(folder, "train")


@pytest.fixture
def build(shards: ShardSet, tmp_path: Path) -> Iterator[Callable[..., Trainer]]:
    with ExitStack() as loaders:

        def built(train_s: float, *, evaluate: Any = None, **changes: Any) -> Trainer:
            config = dataclasses.replace(recipe(log_every=10**6, **changes), track=TrackConfig(train_s=train_s))
            loader = loaders.enter_context(TokenLoader(shards, batch_tokens=256, seq_len=32))
            world = World(rank=0, size=1, device=torch.device("cpu"))
            module = get_family("gpt").build(TINY, VOCAB, 0)
            return Trainer(config, module, loader, world, RunLog(tmp_path, primary=True), evaluate=evaluate)

        yield built


def test_the_warm_up_judges_what_a_step_takes_the_device(device: Device, build: Callable[..., Trainer]) -> None:
    run = build(100.0, warmup_steps=3)
    run.warm_up()
    assert run.expected_step_s == pytest.approx(STEP_S + GIVE_S)


def test_the_clock_starts_behind_the_warm_up_and_stops_behind_the_last_step(
    device: Device, build: Callable[..., Trainer]
) -> None:
    run = build(0.0, warmup_steps=0, iterations=3)
    device.give(4 * STEP_S)  # still queued when the run begins
    assert run.run().train_s == pytest.approx(3 * STEP_S + GIVE_S)
    assert device.now == device.done_at


def test_no_step_of_a_device_ends_after_the_clock(device: Device, build: Callable[..., Trainer]) -> None:
    for train_s in np.linspace(3.0, 4.0, 9):
        run = build(float(train_s), warmup_steps=2, iterations=10**6)
        run.warm_up()
        device.given, began = 0, device.now
        state = run.run()
        assert device.now >= device.done_at, "the device still works"
        assert state.train_s == pytest.approx(device.now - began)
        assert train_s - 0.25 - 2.3 * STEP_S <= state.train_s <= train_s
        assert state.step == device.given


def test_steps_that_are_queued_do_not_end_within_a_validation(device: Device, build: Callable[..., Trainer]) -> None:
    def evaluate(module: torch.nn.Module) -> tuple[float, float]:
        device.wait()  # what it gives comes behind the steps
        device.now += 7.0
        return 1.0, 1.0

    state = build(0.0, evaluate=evaluate, warmup_steps=0, iterations=6, val_every=3).run()
    assert state.train_s == pytest.approx(6 * STEP_S + 2 * GIVE_S)


def test_a_resumed_run_begins_no_step_that_would_end_late(device: Device, build: Callable[..., Trainer]) -> None:
    run = build(3.0, warmup_steps=2, iterations=100)
    run.warm_up()
    run.state.step, run.state.train_s = 20, 2.7  # of 2.75 s
    assert run.run().step == 20 and run.state.train_s == pytest.approx(2.7)
