"""Where rank 0 quantizes: weights on the processor with every idle core, divergences on the device that trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY, VOCAB, recipe, scrambled

from golfcore import api, machine, progress
from golfcore.config import EvalConfig, QuantConfig
from golfcore.data.shards import ShardWriter
from golfcore.data.tokens import Tokens
from golfcore.ops.threads import idle_cores_used
from golfcore.pipeline import quantize
from golfcore.pipeline.quantize import PROBE_TOKENS, calibrate, probe_length, quantize_stage
from golfcore.ranks.world import World
from golfcore.recipes import load_recipe

WORLD = World(rank=0, size=1, device=torch.device("cpu"))


class Words:
    def count_bytes(self, ids: np.ndarray) -> np.ndarray:
        return np.ones(len(ids) - 1, dtype=np.int32)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    folder = tmp_path_factory.mktemp("tokens")
    with ShardWriter(folder, "train") as writer:
        writer.append(np.random.default_rng(0).integers(4, VOCAB, 40_000).astype(np.uint16))
    return Tokens(folder, VOCAB, Words(), "", None)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_divergences_are_measured_on_windows_of_the_evaluation(method: str, tokens: Tokens) -> None:
    """Not on the flat rows of packed documents, which may be as long as a GPU's whole batch."""
    config = dataclasses.replace(
        recipe(batch_tokens=4096, seq_len=4096, micro_batch_tokens=4096), eval=EvalConfig(context=64),
        quant=QuantConfig(method=method, calibration_tokens=4096),  # type: ignore[arg-type]
    )  # fmt: skip
    calibration = calibrate(scrambled(TINY), config, tokens, WORLD)
    assert calibration.probe_NT.shape == (PROBE_TOKENS // 64, 64)
    assert calibration.hessians is None or calibration.hessians.tokens == 4096


def test_the_frontier_is_measured_on_4096_tokens() -> None:
    config = load_recipe("frontier_8xh100", environment={}).config
    assert probe_length(config) == 2048 and config.train.seq_len == 98_304
    short = dataclasses.replace(config, train=dataclasses.replace(config.train, seq_len=1024))
    assert probe_length(short) == 1024
    assert probe_length(dataclasses.replace(short, eval=EvalConfig())) == 1024


def test_the_stage_leaves_the_module_where_it_is_and_gives_the_threads_back(
    tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, seen = scrambled(TINY), []
    monkeypatch.setattr(module, "to", lambda *_: pytest.fail("moved"))
    monkeypatch.setattr(machine, "cores", lambda: 3)
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    stage = quantize._quantized

    def watched(*arguments: Any) -> Any:
        seen.append(torch.get_num_threads())
        return stage(*arguments)

    monkeypatch.setattr(quantize, "_quantized", watched)
    config = recipe()
    calibration = calibrate(module, config, tokens, WORLD)
    before = torch.get_num_threads()
    results = [quantize_stage(tmp_path, module, config, tokens, calibration, ranks=ranks) for ranks in (1, 8)]
    assert seen == [before, 3] and torch.get_num_threads() == before
    assert results[0]["total"]["kl"] == pytest.approx(results[1]["total"]["kl"], rel=1e-3)


@pytest.mark.parametrize(
    ("ranks", "cores", "quota", "threads", "expected"),
    [(1, 26, None, 1, 1), (8, 26, None, 1, 26), (8, 26, 4.5, 1, 4), (8, 26, 0.5, 1, 1), (2, 2, None, 4, 4)],
)
def test_rank_0_uses_the_cores_of_those_that_wait(
    ranks: int, cores: int, quota: float | None, threads: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = [threads], []
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: (asked.append(n), now.__setitem__(0, n)))
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    with pytest.raises(RuntimeError), idle_cores_used(ranks):
        assert now == [expected]
        raise RuntimeError
    assert now == [threads]


def test_the_log_says_what_is_left_of_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    lines: list[str] = []
    ticks: list[float] = []
    tick = progress.told(lambda done, *_: ticks.append(done), lines.append, every_s=30.0)
    for done in range(1, 5):
        now[0] += 12.0
        tick(done, 67, "sensitivities")
    assert lines == ["sensitivities: 3 of 67, up to 768 s left"]
    now[0] += 40.0
    tick(1, 24, "15,900,000 of 16,000,000 bytes")  # a new part: nothing is known of its pace
    now[0] += 5.0
    tick(2, 24, "15,990,000 of 16,000,000 bytes")
    assert lines[1:] == ["15,990,000 of 16,000,000 bytes: 2 of 24, up to 110 s left"]
    assert ticks == [1, 2, 3, 4, 1, 2]


def test_the_command_moves_the_model_to_the_ranks_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    moved: list[torch.device] = []

    class Module:
        def to(self, device: torch.device) -> Module:
            moved.append(device)
            return self

    @contextmanager
    def joined() -> Iterator[World]:
        yield World(rank=0, size=1, device=torch.device("cuda", 0))

    def calibrated(module: Module, *_: Any, **__: Any) -> str:
        assert moved == [torch.device("cuda", 0)]
        return "calibration"

    monkeypatch.setattr("golfcore.ranks.world.join_world", joined)
    monkeypatch.setattr("golfcore.pipeline.train.load_weights", lambda *_: Module())
    monkeypatch.setattr("golfcore.pipeline.quantize.calibrate", calibrated)
    monkeypatch.setattr("golfcore.pipeline.quantize.quantize_stage", lambda *found, **_: {"calibration": found[-2]})
    monkeypatch.setattr(api, "read_config", lambda _: recipe())
    monkeypatch.setattr(api, "open_run", lambda config: (config, SimpleNamespace(vocab_size=VOCAB)))
    monkeypatch.setattr("golfcore.pipeline.requirements.check_quantizing", lambda *_, **__: None)
    assert api.quantize(tmp_path) == {"calibration": "calibration"}
