"""After training too a rank that hangs ends every rank soon, and one that is slow but alive ends none."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from many_ranks import Limits, Ranks
from tiny import TINY, VOCAB, random_text, recipe, scrambled

from golfcore.artifact.model_io import save_model
from golfcore.model import get_family
from golfcore.pipeline import whole
from golfcore.pipeline.score import LONG_CALL_S, score_artifact
from golfcore.progress import no_progress
from golfcore.quant import quantize_state
from golfcore.ranks.world import World
from golfcore.training.runlog import RunLog

# A rank that hangs is called after 2 s here; what is slow pauses for 3 s, or for 1 s again and again.
SHORT = Limits(silent_s=6.0, hang_s=2.0, slow_factor=0.0, leave_s=0.5)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "model.golf"
    family, config = get_family("gpt"), recipe()
    model = scrambled(TINY)
    stored = quantize_state(model.state_dict(), model.parameter_roles(), config.quant, None)
    save_model(path, family, TINY, VOCAB, stored, b"", {"eval": {"context": 32}})
    return path


def blocked() -> None:
    threading.Event().wait()


def asleep_for_a_layer() -> None:
    time.sleep(0.7)


def busy() -> None:
    """Computes for longer than a rank may be still."""
    end, a = time.monotonic() + 3.0, torch.ones(200, 200)
    while time.monotonic() < end:
        a @ a


def evaluated(world: World, artifact: Path, trouble: Callable[[], None]) -> float:
    """The score; rank 1 is in ``trouble`` at each layer of a batch, in those of the probe, which are a row, at none."""
    text = random_text(32 * 9 + 1)

    def text_for(loaded: Any, context: int) -> Any:
        if world.rank == 1:
            for block in loaded.module.blocks:
                block.register_forward_pre_hook(lambda _, inputs: trouble() if inputs[0].x_BTD.size(0) > 1 else None)
        return text

    artifact = artifact if world.primary else artifact.with_name("on no other machine")
    return float(score_artifact(artifact, text_for, world, batch_tokens=128)["val_loss"])


def packed(world: World, run_dir: Path, trouble: Callable[[], None]) -> None:
    """Quantizes and packs as a run does; the search on rank 0 is in ``trouble``."""

    def quantize_stage(*_: object, **__: object) -> dict[str, Any]:
        trouble()
        return {"total": {"kl": 0.0, "bpb": None, "hessian_db": None}, "plan": None}

    whole.quantize_stage = quantize_stage  # type: ignore[assignment]
    whole.pack_stage = lambda *_: {}  # type: ignore[assignment]
    with RunLog(run_dir, primary=world.primary) as log, world.expect_progress(LONG_CALL_S):
        if world.primary:
            whole._packed(run_dir, recipe(), None, None, None, world, log, no_progress)  # type: ignore[arg-type]
        world.barrier()


def test_a_rank_that_hangs_in_evaluation_is_named(artifact: Path) -> None:
    with Ranks(3, evaluated, artifact, blocked, limits=SHORT) as ranks:
        outcomes = ranks.outcomes(30)
    for rank in (0, 2):
        told = outcomes[rank].error + outcomes[rank].stderr
        assert "rank 1 of 3 (process " in told and "hangs: no progress" in told, outcomes[rank]
        assert "evaluation" in told


@pytest.mark.parametrize("trouble", [asleep_for_a_layer, busy])
def test_a_slow_rank_in_evaluation_is_waited_for(artifact: Path, trouble: Callable[[], None]) -> None:
    limits = dataclasses.replace(SHORT, hang_s=1.5) if trouble is asleep_for_a_layer else SHORT
    with Ranks(2, evaluated, artifact, trouble, limits=limits) as ranks:
        outcomes = ranks.outcomes(60)
    assert not outcomes[0].error and outcomes[0].value == outcomes[1].value, outcomes


def test_rank_0_that_hangs_while_it_quantizes_is_named(tmp_path: Path) -> None:
    with Ranks(2, packed, tmp_path, blocked, limits=SHORT) as ranks:
        outcomes = ranks.outcomes(30)
    for outcome in outcomes.values():
        told = outcome.error + outcome.stderr
        assert "rank 0 of 2 (process " in told and "hangs: no progress" in told, outcome


def test_rank_0_that_computes_for_long_while_it_quantizes_is_waited_for(tmp_path: Path) -> None:
    with Ranks(2, packed, tmp_path, busy, limits=SHORT) as ranks:
        outcomes = ranks.outcomes(30)
    assert all(not outcome.error and outcome.exit_code == 0 for outcome in outcomes.values()), outcomes
