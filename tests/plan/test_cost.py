"""The plan's arithmetic against models that are really built, and against files that are really packed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY, recipe

from golfcore import ops
from golfcore.artifact.model_io import save_model
from golfcore.config import QuantConfig
from golfcore.model import get_family
from golfcore.model.gpt.config import GPTConfig
from golfcore.model.gpt.cost import gpt_work
from golfcore.model.interface import Batch, Context
from golfcore.optim.optimizers import Optimizers
from golfcore.plan.cost import fitted_step, overhead_costs, role_costs, stage_costs, state_bytes
from golfcore.quant import predict_bytes, quantize_state

GPT = get_family("gpt")
PARTS = {
    "tiny": TINY,
    "untied": dataclasses.replace(TINY, tie_embeddings=False),
    "swiglu": dataclasses.replace(TINY, activation="swiglu"),
    "factored": dataclasses.replace(TINY, embed_dim=16),
    "factored, untied": dataclasses.replace(TINY, embed_dim=16, tie_embeddings=False),
    "looped": dataclasses.replace(TINY, loop_layers="1", loop_starts=(0.25, 0.5)),
}


@pytest.mark.parametrize("config", PARTS.values(), ids=PARTS)
def test_work_counts_the_products_that_are_computed(config: GPTConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    vocab, rows, seq_len, products = 64, 2, 32, 0
    model = GPT.build(config, vocab, 0)
    linear = ops.linear

    def count(x: torch.Tensor, *weights: torch.Tensor) -> Any:
        nonlocal products
        products += sum(weight.numel() for weight in weights) * (x.numel() // x.size(-1))
        return linear(x, *weights)

    monkeypatch.setattr(ops, "linear", count)
    model.phase = len(config.loop_starts)
    ids_BT = torch.randint(0, vocab, (rows, seq_len))
    model.loss(Batch(ids_BT, ids_BT), Context(torch.zeros(())))
    work = gpt_work(config, vocab, seq_len)[-1]
    assert work.passes == config.num_layers + len(config.loop_starts)
    assert products == work.blocks * rows * seq_len
    assert work.flops == 6 * (work.blocks + vocab * config.model_dim + work.passes * seq_len * config.model_dim)


@pytest.mark.parametrize("config", PARTS.values(), ids=PARTS)
def test_roles_are_those_of_the_model(config: GPTConfig) -> None:
    rows = role_costs(dataclasses.replace(recipe(), model=config), GPT, 64)
    model = GPT.build(config, 64, 0)
    found: dict[str, int] = {}
    for name, role in model.parameter_roles().items():
        found[role.group] = found.get(role.group, 0) + model.get_parameter(name).numel()
    assert {row.group: row.params for row in rows} == found


@pytest.mark.parametrize(
    "quant",
    [
        QuantConfig(),
        QuantConfig(group_k=("up=6",)),
        QuantConfig(format="ternary", rest="fp8"),
        QuantConfig(format="binary"),
    ],
    ids=["int", "k by group", "ternary", "binary"],
)
def test_expected_bytes_are_the_quantizers_and_lie_in_their_spread(quant: QuantConfig) -> None:
    config = dataclasses.replace(recipe(), quant=quant)
    rows = role_costs(config, GPT, 260)
    predicted = predict_bytes(GPT, config.model, 260, config.quant)
    assert abs(sum(row.expected for row in rows) - predicted) <= len(rows)
    assert all(0 < row.low <= row.expected <= row.high for row in rows)


@pytest.mark.parametrize("clip", ["sigma", "absmax"])
def test_packed_bytes_lie_in_the_spread(clip: str, tmp_path: Path) -> None:
    quant = QuantConfig(matrix_clip=clip, embed_clip=clip)  # type: ignore[arg-type]
    model_config = dataclasses.replace(TINY, model_dim=128, num_layers=2, init="orthogonal")
    config = dataclasses.replace(recipe(), model=model_config, quant=quant)
    model = GPT.build(model_config, 512, 0)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():  # Gaussian, as trained matrices nearly are
            parameter.normal_(std=0.1, generator=generator)
    stored = quantize_state(model.state_dict(), model.parameter_roles(), quant)
    save_model(tmp_path / "m.golf", GPT, model_config, 512, stored, b"", {})
    size = (tmp_path / "m.golf").stat().st_size
    costs = [*role_costs(config, GPT, 512), *overhead_costs(GPT, b"", 512)]
    assert sum(cost.low for cost in costs) <= size <= sum(cost.high for cost in costs)


def test_a_search_fills_the_cap() -> None:
    model = dataclasses.replace(TINY, model_dim=128)
    config = dataclasses.replace(recipe(), model=model, quant=QuantConfig(method="gptq", fit=True))
    overhead = overhead_costs(GPT, b"", 260)
    config = dataclasses.replace(config, track=dataclasses.replace(config.track, cap_bytes=200_000))
    step = fitted_step(config, GPT, 260, overhead)
    filled = sum(row.expected for row in [*role_costs(config, GPT, 260, step), *overhead])
    assert 199_990 <= filled <= 200_000


def test_stages_follow_ramps_and_loops() -> None:
    train = dataclasses.replace(
        recipe().train, batch_ramp=(128,), batch_ramp_until=(0.1,), seq_ramp=(16,), seq_ramp_until=(0.4,)
    )
    looped = dataclasses.replace(TINY, loop_layers="1", loop_starts=(0.25,))
    costs = stage_costs(dataclasses.replace(recipe(), train=train, model=looped), GPT, 64)
    assert [round(cost.share, 6) for cost in costs] == [0.1, 0.15, 0.15, 0.6]
    assert [tuple(cost.stage) for cost in costs] == [(128, 16, 0), (256, 16, 0), (256, 16, 1), (256, 32, 1)]
    assert [cost.work.passes for cost in costs] == [3, 3, 4, 4]


def test_state_counts_moments_and_the_average() -> None:
    config = recipe()
    rows = role_costs(config, GPT, 260)
    model = GPT.build(config.model, 260, 0)
    optimizers = Optimizers(model, model.parameter_roles(), config.optim, tied=True)
    moments = sum(tensor.numel() for tensor in optimizers.state_dict()["state"].values())
    assert state_bytes(config, rows) == 8 * sum(row.params for row in rows) + 4 * moments
    averaged = dataclasses.replace(config, train=dataclasses.replace(config.train, ema_decay=0.9))
    assert state_bytes(averaged, rows) - state_bytes(config, rows) == 4 * sum(row.params for row in rows)
