"""The routing of parameters to optimizers, and the schedules; the steps themselves are tested in tests/ops."""

import pytest
import torch
from tiny import TINY, VOCAB, recipe

from golfcore.config import OptimConfig
from golfcore.errors import InputError, UsageError
from golfcore.model import Role, get_family
from golfcore.optim.optimizers import Optimizers
from golfcore.optim.routing import route
from golfcore.optim.schedule import (
    average_decay,
    lr_multiplier,
    muon_momentum,
    progress,
    stage_at,
    stages,
    weight_decay_multiplier,
)


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


def test_matrices_move_by_muons_rule() -> None:
    """Momentum, Nesterov, singular values near one, ``sqrt(max(1, rows / columns))``, as plain torch has it."""
    model = get_family("gpt").build(TINY, VOCAB, 0)
    config = OptimConfig(matrix_lr=0.1, muon_momentum=0.9, muon_momentum_warmup_steps=0, muon_weight_decay=0.5)
    optimizers = Optimizers(model, model.parameter_roles(), config, tied=True)
    name = "blocks.1.mlp.up.weight"
    weight, buffer = model.get_parameter(name).detach().clone(), torch.zeros(64, 32)
    for step in range(3):
        for i, p in enumerate(model.parameters()):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + i))
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        buffer = 0.9 * buffer + gradient
        u, s, vh = torch.linalg.svd(gradient + 0.9 * buffer, full_matrices=False)
        s = s / s.norm()
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        weight = weight * (1 - 0.1 * 0.5) - 0.1 * 2**0.5 * (u @ torch.diag(s) @ vh)
        optimizers.step(1.0, step)
    torch.testing.assert_close(model.get_parameter(name).detach(), weight, rtol=0.02, atol=0.02)


def test_the_average_follows_the_weights() -> None:
    model = get_family("gpt").build(TINY, VOCAB, 0)
    optimizers = Optimizers(model, model.parameter_roles(), OptimConfig(), tied=True, averaged=True)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    for step in range(2):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizers.step(1.0, step, average_decay=0.75)
        expected = {n: 0.75 * e + 0.25 * model.get_parameter(n).detach() for n, e in expected.items()}
    for name, average in optimizers.averages.items():
        torch.testing.assert_close(average, expected[name], rtol=1e-5, atol=1e-6)


def test_state_of_another_model_is_refused() -> None:
    model = get_family("gpt").build(TINY, VOCAB, 0)
    roles = model.parameter_roles()
    plain = Optimizers(model, roles, OptimConfig(), tied=True)
    averaged = Optimizers(model, roles, OptimConfig(), tied=True, averaged=True)
    with pytest.raises(InputError, match="does not fit the model"):
        averaged.load_state_dict(plain.state_dict())


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


def test_routes_follow_role_and_depth() -> None:
    config = OptimConfig(matrix_lr=0.02, matrix_lr_late=0.03, muon_weight_decay=0.1, embed_weight_decay=0.2,
                         scalar_weight_decay=0.3)  # fmt: skip
    early, late = Role("matrix", "q", 0.49), Role("matrix", "q", 0.5)
    assert route(early, config, tied=True) == ("muon", 0.02, 0.1)
    assert route(late, config, tied=True) == ("muon", 0.03, 0.1)
    assert route(Role("embedding", "embed"), config, tied=True) == ("adamw", config.tied_embed_lr, 0.2)
    assert route(Role("embedding", "embed"), config, tied=False) == ("adamw", config.embed_lr, 0.2)
    assert route(Role("head", "head"), config, tied=False) == ("adamw", config.head_lr, 0.2)
    assert route(Role("vector", "control"), config, tied=True) == ("adamw", config.scalar_lr, 0.3)


def test_late_layers_move_further_and_decay_shrinks() -> None:
    config = OptimConfig(
        matrix_lr=0.01, matrix_lr_late=0.02, muon_momentum_warmup_steps=0, muon_coefficients="polar",
        muon_row_norm=True, scalar_lr=0.1, scalar_weight_decay=0.5,
    )  # fmt: skip
    model = get_family("gpt").build(TINY, VOCAB, 0)
    optimizers = Optimizers(model, model.parameter_roles(), config, tied=True)
    names = [f"blocks.{i}.mlp.up.weight" for i in (0, 2)]
    before = {name: model.get_parameter(name).detach().clone() for name in names}
    for i, p in enumerate(model.parameters()):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    gain = model.get_parameter("blocks.0.attn.q_gain_N")
    gain.grad = torch.zeros_like(gain)
    optimizers.step(1.0, 0, weight_decay_multiplier=0.5)
    moved = [float((model.get_parameter(n).detach() - before[n]).norm()) for n in names]
    # 32 singular values near one, times sqrt(rows / columns), times the rate.
    assert moved == pytest.approx([0.01 * 64**0.5, 0.02 * 64**0.5], rel=0.1)
    torch.testing.assert_close(gain.detach(), torch.full_like(gain, TINY.qk_gain_init * (1 - 0.1 * 0.5 * 0.5)))


def test_polar_express_has_five_steps() -> None:
    with pytest.raises(UsageError, match="muon_backend_steps = 6"):
        OptimConfig(muon_coefficients="polar", muon_backend_steps=6)


def test_the_rate_stops_at_its_floor() -> None:
    train = recipe(iterations=100, warmdown_fraction=0.85, lr_floor=0.1).train
    assert lr_multiplier(15, 0.0, train, 0.0) == pytest.approx(1.0)
    assert lr_multiplier(66, 0.0, train, 0.0) == pytest.approx(0.4)
    assert lr_multiplier(99, 0.0, train, 0.0) == 0.1


def test_weight_decay_tapers() -> None:
    config = OptimConfig(weight_decay_taper=0.7, weight_decay_end=0.5)
    assert [weight_decay_multiplier(s, config) for s in (0, 0.7, 0.85, 1)] == pytest.approx([1, 1, 0.75, 0.5])
    assert weight_decay_multiplier(1.0, OptimConfig()) == 1.0


def test_averages_exponential_and_stochastic() -> None:
    ema = recipe(ema_decay=0.9).train
    assert [average_decay(s, 0.0, 0, ema) for s in (1, 11, 1000)] == pytest.approx([0.1, 0.55, 0.9])
    swa = recipe(swa_start=0.5, swa_every=4).train
    assert average_decay(4, 0.4, 0, swa) == 1.0
    assert average_decay(5, 0.6, 0, swa) == 1.0
    assert [average_decay(8, 0.6, n, swa) for n in (0, 1, 3)] == [0, 0.5, 0.75]  # a mean of n + 1 weights
    assert average_decay(8, 0.6, 1, recipe().train) == 1.0
    with pytest.raises(UsageError, match=r"train.swa_start = 0\.5: expected 0 with"):
        recipe(ema_decay=0.9, swa_start=0.5)


def test_stages_of_ramps_and_phases() -> None:
    train = recipe(
        batch_tokens=1024, batch_ramp=(256, 512), batch_ramp_until=(0.2, 0.5), seq_ramp=(16,), seq_ramp_until=(0.5,)
    ).train
    assert stage_at(0.0, train, (0.35, 0.6)) == (256, 16, 0)
    assert stage_at(0.2, train, (0.35, 0.6)) == (512, 16, 0)
    assert stages(train, (0.35, 0.6)) == [
        (256, 16, 0), (512, 16, 0), (512, 16, 1), (1024, 32, 1), (1024, 32, 2),
    ]  # fmt: skip
    assert stages(recipe().train) == [(256, 32, 0)]
    assert stages(recipe().train, (0.0, 0.3, 0.3)) == [(256, 32, 1), (256, 32, 3)]


@pytest.mark.parametrize(
    "ramp",
    [
        {"batch_ramp": (64,)},
        {"batch_ramp": (64, 128), "batch_ramp_until": (0.5, 0.5)},
        {"seq_ramp": (8,), "seq_ramp_until": (1.0,)},
        {"seq_ramp": (0,), "seq_ramp_until": (0.5,)},
    ],
)
def test_ramps_that_do_not_rise(ramp: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"train\.(batch|seq)_ramp"):
        recipe(**ramp)
