"""The step that ``golfcore bench train_step`` times: the same work on all sides, and a check that finds differences."""

from __future__ import annotations

import pytest
import torch
from tiny import recipe

from golfcore.bench import train_step as module
from golfcore.bench.train_step import plain_loss, train_step
from golfcore.errors import RuleError
from golfcore.model.gpt.model import GPT
from golfcore.model.interface import Batch


def test_every_contender_does_a_step() -> None:
    workload = train_step(recipe(), ("torch",))
    workload.check()
    assert list(workload.contenders) == ["golfcore", "torch", "products"]
    losses = [float(workload.contenders[name](0).detach()) for name in ("golfcore", "torch")]  # type: ignore[attr-defined]
    assert losses[0] == pytest.approx(losses[1], abs=0.01)
    workload.contenders["products"](0)


def test_products_are_counted_once_forward_and_twice_backward() -> None:
    config = recipe()
    # Three layers of 32: q and o 32x32, k and v 16x32, up 64x32, down 32x64; the embedding 260x32 is the head.
    weights = 3 * (2 * 32 * 32 + 2 * 16 * 32 + 2 * 64 * 32) + 260 * 32
    assert train_step(config, ()).flops == 6 * weights * config.train.batch_tokens


def test_another_loss_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: GPT, batch: Batch) -> torch.Tensor:
        return plain_loss(model, batch) * 1.1

    monkeypatch.setattr(module, "plain_loss", wrong)
    with pytest.raises(RuleError, match="nothing was timed"):
        train_step(recipe(), ("torch",)).check()
