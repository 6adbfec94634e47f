"""Make the case ``train_step``: one whole training step of a recipe, against the same model in plain torch.

The contenders are ours; ``torch``, the same formulas in torch's own operations, fused Adam and torch.optim.Muon;
``compile``, the same with the loss under torch.compile; and ``products``, only the matrix products of the step, which
would remain if all else were fused perfectly. All compute in the precision that the processor multiplies fast
(``golfcore.ops.products``), so that slow products do not decide on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from golfcore.bench.harness import NATIVE, Workload, require
from golfcore.config import RecipeConfig
from golfcore.model import get_family
from golfcore.model.gpt.model import GPT
from golfcore.model.gpt.parts import EPS
from golfcore.model.interface import Batch, Context
from golfcore.ops import products
from golfcore.ops.cases.optim import torch_muon_in_fast_precision
from golfcore.optim.optimizers import Optimizers


def train_step(recipe: RecipeConfig, rivals: Sequence[str]) -> Workload:
    """Return the workload of one step of ``recipe`` on one process; ``rivals`` as for every case."""
    train, vocab_size = recipe.train, recipe.data.vocab_size
    rows = train.batch_tokens // train.seq_len
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(0, vocab_size, (rows, train.seq_len + 1), generator=generator)
    batch = Batch(ids_BT[:, :-1].contiguous(), ids_BT[:, 1:].contiguous())
    steps: dict[str, Callable[[int], object]] = {NATIVE: _ours(recipe, batch)}
    if "torch" in rivals:
        steps["torch"] = _plain(recipe, batch, compiled=False)
    if "compile" in rivals:
        steps["compile"] = _plain(recipe, batch, compiled=True)
    alone = _Products(_model(recipe), train.batch_tokens)
    steps["products"] = alone.run
    return Workload(
        case="train_step", dtype=str(products.fast_dtype()).removeprefix("torch."),
        shape=f"{recipe.name}: {rows}x{train.seq_len} tokens",
        contenders=steps, check=lambda: _check(recipe, batch), flops=alone.flops,
    )  # fmt: skip


def _model(recipe: RecipeConfig) -> GPT:
    model = get_family(recipe.model_family).build(recipe.model, recipe.data.vocab_size, recipe.train.seed)
    require(isinstance(model, GPT), f"train_step supports the gpt family only; {recipe.name} has {recipe.model_family}")
    model.activation_dtype = products.fast_dtype()
    return model  # type: ignore[return-value]


def _ours(recipe: RecipeConfig, batch: Batch) -> Callable[[int], object]:
    model, context = _model(recipe), Context(torch.zeros(()))
    optimizers = Optimizers(
        model, model.parameter_roles(), recipe.optim, tied=recipe.model.tie_embeddings,
        averaged=recipe.train.ema_decay > 0,
    )  # fmt: skip

    def step(_: int) -> Tensor:
        loss, _parts = model.loss(batch, context)
        loss.backward()
        optimizers.step(0.1, 0, recipe.train.ema_decay)
        optimizers.zero_grad()
        return loss

    return step


def _plain(recipe: RecipeConfig, batch: Batch, *, compiled: bool) -> Callable[[int], object]:
    model, config = _model(recipe), recipe.optim
    roles = model.parameter_roles()
    matrices = [p for n, p in model.named_parameters() if roles[n].kind == "matrix"]
    others = [p for n, p in model.named_parameters() if roles[n].kind != "matrix"]
    averages = [p.detach().clone() for p in (*matrices, *others)] if recipe.train.ema_decay else []
    adam = torch.optim.Adam(others, lr=1e-3, betas=(config.beta1, config.beta2), fused=True)
    muon = torch.optim.Muon(matrices, lr=1e-3, weight_decay=0.0, ns_steps=config.muon_backend_steps)
    loss_fn = torch.compile(plain_loss, dynamic=False) if compiled else plain_loss

    def step(_: int) -> Tensor:
        loss: Tensor = loss_fn(model, batch)
        loss.backward()
        adam.step()
        with torch_muon_in_fast_precision():
            muon.step()
        if averages:
            torch._foreach_lerp_(averages, [p.detach() for p in (*matrices, *others)], 1 - recipe.train.ema_decay)
        adam.zero_grad()
        muon.zero_grad()
        return loss

    return step


def plain_loss(model: GPT, batch: Batch) -> Tensor:
    """Return the loss of ``model`` in torch's own operations, in the dtype of its activations."""
    dtype = model.activation_dtype
    cos, sin = (t[:, None].to(dtype) for t in model.rotary.tables(batch.inputs_BT.size(1), batch.inputs_BT.device))

    def norm(x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.size(-1),), eps=EPS)

    def rotate(x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)

    def linear(x: Tensor, layer: Any) -> Tensor:
        return F.linear(x, layer.weight.to(dtype))

    def attention(h: Tensor, layer: Any) -> Tensor:
        b, t, _ = h.shape
        q, k, v = (linear(h, f).view(b, t, -1, layer.head_dim) for f in (layer.q, layer.k, layer.v))
        q, k = rotate(norm(q)) * layer.q_gain_N.to(dtype)[:, None], rotate(norm(k))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return linear(y.transpose(1, 2).flatten(-2), layer.o)

    x = x0 = norm(F.embedding(batch.inputs_BT, model.embed.weight).to(dtype))
    skips: list[Tensor] = []
    block: Any
    half = len(model.blocks) // 2
    for i, block in enumerate(model.blocks):
        if i >= half and skips:
            x = x + model.skip_weight_SD[i - half].to(dtype) * skips.pop()
        mix = block.resid_mix_2D.to(dtype)
        x = mix[0] * x + mix[1] * x0
        x = x + block.attn_scale_D.to(dtype) * attention(norm(x), block.attn)
        hidden = F.relu(linear(norm(x), block.mlp.up)).square()
        x = x + block.mlp_scale_D.to(dtype) * linear(hidden, block.mlp.down)
        if i < half:
            skips.append(x)
    cap = model.config.logit_softcap
    logits = cap * torch.tanh(linear(norm(x), model.embed if model.head is None else model.head).float() / cap)
    return F.cross_entropy(logits.flatten(0, 1), batch.targets_BT.flatten())


class _Products:
    """The matrix products of a step on ``tokens`` tokens: forward, and both gradients of every layer."""

    def __init__(self, model: GPT, tokens: int) -> None:
        roles = model.parameter_roles()
        shapes = [p.shape for n, p in model.named_parameters() if roles[n].kind in ("matrix", "embedding", "head")]
        self.flops = float(sum(6 * tokens * o * i for o, i in shapes))
        self._layers = [
            tuple(torch.randn(s, dtype=products.fast_dtype()) for s in ((tokens, i), (tokens, o), (o, i)))
            for o, i in shapes
        ]

    def run(self, _: int) -> object:
        last = None
        for x_NI, dy_NO, w_OI in self._layers:
            last = (x_NI @ w_OI.t(), dy_NO @ w_OI, dy_NO.t() @ x_NI)
        return last


def _check(recipe: RecipeConfig, batch: Batch) -> None:
    """Raise RuleError unless plain torch has our loss and our gradients, but for the rounding of their precision."""
    model = _model(recipe)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # zero-initialized layers would hide mistakes behind them
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    found = []
    for loss in (model.loss(batch, Context(torch.zeros(())))[0], plain_loss(model, batch)):
        loss.backward()
        found.append((float(loss.detach()), {n: p.grad for n, p in model.named_parameters()}))
        model.zero_grad(set_to_none=True)
    (ours, our_grads), (plain, plain_grads) = found
    require(abs(ours - plain) < 0.01, f"train_step: our loss is {ours}, plain torch's {plain}; nothing was timed")
    for name, gradient in our_grads.items():
        other = plain_grads[name]
        if gradient is None or other is None:
            require(gradient is other, f"train_step: {name} has a gradient on one side only")
            continue
        likeness = float(F.cosine_similarity(gradient.flatten(), other.flatten(), dim=0))
        require(likeness > 0.98, f"train_step: the gradients of {name} differ (cosine {likeness:.4f})")
