"""A finished run stays within its training clock, whatever steps, reads and passes take within what is planned for.

The clock is fake. Steps, passes and sums over the ranks move it, each by up to as much longer than those before it as
the plan allows; each read of training text moves it too, and once a run the machine stands still for most of the
margin. All else is the real pipeline, and the verdict is that of the real ledger. ``bench/training_clock.py`` does the
same with a real clock.
"""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import recipe

from golfcore.config import QuantConfig, RecipeConfig, TrackConfig
from golfcore.data.shards import ShardWriter
from golfcore.data.tokens import Tokens
from golfcore.errors import InputError
from golfcore.pipeline import quantize, whole
from golfcore.pipeline.limits import broken_limit
from golfcore.pipeline.start import Start
from golfcore.progress import no_progress
from golfcore.quant import calibrate, hessian
from golfcore.ranks.world import World
from golfcore.run_folder import LEDGER, LOG
from golfcore.training import runlog, trainer
from golfcore.training.runlog import RunLog, read_ledger
from golfcore.training.saving import Saver
from golfcore.training.trainer import Trainer

WORLD = World(rank=0, size=1, device=torch.device("cpu"))
STALL_S, READ_S, STEP_S, PASS_S, SUM_S = 0.2, 0.02, 0.4, 0.1, 0.05
CLOCK_S = 12.0
METHODS = {
    "rtn": QuantConfig(method="rtn"),
    "lite": QuantConfig(method="lite"),
    "gptq": QuantConfig(method="gptq", calibration_tokens=4096, reserve_s=2.0),
    "gptq without a reserve": QuantConfig(method="gptq", calibration_tokens=1024),
    "gptq on its own text": QuantConfig(method="gptq", calibration="generated", calibration_tokens=64),
}


class Machine:
    """A fake clock, and work that takes what an adversary likes."""

    def __init__(self) -> None:
        self.start(0)

    def start(self, seed: int) -> None:
        self.random, self.now, self.stall_s = random.Random(seed), 1000.0, 0.0
        self.took: dict[str, list[float]] = defaultdict(list)

    def work(self, kind: str, first_s: float, longer: float) -> None:
        """Take up to ``longer`` times the longest of the last of this kind, at most four times the first."""
        seconds = max(self.took[kind][-trainer.RECENT :], default=first_s)
        if self.took[kind]:
            seconds = min(seconds * self.random.choice((0.8, 1.0, longer)), 4 * first_s)
        self.took[kind].append(seconds)
        self.now += seconds
        if self.random.random() < 0.06:
            self.now, self.stall_s = self.now + self.stall_s, 0.0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    at = Machine()
    clock = SimpleNamespace(monotonic=lambda: at.now, perf_counter=lambda: at.now)
    for module in (trainer, runlog, hessian, whole):
        monkeypatch.setattr(module, "time", clock)

    def slowed(function: Callable[..., Any], *work: Any) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            at.work(*work)
            return function(*arguments)

        return wrapped

    def read(*arguments: Any, **more: Any) -> torch.Tensor:
        at.now += READ_S
        return real_rows(*arguments, **more)

    def read_slice(self: calibrate.TrainingRows, where: slice) -> torch.Tensor:
        at.now += READ_S
        return real_slice(self, where)

    def run(self: Trainer) -> Any:
        at.stall_s = STALL_S
        return real_run(self)

    nothing = SimpleNamespace(collect=lambda: None, freeze=lambda: None, unfreeze=lambda: None)
    monkeypatch.setattr(trainer, "gc", nothing)  # which takes longer than the rest of a run
    monkeypatch.setattr(runlog.machine, "environment", dict)
    real_rows, real_slice, real_run = quantize.training_rows, calibrate.TrainingRows.__getitem__, Trainer.run
    step = slowed(lambda self: torch.tensor(3.0), "step", STEP_S, trainer.LONGER)
    monkeypatch.setattr(Trainer, "backward", step)
    monkeypatch.setattr(Trainer, "update", lambda *_: None)
    monkeypatch.setattr(Trainer, "run", run)
    monkeypatch.setattr(Saver, "save", lambda *_, **__: None)
    monkeypatch.setattr(quantize, "training_rows", read)
    monkeypatch.setattr(calibrate.TrainingRows, "__getitem__", read_slice)
    monkeypatch.setattr(hessian._Sums, "add", slowed(hessian._Sums.add, "pass", PASS_S, hessian.LONGER))
    monkeypatch.setattr(hessian._Sums, "total", slowed(hessian._Sums.total, "sum", SUM_S, hessian.LONGER))
    return at


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    folder = tmp_path_factory.mktemp("tokens")
    with ShardWriter(folder, "train") as writer:
        writer.append(np.random.default_rng(0).integers(4, 260, 20_000).astype(np.uint16))
    return Tokens(folder, 260, None, "", None)  # type: ignore[arg-type]


def config_of(quant: QuantConfig, train_s: float = CLOCK_S) -> RecipeConfig:
    base = recipe(iterations=10**6, log_every=10**6)
    return dataclasses.replace(base, track=TrackConfig(train_s=train_s), quant=quant)


def trained(config: RecipeConfig, tokens: Tokens, run_dir: Path) -> tuple[dict[str, Any], quantize.Calibration]:
    """Train and calibrate as a run does; return the ledger's row of training, and the calibration."""
    with RunLog(run_dir, primary=True) as log:
        _, calibration = whole.trained_and_calibrated(Start(run_dir, config), None, tokens, WORLD, log, no_progress)
    (row,) = (row for row in read_ledger(run_dir / LEDGER) if row["phase"] == "train")
    return row, calibration


@pytest.mark.parametrize("method", METHODS)
def test_fifty_runs_end_within_their_clock(method: str, machine: Machine, tokens: Tokens, tmp_path: Path) -> None:
    config, used = config_of(METHODS[method]), []
    for seed in range(50):
        machine.start(seed)
        row, calibration = trained(config, tokens, tmp_path / str(seed))
        result = {"run": method, "bytes_total": 0, "train_s": row["seconds"], "eval_s": 0.0}
        assert not broken_limit(config, result), seed
        assert row["complete"] and row["budget_s"] == CLOCK_S
        assert (calibration.hessians is not None) == (config.quant.method == "gptq")
        assert calibration.hessians is None or calibration.hessians.tokens
        used.append(row["seconds"])
    assert max(used) > CLOCK_S - 1.0  # and the margin is no larger than it has to be
    assert np.mean(used) > 0.8 * CLOCK_S


@pytest.mark.parametrize("method", ["rtn", "lite", "gptq on its own text"])
def test_methods_that_do_not_depend_on_training_text_book_nothing(
    method: str, machine: Machine, tokens: Tokens, tmp_path: Path
) -> None:
    config, seconds = config_of(METHODS[method]), []
    with RunLog(tmp_path, primary=True) as log:
        module = whole._trained(Start(tmp_path, config), None, tokens, WORLD, log, no_progress)
        seconds.append(read_ledger(tmp_path / LEDGER)[-1]["seconds"])
        calibration = whole._calibrated(module, config, tokens, WORLD, log, no_progress, None)
        seconds += [row["seconds"] for row in read_ledger(tmp_path / LEDGER) if row["phase"] == "train"]
    assert seconds[0] == seconds[1] and calibration.probe_NT.numel()


def test_a_clock_that_the_steps_have_overrun_leaves_no_hessians_but_a_line(
    machine: Machine, tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step takes the reserve and the half of the margin: the run counts, and its log says what it lost."""
    config = config_of(QuantConfig(method="gptq", calibration_tokens=1024))
    run = Trainer.run

    def held_up(self: Trainer) -> Any:
        state = run(self)
        state.train_s = config.track.plan_s
        return state

    monkeypatch.setattr(Trainer, "run", held_up)
    row, calibration = trained(config, tokens, tmp_path)
    assert row["seconds"] < CLOCK_S
    assert calibration.hessians is not None and calibration.hessians.tokens == 0
    assert "warning: no time was left on the clock for Hessians" in (tmp_path / LOG).read_text()


def test_a_clock_that_hessians_would_use_up_is_refused(machine: Machine, tokens: Tokens, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"track\.train_s = 0\.3 leaves no time for steps: Hessians .* take 0\.\d+ s"):
        trained(config_of(METHODS["gptq"], train_s=0.3), tokens, tmp_path)


@pytest.mark.parametrize(
    ("train_s", "quant", "plan_s", "steps_s"),
    [
        (600.0, {}, 599.75, 599.75),
        (600.0, {"method": "gptq", "reserve_s": 5.0}, 599.75, 594.75),
        (600.0, {"method": "gptq", "reserve_s": 5.0, "calibration": "generated"}, 599.75, 599.75),
        (1.2, {}, 1.1, 1.1),
        (1.2, {"method": "gptq", "reserve_s": 5.0}, 1.1, 0.01),
        (0.0, {"method": "gptq", "reserve_s": 5.0}, 0.0, 0.0),
    ],
)
def test_the_plan_of_a_clock(train_s: float, quant: dict[str, Any], plan_s: float, steps_s: float) -> None:
    config = config_of(QuantConfig(**quant), train_s)
    assert config.track.plan_s == pytest.approx(plan_s) and config.steps_s == pytest.approx(steps_s)
