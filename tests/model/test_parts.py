"""Every part of the GPT alone and all together: against its formula, and in training, evaluation and from the file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import plain_gpt
import pytest
import torch
from tiny import VOCAB, recipe, scrambled

from golfcore.artifact.model_io import load_model, save_model
from golfcore.errors import UsageError
from golfcore.evaluate.probes import future_flip
from golfcore.model import get_family
from golfcore.model.gpt.config import GPTConfig, gpt_counts, layer_order
from golfcore.model.interface import Batch, Context
from golfcore.quant import quantize_state

BASE: dict[str, Any] = {"num_layers": 4, "model_dim": 48, "num_heads": 4, "num_kv_heads": 2, "bos": 3}
PARTS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "mha": {"num_kv_heads": 4},
    "mqa": {"num_kv_heads": 1},
    "partial_rope": {"rope_dims": 4},
    "ntk": {"rope_scaling": "ntk", "rope_train_len": 8},
    "yarn": {"rope_scaling": "yarn", "rope_train_len": 8, "rope_base": 40.0},
    "leaky2": {"activation": "leaky2"},
    "swiglu": {"activation": "swiglu"},
    "layer_scale": {"layer_scale": True},
    "no_skips": {"skips": "none"},
    "gated_skips": {"skips": "gated"},
    "no_mix": {"resid_mix": "none"},
    "phase_mix": {"resid_mix": "phase"},
    "value_embed": {"value_embed_layers": "0,2-3", "value_embed_dim": 8},
    "bigram": {"bigram_slots": 40},
    "bigram_projected": {"bigram_slots": 40, "bigram_dim": 8},
    "smear_token": {"smear": "token"},
    "smear_channel": {"smear": "channel"},
    "smear_mean": {"smear": "mean"},
    "xsa": {"xsa_layers": "1,3"},
    "gate_head": {"attn_gate": "head"},
    "gate_dense": {"attn_gate": "dense"},
    "gate_sparse": {"attn_gate": "sparse", "attn_gate_scale": 0.5},
    "loop": {"loop_layers": "1-2", "loop_starts": (0.3, 0.6)},
    "lanes": {"lanes_from": 2},
    "factored": {"embed_dim": 8},
    "untied": {"tie_embeddings": False},
    "factored_untied": {"embed_dim": 8, "tie_embeddings": False},
    "poly_cap": {"softcap": "poly", "logit_softcap": 2.0},
    "z_loss": {"z_loss": 0.1},
    "packed": {"packed_documents": True},
    "packed_cut": {"packed_documents": True, "max_segment": 5},
    "orthogonal": {"init": "orthogonal"},
}
# What the 1.0611 entry has, and then everything that can stand beside it.
PARTS["frontier"] = {
    "num_layers": 6, "mlp_mult": 4, "rope_dims": 4, "activation": "leaky2", "layer_scale": True, "skips": "gated",
    "smear": "token", "xsa_layers": "all", "attn_gate": "sparse", "attn_gate_scale": 0.5, "loop_layers": "1-2",
    "loop_starts": (0.35, 0.35), "lanes_from": 4, "packed_documents": True, "max_segment": 9, "init": "orthogonal",
    "qk_gain_init": 5.0,
}  # fmt: skip
PARTS["all"] = PARTS["frontier"] | {
    "value_embed_layers": "1-4", "value_embed_dim": 8, "bigram_slots": 40, "bigram_dim": 8, "embed_dim": 8,
    "rope_scaling": "yarn", "rope_train_len": 8, "softcap": "poly", "z_loss": 1e-3, "resid_mix": "phase",
}  # fmt: skip


def config_of(part: str) -> GPTConfig:
    return GPTConfig(**{**BASE, **PARTS[part]})


def tokens(config: GPTConfig, seed: int = 2) -> torch.Tensor:
    """Rows of documents of about seven tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, VOCAB, (2, 24), generator=generator)
    return torch.where(torch.rand(ids.shape, generator=generator) < 1 / 7, config.bos, ids)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_its_formula(part: str) -> None:
    config = config_of(part)
    model, ids = scrambled(config), tokens(config)
    p = dict(model.named_parameters())
    with torch.no_grad():
        logits, _ = model.logits(model.new_state(2), ids)
        torch.testing.assert_close(logits, plain_gpt.logits(p, config, ids), rtol=1e-5, atol=2e-5)
        for last in (1, 7, 24):
            torch.testing.assert_close(model.last_logits(ids, last), logits[:, -last:], rtol=1e-5, atol=2e-5)
        for phase in range(len(config.loop_starts) + 1):
            model.phase = phase
            loss, _ = model.loss(Batch(ids[:, :-1], ids[:, 1:]), Context(torch.zeros(())))
            expected = plain_gpt.loss(p, config, ids[:, :-1], ids[:, 1:], phase)
            assert abs(float(loss) - float(expected)) < 1e-5


@pytest.mark.parametrize("part", PARTS)
def test_training_evaluation_and_the_packed_model_are_one_forward(part: str, tmp_path: Path) -> None:
    """The contest lost 0.8 bits a byte to a gate that was forgotten in a second copy of the forward pass."""
    config = config_of(part)
    model, ids, family = scrambled(config), tokens(config), get_family("gpt")
    stored = quantize_state(model.state_dict(), model.parameter_roles(), recipe().quant)
    with torch.no_grad():
        for item in stored:
            model.get_parameter(item.name).copy_(item.dequantize())
        model.train()
        _, parts = model.loss(Batch(ids[:, :-1], ids[:, 1:]), Context(torch.zeros(())))
    save_model(tmp_path / "model.golf", family, config, VOCAB, stored, b"", {})
    loaded = load_model(tmp_path / "model.golf").module
    assert loaded.phase == model.phase
    for other in (model.eval(), loaded):
        with torch.no_grad():
            logits, _ = other.logits(other.new_state(2), ids[:, :-1])
        ce = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        assert abs(float(ce) - float(parts["ce"])) < 1e-5


@pytest.mark.parametrize("part", PARTS)
def test_a_part_reads_nothing_from_the_future(part: str) -> None:
    config = config_of(part)
    stream = tokens(config).flatten().numpy().astype("uint16")
    future_flip(scrambled(config), stream, context=16, strides=(16, 5))


@pytest.mark.parametrize("part", PARTS)
def test_every_parameter_of_a_part_is_counted_and_learns(part: str) -> None:
    config = config_of(part)
    model, ids = scrambled(config), tokens(config)
    roles = model.parameter_roles()
    assert list(roles) == [name for name, _ in model.named_parameters()]
    found: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        row = found.setdefault(roles[name].group, [0, 0])
        row[0] += parameter.numel()
        row[1] += parameter.size(0) if roles[name].kind != "vector" else 0
    assert found == {group: list(counts[1:]) for group, counts in gpt_counts(config, VOCAB).items()}
    model.loss(Batch(ids[:, :-1], ids[:, 1:]), Context(torch.zeros(())))[0].backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize("part", PARTS)
def test_a_fresh_part_has_a_gradient_where_it_must_grow(part: str) -> None:
    """Two zeros in a row would never move."""
    config = config_of(part)
    model, ids = get_family("gpt").build(config, VOCAB, 0), tokens(config)
    for _ in range(4):  # zero-initialized branches open one after the other
        model.zero_grad()
        model.loss(Batch(ids[:, :-1], ids[:, 1:]), Context(torch.zeros(())))[0].backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.05 * parameter.grad / (parameter.grad.norm() + 1e-12)
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_the_frontier_has_the_contests_parameter_count() -> None:
    config = GPTConfig(
        num_layers=11, mlp_mult=4, rope_dims=16, skips="gated", smear="token", attn_gate="sparse", xsa_layers="all",
        loop_layers="3-5", loop_starts=(0.35, 0.35), lanes_from=8,
    )  # fmt: skip
    assert sum(n for _, n, _ in gpt_counts(config, 8192).values()) == 35_945_671
    assert layer_order(config, 2) == (0, 1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5, 6, 7, 8, 9, 10)
    assert layer_order(config, 0) == tuple(range(11))


def test_compiled_and_eager_agree_in_every_phase() -> None:
    """A flag that the compiler froze at its first trace would show here as the first phase's loss."""
    config = dataclasses.replace(config_of("all"), smear="mean", rope_scaling="none")
    model, ids = scrambled(config), tokens(config)
    compiled = torch.compile(model.loss, backend="eager")
    batch, context = Batch(ids[:, :-1], ids[:, 1:]), Context(torch.zeros(()))
    losses = []
    with torch.no_grad():
        for phase in (0, 1, 2, 0):
            model.phase = phase
            losses.append(float(compiled(batch, context)[0]))
            assert abs(losses[-1] - float(model.loss(batch, context)[0])) < 1e-5
    assert losses[0] == losses[3]
    assert len(set(losses)) == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_heads": 5}, "model.num_heads"),
        ({"num_kv_heads": 3}, "model.num_kv_heads"),
        ({"num_layers": 0}, "model.num_layers"),
        ({"num_heads": 16}, "even head dimension"),
        ({"logit_softcap": 0.0}, "model.logit_softcap"),
        ({"rope_dims": 3}, "model.rope_dims"),
        ({"rope_dims": 14}, "up to the head dimension 12"),
        ({"rope_dims": 2, "rope_scaling": "ntk"}, "4 or more, which model.rope_scaling"),
        ({"bigram_slots": 1}, "model.bigram_slots"),
        ({"bigram_dim": 8}, "without model.bigram_slots"),
        ({"model_dim": 8, "num_heads": 2, "attn_gate": "sparse"}, "which model.attn_gate and model.smear read"),
        ({"value_embed_layers": "0", "value_embed_dim": 0}, "model.value_embed_dim"),
        ({"value_embed_layers": "4"}, "layers of 0 to 3"),
        ({"xsa_layers": "last"}, "model.xsa_layers"),
        ({"xsa_layers": "3-1"}, "model.xsa_layers"),
        ({"max_segment": 4}, "without model.packed_documents"),
        ({"lanes_from": 4}, "model.lanes_from"),
        ({"lanes_from": 1}, "behind the first half"),
        ({"loop_layers": "0,2", "loop_starts": (0.5,)}, "one span of layers"),
        ({"loop_layers": "3-5", "loop_starts": (0.5,)}, "layers of 0 to 3"),
        ({"loop_layers": "1"}, "model.loop_starts"),
        ({"loop_starts": (0.5,)}, "model.loop_starts"),
        ({"loop_layers": "1", "loop_starts": (1.0,)}, "at least 0 and below 1"),
        ({"loop_layers": "1", "loop_starts": (0.5, 0.2)}, "rising shares"),
    ],
)
def test_what_cannot_be_names_the_key(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        GPTConfig(**{**BASE, **change})
