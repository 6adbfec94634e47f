"""Quantization-aware training acts, in eager mode and compiled, from the first step or late; low-bit recipes learn."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY, recipe
from torch import Tensor
from toys import looped

from golfcore.artifact.model_io import StoredTensor
from golfcore.config import QuantConfig, RecipeConfig
from golfcore.data.contracts import Documents, TokenBatch
from golfcore.errors import UsageError
from golfcore.model import get_family
from golfcore.model.interface import Batch, Context
from golfcore.quant import quantize_state
from golfcore.quant.qat import aware_loss, transforms
from golfcore.ranks.world import World
from golfcore.recipes import load_recipe, recipe_names
from golfcore.training.runlog import RunLog
from golfcore.training.trainer import Trainer


class Repeats:
    """Batches of a few repeating sequences: something that can be learned."""

    def __init__(self, rows: int, seq_len: int, vocab_size: int) -> None:
        self.shape, self.vocab_size, self.step = (rows, seq_len), vocab_size, 0

    def peek(self) -> TokenBatch:
        start = np.random.default_rng(self.step).integers(0, 16, (self.shape[0], 1))
        ids = (4 + (start + np.arange(self.shape[1] + 1)) % 16).astype(np.uint16)
        return TokenBatch(ids[:, :-1].copy(), ids[:, 1:].copy())

    def __next__(self) -> TokenBatch:
        batch = self.peek()
        self.step += 1
        return batch

    def reshape(self, batch_tokens: int, seq_len: int, documents: Documents | None = None) -> None:
        self.shape = (batch_tokens // seq_len, seq_len)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: Any) -> None:
        self.step = state["step"]


def trained(tmp_path: Path, config: RecipeConfig, name: str = "run") -> tuple[dict[str, Tensor], list[float]]:
    """The weights at the end, and the losses."""
    losses: list[float] = []
    module = get_family("gpt").build(config.model, config.data.vocab_size, 0)
    world = World(rank=0, size=1, device=torch.device("cpu"))
    loader = Repeats(config.train.batch_tokens // config.train.seq_len, config.train.seq_len, config.data.vocab_size)
    with RunLog(tmp_path / name, primary=True) as log:
        log.train = lambda *a, **k: losses.append(k["loss"])  # type: ignore[method-assign]
        trainer = Trainer(config, module, loader, world, log)
        trainer.warm_up()
        trainer.run()
    return {n: p.detach() for n, p in module.named_parameters()}, losses


def with_quant(config: RecipeConfig, **quant: Any) -> RecipeConfig:
    return dataclasses.replace(config, quant=QuantConfig(**quant))


COARSE = {"matrix_bits": 3, "matrix_clip": "absmax"}


def short(**train: Any) -> RecipeConfig:
    """Four steps of one layer."""
    config = recipe(iterations=4, batch_tokens=64, micro_batch_tokens=64, **train)
    return dataclasses.replace(config, model=dataclasses.replace(TINY, num_layers=1))


def test_fake_quantization_acts_late_and_from_the_start(tmp_path: Path) -> None:
    base = short()
    plain, plain_losses = trained(tmp_path, base, "plain")
    start, start_losses = trained(tmp_path, with_quant(base, qat="ste", **COARSE), "start")
    late, late_losses = trained(tmp_path, with_quant(base, qat="ste", qat_from=0.5, **COARSE), "late")
    assert start_losses[0] != plain_losses[0]
    # Up to half of the run nothing differs; then the loss is that of quantized weights, and so are the gradients.
    assert late_losses[:2] == plain_losses[:2] and late_losses[2] != plain_losses[2]
    for name in ("blocks.0.mlp.up.weight", "blocks.0.attn.q.weight"):
        assert not torch.allclose(start[name], plain[name], atol=1e-5)
        assert not torch.allclose(late[name], plain[name], atol=1e-5)
    assert torch.isfinite(start["embed.weight"]).all()


def test_it_acts_late_in_compiled_training_too(tmp_path: Path) -> None:
    """Compiled code would keep a flag's first value, and late quantization would never begin."""
    plain, plain_losses = trained(tmp_path, short(), "plain")
    late = [
        trained(tmp_path, with_quant(short(compile=c), qat="ste", qat_from=0.5, **COARSE), f"late-{c}") for c in (0, 1)
    ]
    (eager, eager_losses), (compiled, compiled_losses) = late
    # A weight on the edge between two steps may round the other way.
    assert compiled_losses == pytest.approx(eager_losses, rel=1e-3)
    assert compiled_losses[:2] == pytest.approx(plain_losses[:2], rel=1e-5)
    assert abs(compiled_losses[2] - plain_losses[2]) > 100 * abs(compiled_losses[2] - eager_losses[2])
    name = "blocks.0.mlp.up.weight"
    effect, compiling = (compiled[name] - plain[name]).norm(), (compiled[name] - eager[name]).norm()
    assert effect > 2 * compiling


@pytest.mark.parametrize(
    "config",
    [
        QuantConfig(qat="ste", matrix_bits=4, matrix_k=4.0),
        QuantConfig(qat="ste", matrix_clip="absmax", scales="fp16"),
        QuantConfig(qat="ste", format="ternary", group=16),
        QuantConfig(qat="ste", format="binary", group=16, rest="fp8"),
    ],
)  # fmt: skip
def test_the_forward_pass_sees_what_is_stored(config: QuantConfig) -> None:
    model = get_family("gpt").build(TINY, 64, 0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    roles = model.parameter_roles()
    seen = {n: t(dict(model.named_parameters())[n]) for n, t in transforms(roles, config).items()}
    stored: dict[str, StoredTensor] = {i.name: i for i in quantize_state(model.state_dict(), roles, config)}
    assert seen.keys() == {n for n, role in roles.items() if role.kind != "vector"}
    for name, weight in seen.items():
        kept = stored[name].dequantize()
        # A weight between two symbols may fall to the other one, since the grid's fp16 numbers are rounded.
        assert float(((weight - kept).abs() > 1e-3 * kept.abs() + 1e-6).float().mean()) < 0.01, name


def test_gradients_pass_straight_through_and_noise_is_one_step_wide() -> None:
    model, rows = looped(), torch.randint(0, 40, (2, 8))
    batch, context = Batch(rows, rows), Context(torch.zeros(()))
    config = QuantConfig(qat="noise", matrix_bits=4, matrix_clip="absmax", embed_bits=8)
    changed = transforms(model.parameter_roles(), config)["core.weight"]
    weight = model.core.weight
    noise = torch.stack([(changed(weight) - weight).detach() for _ in range(400)])
    step = weight.detach().abs().amax(1, keepdim=True) / 7
    assert (noise.abs() <= 0.5 * step * 2 ** (1 / 8) + 1e-6).all() and float((noise / step).std()) > 0.27
    changed(weight).sum().backward()
    assert weight.grad is not None and torch.equal(weight.grad, torch.ones_like(weight))
    model.zero_grad()
    losses = {float(aware_loss(model, model.parameter_roles(), config)(batch, context)[0].detach()) for _ in range(3)}
    assert len(losses) == 3  # every pass has noise of its own
    assert dict(model.named_parameters())["core.weight"] is weight  # and the module its own weights


@pytest.mark.parametrize("name", ["ternary", "binary"])
def test_low_bit_recipes_learn_and_lose_nothing_when_stored(name: str, tmp_path: Path) -> None:
    assert {"ternary", "binary"} <= set(recipe_names())
    config = load_recipe(name, environment={}).config
    assert config.quant.format == name and config.quant.qat == "ste" and config.optim.muon_weight_decay == 0
    assert config.train.ema_decay == 0 and config.model.model_dim % config.quant.group == 0
    small = dataclasses.replace(
        recipe(iterations=60, batch_tokens=256, micro_batch_tokens=256), optim=config.optim,
        quant=dataclasses.replace(config.quant, group=32),
    )  # fmt: skip
    weights, losses = trained(tmp_path, small)
    assert losses[-1] < 0.6 * losses[0], losses[::10]
    module = get_family("gpt").build(small.model, small.data.vocab_size, 0)
    module.load_state_dict(weights, strict=False)
    stored = quantize_state(module.state_dict(), module.parameter_roles(), small.quant)
    ids = torch.from_numpy(next(Repeats(8, 32, 260)).inputs_BT).long()
    batch, context = Batch(ids[:, :-1], ids[:, 1:]), Context(torch.ones(()))
    with torch.no_grad():
        as_trained = float(aware_loss(module, module.parameter_roles(), small.quant)(batch, context)[0])
        for item in stored:
            dict(module.named_parameters())[item.name].copy_(item.dequantize())
        assert float(module.loss(batch, context)[0]) == pytest.approx(as_trained, abs=0.02)


def test_bad_settings_are_named() -> None:
    for bad in ({"qat": "late"}, {"qat_from": 1.0}, {"states": 12}, {"group": 0}, {"fit": True}, {"damping": -1.0}):
        with pytest.raises(UsageError, match=rf"quant\.{next(iter(bad))}"):
            QuantConfig(**bad)  # type: ignore[arg-type]
