"""The GPT family: the contest's baseline, and every part that later entries added to it.

The baseline (`records/track_10min_16mb/2026-03-17_NaiveBaseline`): pre-norm blocks of grouped-query attention and
relu^2 MLP, no biases and no norm gains. RMSNorm of the embedding gives x0, which every block mixes back in per channel
(resid_mix); the first half of the blocks pushes its outputs and the second half pops them (U-Net skips); q and k are
normalized per head, q times a learned gain; output projections start at zero, so every block starts as the identity;
logits are soft-capped. ``GPTConfig`` names the other parts.

There is one forward pass, ``hidden``; training, evaluation and the quantized model differ only in their weights.
Weights are kept in fp32 and cast to the activations' dtype where they are used.

Shape suffixes: B batch, T time, D model, S skips, L layers, V vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golfcore import ops
from golfcore.data.contracts import Documents
from golfcore.model.gpt.blocks import Block, Shared, Stream
from golfcore.model.gpt.config import GPTConfig, layer_order
from golfcore.model.gpt.parts import EPS, InputEmbedding, Linear, Rotary, ValueEmbedding, segment_bounds, soft_cap
from golfcore.model.interface import Batch, Context, LanguageModel
from golfcore.model.roles import Kind, Role

# Parameters that are not what their shape says: ``name -> (kind, group)``.
TABLES: dict[str, tuple[Kind, str]] = {
    "embed.weight": ("embedding", "embed"),
    "embed.bigram_GE": ("embedding", "bigram"),
    "value_embed.weight": ("embedding", "value_embed"),
    "head.weight": ("head", "head"),
    "embed.proj.weight": ("matrix", "proj"),
    "embed.bigram_proj.weight": ("matrix", "proj"),
    "value_embed.proj.weight": ("matrix", "proj"),
}


class GPT(LanguageModel):
    """The module of the GPT family; ``golfcore.model.interface.LanguageModel`` is its interface."""

    def __init__(self, config: GPTConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        n, d = config.num_layers, config.model_dim
        self.embed = InputEmbedding(config, vocab_size)
        self.value_embed = ValueEmbedding(config, vocab_size) if config.value_layers else None
        self.blocks = nn.ModuleList(Block(config, i) for i in range(n))
        if config.skips != "none":
            self.skip_weight_SD = nn.Parameter(torch.ones(config.skip_rows, d))
        if config.skips == "gated":
            self.skip_gate_SD = nn.Parameter(torch.zeros(config.skip_rows, d))
        if config.lanes_from:  # of all layers, as the contest stores them
            self.lane_keep_L2 = nn.Parameter(torch.full((n, 2), 1.1))
            self.lane_post_L22 = nn.Parameter(torch.ones(n, 2, 2))
        self.head = None if config.tie_embeddings else Linear(d, vocab_size)
        self.readout = nn.Identity()  # what the output matrix multiplies passes here, for taps()
        self.rotary = Rotary(config)
        self.orders = [layer_order(config, passes) for passes in range(len(config.loop_starts) + 1)]
        self.phase = len(config.loop_starts)

    def phase_starts(self) -> tuple[float, ...]:
        return self.config.loop_starts

    def documents(self) -> Documents | None:
        config = self.config
        return Documents(config.bos, config.max_segment) if config.packed_documents else None

    def hidden(self, symbols_BT: Tensor, table_VD: Tensor, last: int = 0, bounds: Tensor | None = None) -> Tensor:
        """Return the normed output [B, T, D] of the last block; with ``last`` only the last positions, [B, last, D].

        ``table_VD`` is ``self.embed.table()``, ``bounds`` is that of ``Batch``.
        """
        return self.through(self.enter(symbols_BT, table_VD, bounds), last)

    def enter(self, symbols_BT: Tensor, table_VD: Tensor, bounds: Tensor | None = None) -> Shared:
        """Return what the blocks read of whole rows: embeddings, positions, values by token, segments."""
        config, dtype = self.config, self.activation_dtype
        # Packed rows are laid end to end with positions by row: within a segment only their differences count.
        cos_TR, sin_TR = self.rotary.tables(symbols_BT.size(1), symbols_BT.device)
        if config.packed_documents and bounds is None:
            bounds = segment_bounds(symbols_BT, config.bos, config.max_segment)
        values = {} if self.value_embed is None else self.value_embed(symbols_BT, dtype)
        x0_BTD = ops.rms_norm(self.embed(symbols_BT, table_VD, dtype), eps=EPS)
        length = symbols_BT.size(1)
        longest = min(config.max_segment or length, length)
        return Shared(x0_BTD, cos_TR, sin_TR, values, bounds, longest)

    def through(self, shared: Shared, last: int = 0) -> Tensor:
        """Return the normed output of the last block, as ``hidden`` does."""
        config, order = self.config, self.orders[self.phase]
        encoder = len(order) // 2
        stream, skips = Stream(shared.x0_BTD), []
        for i in order[:encoder]:
            stream = self.blocks[i](stream, shared)
            if config.skips != "none":
                stream = Stream(stream.sum())
                skips.append(stream.x_BTD)
        lane_BTD: Tensor | None = None  # the MLP's, where there are two
        for j, i in enumerate(order[encoder:]):
            wanted = last if j + encoder == len(order) - 1 else 0  # the earlier blocks feed keys and values
            if config.lanes_from and i >= config.lanes_from and lane_BTD is None:
                stream = Stream(stream.sum())
                lane_BTD = stream.x_BTD
            if skips:
                stream = self._skip(stream.sum(), skips.pop(), j)
            if lane_BTD is None:
                stream = self.blocks[i](stream, shared, wanted)
            else:
                block: Block = self.blocks[i]  # type: ignore[assignment]
                x_BTD, lane_BTD = block.in_lanes(
                    stream.sum(), lane_BTD, self.lane_keep_L2[i], self.lane_post_L22[i], shared, wanted
                )
                stream = Stream(x_BTD)
        if lane_BTD is not None:
            stream = Stream((stream.x_BTD + lane_BTD) / 2)
        return ops.mix_norm(stream.x_BTD, stream.y_BTD, branch_gain=stream.s_D, eps=EPS)[1]

    def _skip(self, x_BTD: Tensor, skip_BTD: Tensor, row: int) -> Stream:
        if self.config.skips == "weighted":
            return Stream(x_BTD, skip_BTD, self.skip_weight_SD[row])
        weighted_BTD = self.skip_weight_SD[row].to(x_BTD.dtype) * skip_BTD
        return Stream(torch.lerp(weighted_BTD, x_BTD, torch.sigmoid(self.skip_gate_SD[row]).to(x_BTD.dtype)))

    def head_weight(self, table_VD: Tensor) -> Tensor:
        """Return the output matrix, fp32 [V, D]; it is the embedding table if they are tied."""
        return table_VD if self.head is None else self.head.weight

    def head_logits(self, x_BTD: Tensor, weight_VD: Tensor) -> Tensor:
        """Return the soft-capped fp32 logits [..., V] of normed outputs."""
        (logits,) = ops.linear(self.readout(x_BTD), weight_VD)
        # Where no gradient is needed, three more tensors of the size of the logits would cost more than the tanh.
        overwrite = not torch.is_grad_enabled()
        return soft_cap(logits.float(), self.config.logit_softcap, self.config.softcap, overwrite=overwrite)

    def loss(self, batch: Batch, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        config, table_VD = self.config, self.embed.table()
        x_BTD = self.hidden(batch.inputs_BT, table_VD, bounds=batch.bounds)
        weight_VD = self.head_weight(table_VD)
        if config.softcap == "tanh" and not config.z_loss:
            ce = ops.linear_cross_entropy(x_BTD, weight_VD, batch.targets_BT, config.logit_softcap)
            return ce, {"ce": ce.detach()}
        logits_NV = self.head_logits(x_BTD, weight_VD).flatten(0, 1)
        ce = F.cross_entropy(logits_NV, batch.targets_BT.flatten())
        if not config.z_loss:
            return ce, {"ce": ce.detach()}
        z = torch.logsumexp(logits_NV, -1).square().mean()
        return ce + config.z_loss * z, {"ce": ce.detach(), "z": z.detach()}

    def new_state(self, rows: int) -> dict[str, Tensor]:
        return {"symbols": torch.empty(rows, 0, dtype=torch.int64, device=self.embed.weight.device)}

    def logits(self, state: dict[str, Tensor], symbols_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        # The state is what was read, and all of it is computed again; decoding.py keeps keys and values instead.
        seen_BT = torch.cat((state["symbols"], symbols_BT), dim=1)
        table_VD = self.embed.table()
        x_BTD = self.hidden(seen_BT, table_VD)[:, seen_BT.size(1) - symbols_BT.size(1) :]
        return self.head_logits(x_BTD, self.head_weight(table_VD)), {"symbols": seen_BT}

    def last_logits(self, symbols_BT: Tensor, last: int) -> Tensor:
        table_VD = self.embed.table()
        return self.head_logits(self.hidden(symbols_BT, table_VD, last), self.head_weight(table_VD))

    def run_taps(self, symbols_BT: Tensor) -> None:
        self.readout(self.hidden(symbols_BT, self.embed.table()))  # V logits per token would be many times as large

    def taps(self) -> dict[str, nn.Module]:
        # Tables are looked up, and their projections act on them, not on a token's activations.
        found = {name: tap for name, tap in super().taps().items() if name not in TABLES}
        for i, block in enumerate(self.blocks):  # one product serves all three, so their own modules are not called
            attn: nn.Module = block.attn  # type: ignore[assignment]
            found |= {f"blocks.{i}.attn.{name}.weight": attn for name in ("q", "k", "v")}
        if self.head is not None:
            found["head.weight"] = self.readout
        elif self.embed.proj is None:
            found["embed.weight"] = self.readout
        return found

    def parameter_roles(self) -> dict[str, Role]:
        roles: dict[str, Role] = {}
        for name, parameter in self.named_parameters():
            if name in TABLES:
                roles[name] = Role(*TABLES[name])
            elif parameter.ndim == 2 and name.endswith(".weight"):
                layer, group = int(name.split(".")[1]), name.split(".")[-2]  # blocks.LAYER.attn.GROUP.weight
                roles[name] = Role("matrix", group, layer / self.config.num_layers)
            else:
                roles[name] = Role("vector", "control")
        return roles


def build_gpt(config: GPTConfig, vocab_size: int, seed: int, kind: type[GPT] = GPT) -> GPT:
    """Build a GPT with its initial weights, all drawn from ``seed``."""
    model = kind(config, vocab_size)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "embed.weight":
                std = config.tied_embed_init_std if config.tie_embeddings else 1.0
                parameter.normal_(std=std, generator=generator)
            elif name == "value_embed.weight":
                parameter.normal_(std=0.01, generator=generator)
            elif name.endswith("attn.gate_NI") and config.attn_gate == "dense":
                parameter.normal_(std=0.005, generator=generator)
            elif name == "embed.bigram_GE" or _starts_at_zero(name, config):
                parameter.zero_()
            elif name.endswith(".weight"):
                _fill_matrix(parameter, config.init, generator)
    return model


def _starts_at_zero(name: str, config: GPTConfig) -> bool:
    """Return whether a matrix starts at zero, so that its branch adds nothing at first.

    A bigram projection does not start at zero, since its table does: with both at zero neither would ever change.
    """
    return name.endswith((".o.weight", ".down.weight")) or name in ("head.weight", "value_embed.proj.weight")


def _fill_matrix(weight_OI: Tensor, init: str, generator: torch.Generator) -> None:
    if init == "orthogonal":
        nn.init.orthogonal_(weight_OI, generator=generator)
    else:
        # Kaiming-uniform with a = sqrt(5), the default of nn.Linear that the baseline leaves in place.
        bound = 1 / math.sqrt(weight_OI.size(1))
        weight_OI.uniform_(-bound, bound, generator=generator)
