"""The baseline GPT: the contest's formulas, its counts, its initial weights. Its parts are in test_parts.py."""

import dataclasses

import plain_gpt
import pytest
import torch
from tiny import TINY, VOCAB, scrambled

from golfcore.config import OptimConfig
from golfcore.errors import UsageError
from golfcore.model import get_family
from golfcore.model.gpt.config import GPTConfig, gpt_counts
from golfcore.model.interface import Batch, Context
from golfcore.ops.registry import using
from golfcore.optim.optimizers import Optimizers


@pytest.mark.parametrize("noise", [0.3, 0.01])  # the second leaves embeddings as small as they start
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_loss_is_that_of_the_contests_formulas(tied: bool, layers: int, noise: float) -> None:
    config = dataclasses.replace(TINY, tie_embeddings=tied, num_layers=layers)
    model = scrambled(config, noise=noise)
    ids = torch.randint(0, VOCAB, (2, 17), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        loss, parts = model.loss(Batch(ids[:, :-1], ids[:, 1:]), Context(torch.zeros(())))
    expected = plain_gpt.loss(model.state_dict(), config, ids[:, :-1], ids[:, 1:])
    assert abs(float(loss) - float(expected)) < 1e-5
    assert float(parts["ce"]) == float(loss)


def test_one_optimizer_step_is_the_contests() -> None:
    """Muon and Adam from the contest's formulas, in fp32 as the references have them; tests/optim compares bf16."""
    model = scrambled(TINY)
    config = OptimConfig()
    ids = torch.randint(0, VOCAB, (2, 17), generator=torch.Generator().manual_seed(2))
    expected = {}
    plain = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    plain_gpt.loss(plain, TINY, ids[:, :-1], ids[:, 1:]).backward()
    for name, p in plain.items():
        assert p.grad is not None
        if p.ndim == 2 and name.startswith("blocks.") and name.endswith(".weight"):
            x = p.grad * (1 + 0.85)  # Nesterov: g + momentum (0 + g), momentum still at its start
            x = x / (x.norm() + 1e-7)
            tall = x.size(0) > x.size(1)
            x = x.T if tall else x
            for _ in range(5):
                gram = x @ x.T
                x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
            expected[name] = p - 0.04 * max(1, p.size(0) / p.size(1)) ** 0.5 * (x.T if tall else x)
        else:
            rate = 0.05 if name == "embed.weight" else 0.04
            m, v = 0.1 * p.grad / (1 - 0.9), 0.05 * p.grad**2 / (1 - 0.95)
            expected[name] = p - rate * m / (v.sqrt() + 1e-8)
    with using("reference"):
        optimizers = Optimizers(model, model.parameter_roles(), config, tied=True)
        model.loss(Batch(ids[:, :-1], ids[:, 1:]), Context(torch.zeros(())))[0].backward()
        optimizers.step(1.0, 0)
    for name, p in model.named_parameters():
        gradient = plain[name].grad
        assert gradient is not None
        # Adam's first step is g / |g|: where g is nothing but rounding, so is its sign.
        sure = gradient.abs() > 1e-4 * gradient.abs().max()
        assert sure.float().mean() > 0.9
        torch.testing.assert_close(p[sure], expected[name][sure], rtol=0, atol=1e-5)


def test_logits_are_the_same_in_one_piece_and_in_many() -> None:
    model = scrambled(TINY)
    ids = torch.randint(0, VOCAB, (3, 12), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole, _ = model.logits(model.new_state(3), ids)
        state, pieces = model.new_state(3), []
        for piece in (ids[:, :1], ids[:, 1:6], ids[:, 6:]):
            logits, state = model.logits(state, piece)
            pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-5, atol=1e-5)


def test_the_contests_baseline_has_its_parameter_count() -> None:
    assert sum(n for _, n, _ in gpt_counts(GPTConfig(), 1024).values()) == 17_059_912


def test_equal_seeds_give_equal_weights_and_blocks_start_as_the_identity() -> None:
    a, b, c = (get_family("gpt").build(TINY, VOCAB, seed) for seed in (7, 7, 8))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.get_parameter("embed.weight"), c.get_parameter("embed.weight"))
    assert not a.get_parameter("blocks.0.attn.o.weight").any()


def test_bf16_stays_near_fp32() -> None:
    model = scrambled(TINY)
    ids = torch.randint(0, VOCAB, (2, 33), generator=torch.Generator().manual_seed(4))
    batch = Batch(ids[:, :-1], ids[:, 1:])
    with torch.no_grad():
        exact, _ = model.loss(batch, Context(torch.zeros(())))
        model.activation_dtype = torch.bfloat16
        rough, _ = model.loss(batch, Context(torch.zeros(())))
    assert 0 < abs(float(rough) - float(exact)) < 0.05


def test_an_unknown_family_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'gpt'"):
        get_family("gtp")
