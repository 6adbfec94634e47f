"""A step on a GPU as far as a machine without one can tell: devices, waits, order of copies and steps, clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from fake_gpu import CUDA, FakeGpu, FakeWorld, fake_gpu, model_on_gpu
from tiny import VOCAB

from golfcore.boxcheck.cut import cut_recipe
from golfcore.config import RecipeConfig
from golfcore.data.contracts import TokenBatch
from golfcore.evaluate.booking import log_probabilities
from golfcore.pipeline.measure import RandomTokens
from golfcore.recipes import load_recipe, recipe_names
from golfcore.training.feed import Feed, RunAhead, batches_of
from golfcore.training.runlog import RunLog
from golfcore.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    with fake_gpu(monkeypatch) as fake:
        yield fake


def cut(name: str, **train: Any) -> RecipeConfig:
    """The recipe with the kinds of layers and the phases that it has, in two micro-batches a step."""
    return cut_recipe(load_recipe(name, environment={}).config, **train)


def trainer_of(config: RecipeConfig, run_dir: Path, ranks: int = 1) -> Trainer:
    module = model_on_gpu(config, VOCAB)
    loader = RandomTokens(VOCAB, config.train.batch_tokens // ranks, config.train.seq_len)
    world = FakeWorld(rank=0, size=ranks, device=CUDA)
    trainer = Trainer(config, module, loader, world, RunLog(run_dir, primary=True))
    trainer.state.step = 10  # the first ten are logged, which reads the loss
    return trainer


@pytest.mark.parametrize(
    ("name", "ranks"), [*((name, 1) for name in recipe_names()), ("frontier_8xh100", 2), ("pocket", 2)]
)
def test_a_step_of_a_recipe_stays_on_its_device_and_waits_for_nothing(
    name: str, ranks: int, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[torch.Tensor] = []
    monkeypatch.setattr(dist, "broadcast", lambda tensor, src: told.append(tensor))
    config = cut(name, iterations=12)
    trainer = trainer_of(config, tmp_path, ranks)
    phases = range(len(trainer.module.phase_starts()) + 1)
    for phase in phases:
        for aware in (False, True) if trainer.aware_fn is not None else (False,):
            trainer.module.phase, trainer.aware = phase, aware
            with gpu.without_waiting():
                trainer.backward()
                trainer.update(1.0, 0.5)
    with gpu.without_waiting():
        trainer._steps()
    assert trainer.state.step == 12
    assert all(p.is_cuda for p in trainer.module.parameters())
    assert all(t.is_cuda for t in trainer.optimizers.averages.values())
    assert all(t.is_cuda for t in trainer.optimizers._state.values())
    assert {t.device for t in told} == ({CPU} if ranks > 1 else set())  # the word of rank 0 goes by no GPU
    if ranks > 1:
        assert len(told) == 2


@pytest.mark.parametrize("name", recipe_names())
def test_an_evaluation_of_a_recipe_stays_on_its_device(name: str, gpu: FakeGpu) -> None:
    config = cut(name)
    module = model_on_gpu(config, VOCAB)
    ids_BT = torch.zeros(3, 65, dtype=torch.int64, device=CUDA)
    with torch.no_grad():
        for last in (64, 7):
            logits_BSV = module.last_logits(ids_BT[:, :-1], last)
            assert logits_BSV.shape == (3, last, VOCAB)
            assert logits_BSV.is_cuda
            found = log_probabilities(logits_BSV.flatten(0, 1), ids_BT[:, -last:].flatten(), tops=True)
            assert all(tensor.is_cuda for tensor in found)
        logits_BTV, state = module.logits(module.new_state(3), ids_BT)
    assert logits_BTV.is_cuda
    assert all(t.is_cuda for t in state.values())


def test_the_fake_gpu_notices_what_waits_and_what_lies_elsewhere(gpu: FakeGpu) -> None:
    """Or the tests above would prove nothing."""
    x = torch.zeros(4, 8, device=CUDA, dtype=torch.bfloat16)
    with pytest.raises(AssertionError, match="tensors on"):
        torch.ops.golf.linear(x, torch.zeros(3, 8, dtype=torch.bfloat16), None, None)
    for wait in (
        lambda: torch.tensor([1.0], device=CUDA),
        lambda: torch.from_numpy(np.ones(3)).to(CUDA, non_blocking=True),
        lambda: torch.from_numpy(np.ones(3)).pin_memory().to(CUDA),
        lambda: x.sum().item(),
        lambda: x.nonzero(),
        lambda: x.cpu(),
        lambda: x.copy_(torch.zeros(4, 8)),
    ):
        with gpu.without_waiting(), pytest.raises(AssertionError, match=r"waits|blocks|not pinned"):
            wait()


class Loader(RandomTokens):
    """Batches that can be told apart: all tokens of a batch are its number."""

    def __init__(self, documents: bool = False) -> None:
        self.number, self._made = 0, None
        super().__init__(VOCAB, 64, 16)

    def _batch_at(self) -> TokenBatch:
        if self._made is None or self._made[0] != self.number:
            ids_BT = np.full((4, 16), self.number, dtype=np.uint16)
            self._made = self.number, TokenBatch(ids_BT, ids_BT + 1)
        return self._made[1]

    def peek(self) -> TokenBatch:
        return self._batch_at()

    def __next__(self) -> TokenBatch:
        batch = self._batch_at()
        self.number += 1
        return batch


def test_batches_are_copied_one_ahead_on_a_stream_of_their_own(gpu: FakeGpu) -> None:
    loader = Loader()
    feed = Feed(loader, CUDA)
    with gpu.without_waiting():
        first = feed.take(2)
        assert [tuple(b.inputs_BT.shape) for b in first] == [(2, 16), (2, 16)]
        assert all(t.is_cuda and t.dtype == torch.int64 for b in first for t in b[:2])
        assert gpu.calls == ["on side", "main after side"]
        feed.copy_ahead(2)
        assert gpu.calls[2:] == ["on side"]
        assert loader.number == 1  # looked at, not taken
        feed.take(2)
        assert gpu.calls[3:] == ["main after side"]  # nothing was copied again
        feed.copy_ahead(2)
        loader.number = 7  # another position: what was copied ahead is another batch
        feed.take(2)
        assert gpu.calls[4:] == ["on side", "on side", "main after side"]
        feed.copy_ahead(2)
        feed.take(4)  # another size of micro-batches
        assert gpu.calls[7:] == ["on side", "on side", "main after side"]


def test_on_a_cpu_batches_are_taken_as_they_come() -> None:
    loader = Loader()
    feed = Feed(loader, CPU)
    for number in range(3):
        batches = feed.take(3)
        feed.copy_ahead(3)
        assert [len(b.inputs_BT) for b in batches] == [3, 1]
        for batch in batches:
            assert batch.inputs_BT.dtype == batch.targets_BT.dtype == torch.int64
            assert (batch.inputs_BT == number).all()
            assert (batch.targets_BT == number + 1).all()
            assert batch.bounds is None
    assert loader.number == 3


def test_every_id_of_16_bits_arrives() -> None:
    ids_BT = np.array([[0, 1, 32767], [32768, 65534, 65535]], dtype=np.uint16)
    (batch,) = batches_of(TokenBatch(ids_BT, ids_BT[:, ::-1].copy()), 2, CPU)
    assert batch.inputs_BT.tolist() == ids_BT.tolist()
    assert batch.targets_BT.tolist() == ids_BT[:, ::-1].tolist()


def test_the_processor_is_never_more_than_two_steps_ahead(gpu: FakeGpu) -> None:
    ahead = RunAhead(CUDA)
    for _ in range(4):
        ahead.note_step()
        assert ahead.unfinished == 1
    assert gpu.calls == ["end 1", "end 2", "wait 1", "end 3", "wait 2", "end 4", "wait 3"]
    ahead.finish()
    assert gpu.calls[-1] == "wait for all"
    assert ahead.unfinished == 0


def test_near_the_end_the_clock_is_read_of_a_gpu_at_rest(
    gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(cut("pocket"), tmp_path)
    trainer.budget_s = 100.0
    now = 0.0
    monkeypatch.setattr("golfcore.training.trainer.time.perf_counter", lambda: now)
    for now, near in ((50.0, False), (91.5, False), (92.5, True)):
        gpu.calls.clear()
        trainer.ahead.note_step()
        assert trainer._look(0.0, 1.0) == (now, False, near)
        assert gpu.calls.count("wait for all") == near
    trainer.budget_s = 0.0  # no clock
    trainer.ahead.note_step()
    gpu.calls.clear()
    assert trainer._look(0.0, 1.0) == (now, False, False)
    assert gpu.calls == []


def test_the_clock_ends_with_the_last_step(gpu: FakeGpu, tmp_path: Path) -> None:
    trainer = trainer_of(cut("pocket", iterations=12), tmp_path)
    trainer._steps()
    assert gpu.calls[0] == gpu.calls[-1] == "wait for all"
    assert gpu.calls.count("wait for all") == 2


def test_on_a_cpu_no_step_is_ahead() -> None:
    ahead = RunAhead(CPU)
    ahead.note_step()
    assert ahead.unfinished == 0
    ahead.finish()
