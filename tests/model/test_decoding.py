"""Keys and values that are kept, and packed matrices: the same rows as the full pass, for every part of the GPT."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from test_parts import PARTS, config_of, tokens
from tiny import TINY, VOCAB, scrambled
from torch import Tensor, nn

from golfcore.artifact.model_io import StoredTensor, load_model, save_model
from golfcore.artifact.packed import load_packed
from golfcore.config import QuantConfig
from golfcore.errors import InputError
from golfcore.model import get_family
from golfcore.model.gpt.config import GPTConfig
from golfcore.model.gpt.decoding import SMALLEST
from golfcore.model.gpt.model import GPT
from golfcore.ops import linear, using
from golfcore.ops.bitpack import FEW_ROWS, PackedWeight
from golfcore.quant import quantize_state
from golfcore.recipes import load_recipe, recipe_names

PIECES = (1, 5, 1, 1, 9, 7)


@torch.no_grad()
def in_pieces(model: GPT, ids: Tensor, sizes: tuple[int, ...]) -> Tensor:
    state, found = model.new_state(ids.size(0)), []
    for piece in ids.split(list(sizes), 1):
        logits, state = model.logits(state, piece)
        found.append(logits)
    return torch.cat(found, 1)


@torch.no_grad()
def in_full(model: GPT, ids: Tensor) -> Tensor:
    """The rows of the one pass that training and scoring use."""
    return model.last_logits(ids, ids.size(1))


@pytest.mark.parametrize("mode", ["native", "reference"])
@pytest.mark.parametrize("part", [p for p in PARTS if "rope_scaling" not in PARTS[p]])
def test_pieces_give_the_rows_of_the_full_pass(part: str, mode: str) -> None:
    model, ids = scrambled(config_of(part)), tokens(config_of(part))
    with using(mode):
        torch.testing.assert_close(in_pieces(model, ids, PIECES), in_full(model, ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize("smear", ["none", "token", "channel", "mean"])
def test_what_an_embedding_reads_before_a_piece(smear: str) -> None:
    """The smear gate reads the token before, and that one's bigram the token before it."""
    config = dataclasses.replace(config_of("bigram"), smear=smear)
    model, ids = scrambled(config), tokens(config)
    torch.testing.assert_close(in_pieces(model, ids, PIECES), in_full(model, ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize("part", ["ntk", "yarn", "all"])
def test_scaled_positions_give_the_rows_of_a_window_as_long_as_what_was_read(part: str) -> None:
    """The window turns all its keys anew when it grows beyond rope_train_len = 8, so nothing can be kept there."""
    model, ids = scrambled(config_of(part)), tokens(config_of(part))
    found, read = in_pieces(model, ids, PIECES), 0
    for size in PIECES:
        read += size
        expected = in_full(model, ids[:, :read])[:, -size:]
        torch.testing.assert_close(found[:, read - size : read], expected, rtol=0, atol=1e-4)


def cut(name: str) -> GPTConfig:
    """The structure of a recipe's model, with few channels and short segments."""
    config: Any = load_recipe(name, environment={}).config.model
    return dataclasses.replace(
        config, model_dim=16 * config.num_heads, bos=3, rope_dims=min(config.rope_dims, 8),
        max_segment=9 if config.max_segment else 0,
    )  # fmt: skip


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_read_in_pieces(name: str) -> None:
    model, ids = scrambled(cut(name), noise=0.1), tokens(cut(name))
    torch.testing.assert_close(in_pieces(model, ids, PIECES), in_full(model, ids), rtol=0, atol=1e-4)


def test_every_phase_of_a_run_keeps_its_own_passes() -> None:
    model, ids = scrambled(config_of("frontier")), tokens(config_of("frontier"))
    for phase in range(3):
        model.phase = phase
        torch.testing.assert_close(in_pieces(model, ids, PIECES), in_full(model, ids), rtol=0, atol=1e-4)


def test_a_token_costs_the_work_of_one_token() -> None:
    model, ids, seen = scrambled(config_of("loop")), tokens(config_of("loop")), list[int]()
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].x_BTD.size(1)))
    in_pieces(model, ids, PIECES)
    assert seen == [size for size in PIECES for _ in range(8)]  # 4 layers, two of which run three times


def test_a_cache_grows_beyond_what_it_began_with() -> None:
    model = scrambled(TINY)
    ids = torch.randint(0, VOCAB, (2, 2 * SMALLEST + 3), generator=torch.Generator().manual_seed(3))
    sizes = (SMALLEST - 1, *[1] * (SMALLEST + 3), 1)
    torch.testing.assert_close(in_pieces(model, ids, sizes), in_full(model, ids), rtol=0, atol=1e-4)


@torch.no_grad()
def test_copies_of_a_state_go_on_apart() -> None:
    model, ids = scrambled(TINY), torch.randint(0, VOCAB, (1, 12), generator=torch.Generator().manual_seed(4))
    _, state = model.logits(model.new_state(1), ids[:, :8])
    copy = {name: tensor.clone() for name, tensor in state.items()}
    other = ids.flip(1)
    first, _ = model.logits(state, ids[:, 8:])
    second, _ = model.logits(copy, other[:, 8:])
    torch.testing.assert_close(first, in_full(model, ids)[:, 8:], rtol=0, atol=1e-4)
    expected = in_full(model, torch.cat((ids[:, :8], other[:, 8:]), 1))[:, 8:]
    torch.testing.assert_close(second, expected, rtol=0, atol=1e-4)


def test_gradients_flow_within_a_piece() -> None:
    model, ids = scrambled(TINY), torch.randint(0, VOCAB, (1, 12), generator=torch.Generator().manual_seed(5))
    model.logits(model.new_state(1), ids)[0].square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


# --- packed weights ---------------------------------------------------------------------------------------------------


def both(stored: list[StoredTensor], config: GPTConfig, folder: Path) -> tuple[GPT, GPT]:
    """The model of a file, with its matrices packed and in fp32."""
    save_model(folder / "m.golf", get_family("gpt"), config, VOCAB, stored, b"", {})
    packed, dense = load_packed(folder / "m.golf").module, load_model(folder / "m.golf").module
    assert isinstance(packed, GPT) and isinstance(dense, GPT)
    return packed, dense


def quantized(config: GPTConfig, quant: QuantConfig) -> list[StoredTensor]:
    model = scrambled(config)
    return quantize_state(model.state_dict(), model.parameter_roles(), quant)


def matrices(model: GPT) -> list[nn.Module]:
    return [module for name, module in model.named_modules() if name.endswith((".q", ".k", ".v", ".o", ".up", ".down"))]


@pytest.mark.parametrize(
    "part", ["baseline", "frontier", "all", "untied", "factored", "factored_untied", "value_embed"]
)
def test_a_packed_model_gives_the_rows_of_the_dense_one(part: str, tmp_path: Path) -> None:
    config = config_of(part)
    packed, dense = both(quantized(config, QuantConfig()), config, tmp_path)
    assert all(isinstance(module.weight, PackedWeight) for module in matrices(packed))
    ids = tokens(config)
    torch.testing.assert_close(in_full(packed, ids), in_full(dense, ids), rtol=0, atol=1e-4)
    torch.testing.assert_close(in_pieces(packed, ids, PIECES), in_pieces(dense, ids, PIECES), rtol=0, atol=1e-4)


KINDS: dict[str, QuantConfig] = {
    "int4": QuantConfig(matrix_bits=4, matrix_clip="absmax"),
    "int8": QuantConfig(matrix_bits=8, matrix_clip="absmax", embed_bits=8, embed_clip="absmax"),
    "ternary": QuantConfig(format="ternary", group=16),
    "binary": QuantConfig(format="binary", group=16),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_multiplied_packed(kind: str, tmp_path: Path) -> None:
    packed, dense = both(quantized(TINY, KINDS[kind]), TINY, tmp_path)
    expected = {"ternary": "int2", "binary": "int2"}.get(kind, kind)
    assert {module.weight.fmt for module in matrices(packed)} == {expected}  # type: ignore[union-attr]
    ids = torch.randint(0, VOCAB, (1, 24), generator=torch.Generator().manual_seed(6))
    torch.testing.assert_close(in_pieces(packed, ids, PIECES), in_full(dense, ids), rtol=0, atol=1e-4)


def test_columns_corrections_and_trellises_are_multiplied_packed(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(7)

    def factor(name: str, *shape: int) -> StoredTensor:
        return StoredTensor(name, "lqer", (0.1 * torch.randn(shape, generator=generator)).half())

    stored = []
    for item in quantized(TINY, QuantConfig()):
        (rows, *rest), name = item.values.shape, item.name
        if name.endswith("up.weight"):
            item = dataclasses.replace(item, trellis=3)
        elif name.endswith("down.weight"):
            item = dataclasses.replace(item, column_I=(0.5 + torch.rand(rest[0], generator=generator)).half())
        elif name.endswith("q.weight"):
            low_rank = factor(f"{name}.left", rows, 2), factor(f"{name}.right", 2, rest[0])
            item = dataclasses.replace(item, low_rank=low_rank)
        stored.append(item)
    packed, dense = both(stored, TINY, tmp_path)
    assert all(isinstance(module.weight, PackedWeight) for module in matrices(packed))
    ids = torch.randint(0, VOCAB, (1, 24), generator=generator)
    torch.testing.assert_close(in_pieces(packed, ids, PIECES), in_full(dense, ids), rtol=0, atol=1e-4)


def test_values_that_are_no_narrow_symbols_stay_dense(tmp_path: Path) -> None:
    stored = [
        dataclasses.replace(item, trellis=3) if item.name.endswith("up.weight") else item
        for item in quantized(TINY, KINDS["int8"])
    ]  # the points of eight bits and a trellis need nine
    packed, dense = both(stored, TINY, tmp_path)
    dense_names = {name for name, _ in packed.named_parameters()}
    assert "blocks.0.mlp.up.weight" in dense_names and "blocks.0.mlp.down.weight" not in dense_names
    ids = torch.randint(0, VOCAB, (1, 24), generator=torch.Generator().manual_seed(8))
    torch.testing.assert_close(in_pieces(packed, ids, PIECES), in_full(dense, ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("low", "high", "fmt"), [
    (-1, 1, "int2"), (0, 0, "int2"), (-2, 1, "int2"), (-1, 2, "int3"), (0, 3, "int3"),
    (-31, 31, "int6"), (-32, 31, "int6"), (-33, 0, "int8"), (-128, 127, "int8"),
])  # fmt: skip
def test_codes_get_the_narrowest_fast_format(low: int, high: int, fmt: str) -> None:
    codes = torch.tensor([[low, high, 0]])
    weight = PackedWeight.from_codes(codes, torch.full((1, 1), 0.5))
    assert weight.fmt == fmt
    for rows in (1, FEW_ROWS + 1):
        x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(9))
        (y,) = linear(x, weight)
        torch.testing.assert_close(y, x @ (0.5 * codes.float()).T, rtol=1e-4, atol=1e-4)


def test_wrong_codes_and_inputs_are_named() -> None:
    with pytest.raises(InputError, match="codes reach from -1 to 128"):
        PackedWeight.from_codes(torch.tensor([[-1, 128]]), torch.ones(1, 1))
    with pytest.raises(InputError, match="scales"):
        PackedWeight.from_codes(torch.tensor([[-1, 12]]), torch.ones(3, 1))
    with pytest.raises(InputError, match=r"expected \[..., 2\]"):
        linear(torch.ones(1, 3), PackedWeight.from_codes(torch.tensor([[-1, 12]]), torch.ones(1, 1)))
