"""Make the case ``sampling``: tokens drawn one by one from a packed model, against plain torch with a cache.

The contenders go on greedily from the same prompt, one stream: ours from the packed file, with matrices in a few bits
and native operations; ``torch``, the same formulas on fp32 weights in torch's own eager operations, with keys and
values kept in buffers. Before anything is timed, both have to draw the same tokens.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from golfcore.artifact.model_io import load_model, save_model
from golfcore.artifact.packed import load_packed
from golfcore.bench.harness import NATIVE, Workload, require
from golfcore.config import QuantConfig, RecipeConfig
from golfcore.evaluate.sampling import next_tokens
from golfcore.model import get_family
from golfcore.model.gpt.model import GPT
from golfcore.model.gpt.parts import EPS
from golfcore.quant import quantize_state

PROMPT, DRAWN = 8, 120  # tokens


def sampling(recipe: RecipeConfig, rivals: Sequence[str]) -> Workload:
    """Return the workload of drawing ``DRAWN`` tokens from a model of ``recipe`` with random weights."""
    family, vocab_size = get_family(recipe.model_family), recipe.data.vocab_size
    model = family.build(recipe.model, vocab_size, recipe.train.seed)
    require(isinstance(model, GPT), f"sampling supports the gpt family only; {recipe.name} has {recipe.model_family}")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # zero-initialized layers would hide mistakes behind them
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    stored = [
        # As gptq leaves them: by a trellis of 256 states, with a factor on each column.
        replace(item, trellis=8, column_I=(0.5 + torch.rand(item.values.size(1), generator=generator)).half())
        if item.bits else item
        for item in quantize_state(model.state_dict(), model.parameter_roles(), QuantConfig())
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.golf"
        save_model(path, family, recipe.model, vocab_size, stored, b"", {})
        packed, dense = load_packed(path).module, load_model(path).module
    prompt = torch.randint(0, vocab_size, (PROMPT,), generator=generator).tolist()
    functions: dict[str, Callable[[], list[int]]] = {NATIVE: lambda: _ours(packed, prompt)}
    if "torch" in rivals:
        functions["torch"] = lambda: list(islice(plain_tokens(dense, prompt), DRAWN))

    def check() -> None:
        found = {name: function() for name, function in functions.items()}
        for name, tokens in found.items():
            require(tokens == found[NATIVE], f"sampling: {name} draws other tokens than golfcore; nothing was timed")

    return Workload(
        case="sampling", dtype="float32", shape=f"{recipe.name}: {DRAWN} tokens after {PROMPT}",
        contenders={name: lambda _, function=function: function() for name, function in functions.items()},  # type: ignore[misc]
        check=check,
    )  # fmt: skip


def _ours(model: Any, prompt: list[int]) -> list[int]:
    draws = next_tokens(model, prompt, context=PROMPT + DRAWN, draw=lambda logits_V: int(logits_V.argmax()))
    return list(islice(draws, DRAWN))


@torch.inference_mode()
def plain_tokens(model: Any, prompt: list[int]) -> Iterator[int]:
    """Yield the likeliest tokens after ``prompt``, one by one, by torch's own operations; at most ``DRAWN``."""
    config, length = model.config, PROMPT + DRAWN
    cos_TR, sin_TR = model.rotary.tables(length, torch.device("cpu"))
    shape = (len(model.blocks), 1, config.num_kv_heads, length, config.head_dim)
    keys, values = torch.empty(shape), torch.empty(shape)
    past, fresh = 0, prompt
    while past < length:
        logits_V = _plain_logits(model, torch.tensor([fresh]), keys, values, past, (cos_TR, sin_TR))
        past += len(fresh)
        fresh = [int(logits_V.argmax())]
        yield fresh[0]


def _plain_logits(
    model: Any, symbols_BT: Tensor, keys: Tensor, values: Tensor, past: int, tables: tuple[Tensor, Tensor]
) -> Tensor:
    """Return the logits [V] after the last symbol; keys and values of all symbols are written into the buffers."""
    stop = past + symbols_BT.size(1)
    cos, sin = (table[past:stop, None] for table in tables)

    def norm(x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.size(-1),), eps=EPS)

    def rotate(x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)

    def attention(h: Tensor, layer: Any, i: int) -> Tensor:
        b, t, _ = h.shape
        q, k, v = (F.linear(h, f.weight).view(b, t, -1, layer.head_dim) for f in (layer.q, layer.k, layer.v))
        q, k = rotate(norm(q)) * layer.q_gain_N[:, None], rotate(norm(k))
        keys[i][:, :, past:stop], values[i][:, :, past:stop] = k.transpose(1, 2), v.transpose(1, 2)
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), keys[i][:, :, :stop], values[i][:, :, :stop], is_causal=t > 1, enable_gqa=True
        )
        return F.linear(y.transpose(1, 2).flatten(-2), layer.o.weight)

    x = x0 = norm(F.embedding(symbols_BT, model.embed.weight))
    skips: list[Tensor] = []
    block: Any
    half = len(model.blocks) // 2
    for i, block in enumerate(model.blocks):
        if i >= half and skips:
            x = x + model.skip_weight_SD[i - half] * skips.pop()
        x = block.resid_mix_2D[0] * x + block.resid_mix_2D[1] * x0
        x = x + block.attn_scale_D * attention(norm(x), block.attn, i)
        hidden = F.relu(F.linear(norm(x), block.mlp.up.weight)).square()
        x = x + block.mlp_scale_D * F.linear(hidden, block.mlp.down.weight)
        if i < half:
            skips.append(x)
    cap = model.config.logit_softcap
    logits_V: Tensor = cap * torch.tanh(F.linear(norm(x[0, -1]), model.embed.weight) / cap)
    return logits_V
