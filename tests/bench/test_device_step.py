"""``golfcore bench train_step --recipe``: the steps of a run, on a processor and on a GPU that is not there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_gpu import CUDA, FakeWorld, fake_gpu, model_on_gpu
from tiny import TINY, VOCAB, recipe

from golfcore.bench import device_step
from golfcore.bench.device_step import KeptLog, RandomDocuments, measure_steps, share_of, times_of
from golfcore.cli import main
from golfcore.config import RecipeConfig, to_toml, to_tree
from golfcore.data.contracts import Documents
from golfcore.recipes import load_recipe, recipe_names
from golfcore.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_step, "WARM", 1)
    monkeypatch.setattr(device_step, "TIMED", 2)


def looped(**train: Any) -> RecipeConfig:
    model = dataclasses.replace(TINY, loop_layers="1", loop_starts=(0.5,), packed_documents=True, bos=1, max_segment=16)
    return dataclasses.replace(recipe(**train), model=model)


def test_a_recipe_is_timed_in_each_of_its_phases(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    config = looped(ema_decay=0.9)
    early, late = measure_steps(config, CPU, trace=trace)
    assert [(t.phase, t.layers, t.tokens, t.device) for t in (early, late)] == [(0, 3, 256, "cpu"), (1, 4, 256, "cpu")]
    for times in (early, late):
        parts = times.forward_ms + times.backward_ms + times.update_ms
        assert min(times.forward_ms, times.backward_ms, times.update_ms, times.step_ms) > 0
        assert times.queued_ms == pytest.approx(parts, rel=0.5)  # a processor is its own host
        assert (times.how, times.attention) == ("eager", "own (as the recipe says)")
        assert times.peak_bytes > 0
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert "golf_attention" in names
    assert "golf::adamw_" in names


def test_steps_leave_the_weights_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each does the same work; without that the last ones would be those of another model."""
    trainers: list[Trainer] = []
    build = Trainer.__init__

    def noted(self: Trainer, *arguments: Any, **options: Any) -> None:
        build(self, *arguments, **options)
        trainers.append(self)
        self.first = [p.detach().clone() for p in self.module.parameters()]  # type: ignore[attr-defined]

    monkeypatch.setattr(Trainer, "__init__", noted)
    measure_steps(recipe(), CPU)
    (trainer,) = trainers
    for before, parameter in zip(trainer.first, trainer.module.parameters(), strict=True):  # type: ignore[attr-defined]
        assert torch.equal(before, parameter)
    assert any(m.any() for name, m in trainer.optimizers._state.items() if name.startswith("m."))  # they had gradients


@pytest.mark.parametrize("name", recipe_names())
def test_one_of_eight_shares_of_a_step_is_timed(name: str) -> None:
    config = load_recipe(name, environment={}).config
    on_gpu, on_cpu = share_of(config, CUDA).train, share_of(config, CPU).train
    assert on_gpu.batch_tokens == config.train.batch_tokens // 8
    assert on_gpu.seq_len == min(config.train.seq_len, on_gpu.batch_tokens)
    assert on_cpu.batch_tokens == min(512, config.train.batch_tokens) >= on_cpu.seq_len
    assert (on_gpu.compile, on_cpu.compile) == (config.train.compile, False)
    assert (on_gpu.require_gpu, on_cpu.require_gpu) == (config.train.require_gpu, False)
    asked = share_of(config, CPU, compile=True, cuda_graphs=True).train
    assert asked.compile and asked.cuda_graphs
    assert not share_of(config, CUDA, compile=False).train.compile


def test_documents_have_the_usual_lengths() -> None:
    loader = RandomDocuments(1000, 1 << 22, 1 << 22)
    loader.reshape(1 << 22, 1 << 22, Documents(1, 2048))
    batch = next(loader)
    starts = np.flatnonzero(batch.inputs_BT.ravel() == 1)
    assert starts[0] == 0
    assert (1 << 22) / len(starts) == pytest.approx(957, rel=0.05)
    assert batch.bounds is not None
    lengths = np.diff(batch.bounds)
    assert lengths.max() == 2048
    keys = float((lengths * (lengths + 1.0) / 2).sum() / lengths.sum())
    assert 620 < keys < 720


def test_on_a_gpu_parts_are_between_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a fake GPU, whose events are as many milliseconds apart as there are events between them."""
    cut = share_of(looped(batch_tokens=8 * 256, micro_batch_tokens=128), CUDA)
    with fake_gpu(monkeypatch) as gpu:
        loader = RandomDocuments(VOCAB, cut.train.batch_tokens, cut.train.seq_len)
        log = KeptLog()
        trainer = Trainer(cut, model_on_gpu(cut, VOCAB), loader, FakeWorld(rank=0, size=1, device=CUDA), log)
        for stage in trainer.stages:
            gpu.calls.clear()
            times = times_of(trainer, log, stage)
            # Of two micro-batches: start, four around the passes, middle, end.
            assert (times.forward_ms, times.backward_ms, times.update_ms) == (2.0, 3.0, 1.0)
            assert times.tokens == 256
            assert gpu.calls.count("wait for all") == 2 * 2 + 2  # around each of two steps, around those in a row
            assert times.how == "eager"
        assert len(trainer.stages) == 2


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(to_toml(to_tree(looped())))
    trace = tmp_path / "trace.json"
    words = ["bench", "train_step", "--recipe", str(file), "--cuda-graphs"]
    assert main([*words, "--profile", str(trace), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [step["layers"] for step in found["steps"]] == [3, 4]
    assert "no CUDA graphs: the device is a CPU" in found["steps"][0]["how"]
    assert found["profile"] == str(trace)
    assert trace.is_file()
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "one rank: gradients are not reduced" in shown
    for words in (["norm", "--recipe", "pocket"], ["--cuda-graphs"], ["roofline", "--profile", "x"]):
        assert main(["bench", *words]) == 2
        assert "belong to golfcore bench train_step" in capsys.readouterr().err
