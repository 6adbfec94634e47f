"""The baseline GPT against an independent forward, written here from the contest's description of it."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from tiny import TINY, VOCAB
from torch import Tensor

from golfcore.errors import UsageError
from golfcore.model import get_family
from golfcore.model.base import Batch, Context, LanguageModel
from golfcore.model.gpt_config import GPTConfig, gpt_counts


def scrambled(config: GPTConfig, vocab_size: int = VOCAB) -> LanguageModel:
    """A model whose every parameter counts: the zero-initialised ones would hide mistakes."""
    model = get_family("gpt").build(config, vocab_size, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()


def independent_loss(p: dict[str, Tensor], config: GPTConfig, ids: Tensor, targets: Tensor) -> Tensor:
    """Head by head and position by position, with nothing taken from the package."""
    t_max, hd = ids.size(1), config.model_dim // config.num_heads
    half = hd // 2
    angle = torch.arange(t_max)[:, None] * config.rope_base ** (-torch.arange(half) * 2 / hd)

    def rotate(x: Tensor) -> Tensor:
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * angle.cos() + b * angle.sin(), b * angle.cos() - a * angle.sin()), -1)

    def attention(h: Tensor, i: int) -> Tensor:
        name = f"blocks.{i}.attn."
        heads = []
        for n in range(config.num_heads):
            kv = n * config.num_kv_heads // config.num_heads
            q = rotate(norm(h @ p[name + "q.weight"][n * hd : (n + 1) * hd].T)) * p[name + "q_gain_N"][n]
            k = rotate(norm(h @ p[name + "k.weight"][kv * hd : (kv + 1) * hd].T))
            v = h @ p[name + "v.weight"][kv * hd : (kv + 1) * hd].T
            scores = (q @ k.mT) / hd**0.5
            scores = scores.masked_fill(torch.ones(t_max, t_max).triu(1).bool(), float("-inf"))
            heads.append(scores.softmax(-1) @ v)
        return torch.cat(heads, -1) @ p[name + "o.weight"].T

    x = x0 = norm(p["embed.weight"][ids])
    skips = []
    for i in range(config.num_layers):
        if i >= config.num_layers // 2 and skips:
            x = x + p["skip_weight_SD"][i - config.num_layers // 2] * skips.pop()
        x = p[f"blocks.{i}.resid_mix_2D"][0] * x + p[f"blocks.{i}.resid_mix_2D"][1] * x0
        x = x + p[f"blocks.{i}.attn_scale_D"] * attention(norm(x), i)
        u = norm(x) @ p[f"blocks.{i}.mlp.up.weight"].T
        x = x + p[f"blocks.{i}.mlp_scale_D"] * ((u.clamp(min=0) ** 2) @ p[f"blocks.{i}.mlp.down.weight"].T)
        if i < config.num_layers // 2:
            skips.append(x)
    head = p["embed.weight"] if config.tie_embeddings else p["head.weight"]
    logits = config.logit_softcap * torch.tanh(norm(x) @ head.T / config.logit_softcap)
    return F.nll_loss(logits.log_softmax(-1).flatten(0, 1), targets.flatten())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_loss_is_that_of_the_contests_formulas(tied: bool, layers: int) -> None:
    config = dataclasses.replace(TINY, tie_embeddings=tied, num_layers=layers)
    model = scrambled(config)
    ids = torch.randint(0, VOCAB, (2, 17), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        loss, parts = model.loss(Batch(ids[:, :-1], ids[:, 1:]), Context(torch.zeros(())))
    expected = independent_loss(model.state_dict(), config, ids[:, :-1], ids[:, 1:])
    assert abs(float(loss) - float(expected)) < 1e-5
    assert float(parts["ce"]) == float(loss)


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


@pytest.mark.parametrize("tied", [True, False])
def test_counts_are_those_of_the_built_model(tied: bool) -> None:
    config = dataclasses.replace(TINY, tie_embeddings=tied)
    model = get_family("gpt").build(config, VOCAB, 0)
    roles = model.parameter_roles()
    found: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        row = found.setdefault(roles[name].group, [0, 0])
        row[0] += parameter.numel()
        row[1] += parameter.size(0) if roles[name].kind != "vector" else 0
    assert found == {group: list(counts[1:]) for group, counts in gpt_counts(config, VOCAB).items()}


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


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_heads": 5}, "model.num_heads"),
        ({"num_kv_heads": 3}, "model.num_kv_heads"),
        ({"num_layers": 0}, "model.num_layers"),
        ({"num_heads": 32, "num_kv_heads": 32}, "even head dimension"),
        ({"logit_softcap": 0.0}, "model.logit_softcap"),
    ],
)
def test_impossible_shapes_name_the_key(change: dict[str, int], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        dataclasses.replace(TINY, **change)


def test_an_unknown_family_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'gpt'"):
        get_family("gtp")
