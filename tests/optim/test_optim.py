"""Muon, the routing of parameters, and the schedules."""

import math

import pytest
import torch
from tiny import TINY, VOCAB, recipe
from torch import nn

from golfcore.config import OptimConfig
from golfcore.errors import InputError
from golfcore.model import Role, get_family
from golfcore.optim.muon import QUINTIC, Muon, orthogonalise
from golfcore.optim.routing import Optimizers
from golfcore.optim.schedule import lr_multiplier, muon_momentum, progress


@pytest.mark.parametrize("shape", [(3, 16, 48), (2, 48, 16), (1, 32, 32)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(g, 5).float())
    assert values.min() > 0.3
    assert values.max() < 1.3  # the quintic overshoots on purpose


def test_orthogonalise_follows_its_polynomial_and_keeps_singular_vectors() -> None:
    g = torch.randn(1, 8, 12, generator=torch.Generator().manual_seed(1))
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    s = s / g.norm()
    a, b, c = QUINTIC
    for _ in range(2):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(orthogonalise(g, 2).float(), u @ torch.diag_embed(s) @ vh, rtol=0.05, atol=0.03)


def test_muon_step_is_momentum_nesterov_and_shape_scale() -> None:
    p = nn.Parameter(torch.ones(8, 4))
    muon = Muon([p], lr=0.1, momentum=0.9, backend_steps=5, weight_decay=0.5)
    buffer, expected = torch.zeros(8, 4), torch.ones(8, 4)
    for seed in range(3):
        grad = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
        p.grad = grad.clone()
        muon.step()
        buffer = 0.9 * buffer + grad
        update = orthogonalise((grad + 0.9 * buffer)[None], 5)[0].float()
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * math.sqrt(2) * update
    torch.testing.assert_close(p.detach(), expected, rtol=1e-5, atol=1e-5)


def test_matrices_of_a_bank_do_not_mix() -> None:
    g = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(2))
    together = orthogonalise(g, 5)
    alone = torch.cat([orthogonalise(g[i : i + 1], 5) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0.02, atol=0.02)


def test_every_parameter_moves_at_its_own_rate() -> None:
    model = get_family("gpt").build(TINY, VOCAB, 0)
    config = OptimConfig(matrix_lr=0.01, tied_embed_lr=0.02, scalar_lr=0.03, muon_momentum_warmup_steps=0)
    optimizers = Optimizers(model, model.parameter_roles(), config, tied=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizers.step(0.5, 0)
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in model.named_parameters()}
    assert moved["embed.weight"] == pytest.approx(0.01, rel=1e-3)  # Adam's first step is its rate
    assert moved["skip_weight_SD"] == pytest.approx(0.015, rel=1e-3)
    assert all(value > 0 for value in moved.values())
    optimizers.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_a_parameter_without_a_role_is_an_error() -> None:
    model = get_family("gpt").build(TINY, VOCAB, 0)
    roles = model.parameter_roles()
    missing = {k: v for k, v in roles.items() if k != "skip_weight_SD"}
    with pytest.raises(InputError, match="skip_weight_SD"):
        Optimizers(model, missing, OptimConfig(), tied=True)
    with pytest.raises(InputError, match="ghost"):
        Optimizers(model, {**roles, "ghost": Role("vector", "control")}, OptimConfig(), tied=True)


def test_warmdown_by_steps() -> None:
    train = recipe(iterations=10, warmdown_iters=4).train
    assert [lr_multiplier(s, 0.0, train, 0.0) for s in (0, 6, 7, 8, 9)] == [1, 1, 0.75, 0.5, 0.25]


def test_warmdown_by_the_clock_is_the_contests_form() -> None:
    train = recipe(iterations=20_000, warmdown_iters=100).train
    # 1,000 steps in 500 s: 0.5 s a step, so the last 100 steps take 50 s of the 600.
    assert lr_multiplier(1000, 500.0, train, 600.0) == 1.0
    assert lr_multiplier(1150, 575.0, train, 600.0) == pytest.approx(0.5)
    assert lr_multiplier(1200, 600.0, train, 600.0) == 0.0


def test_warmdown_by_share_follows_whichever_ends_first() -> None:
    train = recipe(iterations=100, warmdown_fraction=0.5, warmdown_iters=0).train
    assert lr_multiplier(10, 30.0, train, 120.0) == 1.0
    assert lr_multiplier(10, 90.0, train, 120.0) == pytest.approx(0.5)
    assert lr_multiplier(75, 30.0, train, 120.0) == pytest.approx(0.5)
    assert progress(100, 30.0, train, 120.0) == 1.0


def test_momentum_warms_up_linearly() -> None:
    config = OptimConfig(muon_momentum=0.95, muon_momentum_warmup_start=0.85, muon_momentum_warmup_steps=10)
    assert [muon_momentum(s, config) for s in (0, 5, 10, 99)] == pytest.approx([0.85, 0.9, 0.95, 0.95])
