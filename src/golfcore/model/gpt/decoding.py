"""Read a text piece by piece: keys and values of what was read are kept, and weights may stay packed.

The forward pass is that of ``GPT``. A piece of T tokens after P others gets the embeddings, positions and segments that
it has in the whole row, and each pass over a layer reads the keys and values of all P + T tokens, of which T are new.

Shape suffixes: B batch, T time, S tokens so far, D model, N query heads, K key/value heads, G query heads per key head,
H head dimension, J passes over layers, C capacity.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from golfcore import ops
from golfcore.model.gpt.blocks import Shared, attend
from golfcore.model.gpt.config import GPTConfig
from golfcore.model.gpt.model import GPT
from golfcore.model.gpt.parts import EPS, Linear, document_starts
from golfcore.ops.attention_backends import finish
from golfcore.ops.bitpack import PackedWeight
from golfcore.ops.registry import mode
from golfcore.ops.tape import Tape

SMALLEST = 64  # tokens that a cache begins with; it doubles


class CachedGPT(GPT):
    """A GPT whose state holds keys and values: a token costs the work of one token, whatever was read before.

    State: ``symbols`` [B, S]; ``keys`` and ``values`` [J, B, K, C, H], whose first S tokens are filled. The next piece
    is written into the same buffers. Gradients flow within a piece, never into the state.

    With ``rope_scaling`` a window longer than ``rope_train_len`` turns the keys of all its tokens by other angles with
    each token that is added, so from that length on the state is ``symbols`` alone and everything is computed again.
    """

    packed = False  # after pack_weights, when weights change no more
    packed_table: PackedWeight | None = None  # the embedding table where the head multiplies by it
    _step: Step | None = None

    def new_state(self, rows: int) -> dict[str, Tensor]:
        state, config = super().new_state(rows), self.config
        shape = (len(self.orders[self.phase]), rows, config.num_kv_heads, 0, config.head_dim)
        return state | {
            name: torch.empty(shape, dtype=self.activation_dtype, device=state["symbols"].device)
            for name in ("keys", "values")
        }

    def logits(self, state: dict[str, Tensor], symbols_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        seen_BS = torch.cat((state["symbols"], symbols_BT), dim=1)
        if self.config.rope_scaling != "none" and seen_BS.size(1) > self.config.rope_train_len:
            return super().logits(state, symbols_BT)
        table_VD = self.embed.table()
        cache = Cache(state["keys"], state["values"], seen_BS, symbols_BT.size(1), self.config)
        next_state = {"symbols": seen_BS, "keys": cache.keys_JBKCH, "values": cache.values_JBKCH}
        shared = self._enter_piece(seen_BS, table_VD, cache)
        if self.packed and cache.past and symbols_BT.numel() == 1 and not table_VD.is_cuda and mode() == "native":
            return self._replayed(shared, cache), next_state
        return self._leave(shared), next_state

    def _leave(self, shared: Shared) -> Tensor:
        return self.head_logits(self.through(shared), self.head_weight(self.embed.table()))

    @torch.inference_mode()
    def _replayed(self, shared: Shared, cache: Cache) -> Tensor:
        """Return the logits of one token by the tape of the first such token."""
        if self._step is None:
            self._step = Step(self._leave, shared)
        return self._step(shared, cache)

    def _enter_piece(self, seen_BS: Tensor, table_VD: Tensor, cache: Cache) -> Shared:
        """Return what ``enter`` does for the new tokens at the end of ``seen_BS``."""
        if cache.past == 0:
            return self.enter(seen_BS, table_VD)._replace(cache=cache)
        config, dtype, fresh = self.config, self.activation_dtype, seen_BS.size(1) - cache.past
        # Smear reads the embedding of the token before, whose bigram reads the one before that; the mean reads all.
        before = cache.past if config.smear == "mean" else 2
        e_BTD = self.embed(seen_BS[:, -(fresh + before) :], table_VD, dtype)[:, -fresh:]
        x0_BTD = ops.rms_norm(e_BTD, eps=EPS)
        length = cache.capacity if config.rope_scaling == "none" else min(cache.capacity, config.rope_train_len)
        place = slice(cache.past, seen_BS.size(1))
        cos_TR, sin_TR = (table[place] for table in self.rotary.tables(length, seen_BS.device))
        values = {} if self.value_embed is None else self.value_embed(seen_BS[:, -fresh:], dtype)
        return Shared(x0_BTD, cos_TR, sin_TR, values, cache=cache)

    def head_weight(self, table_VD: Tensor) -> Tensor:
        return super().head_weight(table_VD) if self.packed_table is None else self.packed_table  # type: ignore[return-value]

    def pack_weights(self, weights: Mapping[str, PackedWeight]) -> None:
        if self.head is None and self.embed.proj is None:
            self.packed_table = weights.get("embed.weight")
        self._fold_tables()
        self.packed, self._step = True, None
        for name, layer in self.named_modules():
            if isinstance(layer, Linear) and (weight := weights.get(f"{name}.weight")) is not None:
                del layer.weight
                layer.weight = weight  # type: ignore[assignment]

    @torch.no_grad()
    def _fold_tables(self) -> None:
        """Multiply each narrow table by its projection, once instead of with each token."""
        embed = self.embed
        if embed.proj is not None:
            embed.weight, embed.proj = torch.nn.Parameter(embed.table()), None
        if self.config.bigram_slots and embed.bigram_proj is not None:
            embed.bigram_GE = torch.nn.Parameter(F.linear(embed.bigram_GE, embed.bigram_proj.weight))
            embed.bigram_proj = None
        if (values := self.value_embed) is not None and values.proj is not None:
            values.weight, values.proj = torch.nn.Parameter(F.linear(values.weight, values.proj.weight)), None


class Step:
    """A pass of one token through the blocks and the head, recorded once (``ops.tape``).

    Args:
        leave: returns the logits of what the blocks read.
        shared: what they read of some token; its tensors are the memory that later tokens are copied into.
    """

    def __init__(self, leave: Callable[[Shared], Tensor], shared: Shared) -> None:
        self._tape, self._lock = Tape(), threading.Lock()
        self._cache = shared.cache
        self._shared = shared._replace(
            x0_BTD=shared.x0_BTD.clone(), cos_TR=shared.cos_TR.clone(), sin_TR=shared.sin_TR.clone(),
            values={i: v_BTKH.clone() for i, v_BTKH in shared.values.items()}, cache=self._attend,
        )  # fmt: skip
        with self._tape.recording():
            self._logits_BTV = leave(self._shared)

    def _attend(self, *arguments: Any) -> Tensor:
        return self._tape.by_hand(lambda: self._cache(*arguments))  # type: ignore[misc]

    def __call__(self, shared: Shared, cache: Cache) -> Tensor:
        """Return the logits [1, 1, V] of another token."""
        with self._lock:
            own, self._cache = self._shared, cache
            pairs = [(own.x0_BTD, shared.x0_BTD), (own.cos_TR, shared.cos_TR), (own.sin_TR, shared.sin_TR)]
            for kept, given in (*pairs, *((own.values[i], v_BTKH) for i, v_BTKH in shared.values.items())):
                kept.copy_(given)
            self._tape.replay()
            return self._logits_BTV.clone()


class Cache:
    """Keys and values of every pass over a layer, and the attention of a piece to them (``Shared.cache``).

    Args:
        keys_JBKCH, values_JBKCH: the state's buffers, whose first tokens are filled; copied into larger ones if the
            piece does not fit.
        seen_BS: all tokens, those of the piece at the end.
        fresh: tokens of the piece.
        config: the model's config.
    """

    def __init__(
        self, keys_JBKCH: Tensor, values_JBKCH: Tensor, seen_BS: Tensor, fresh: int, config: GPTConfig
    ) -> None:
        self.past, self.stop = seen_BS.size(1) - fresh, seen_BS.size(1)
        self.keys_JBKCH, self.values_JBKCH = (self._grown(t) for t in (keys_JBKCH, values_JBKCH))
        self.capacity = self.keys_JBKCH.size(3)
        self.mask_BTS = self._mask(seen_BS, config) if self.past else None
        self._pass = 0

    def _grown(self, buffer_JBKCH: Tensor) -> Tensor:
        """Return a buffer that holds ``stop`` tokens."""
        j, b, k, capacity, h = buffer_JBKCH.shape
        if self.stop <= capacity:
            return buffer_JBKCH
        grown_JBKCH = buffer_JBKCH.new_zeros(j, b, k, max(SMALLEST, 2 * capacity, self.stop), h)
        grown_JBKCH[..., : self.past, :] = buffer_JBKCH[..., : self.past, :]
        return grown_JBKCH

    def _mask(self, seen_BS: Tensor, config: GPTConfig) -> Tensor | None:
        """Return which tokens each token of the piece reads; None if the only one reads all."""
        if not config.packed_documents and self.stop - self.past == 1:
            return None
        at_S = torch.arange(self.stop, device=seen_BS.device)
        mask_BTS = (at_S <= at_S[self.past :, None])[None]
        if not config.packed_documents:
            return mask_BTS
        first_BS = torch.where(document_starts(seen_BS, config.bos), at_S, 0).cummax(1).values
        if config.max_segment:
            first_BS = at_S - (at_S - first_BS) % config.max_segment
        return mask_BTS & (at_S >= first_BS[:, self.past :, None])

    def __call__(
        self, q_BTNH: Tensor, k_BTKH: Tensor, v_BTKH: Tensor, gate_BTN: Tensor | None, xsa: bool, shared: Shared
    ) -> Tensor:
        """Keep the piece's keys and values for the pass that runs now, and return what ``attend`` returns."""
        keys_BKCH, values_BKCH = self.keys_JBKCH[self._pass], self.values_JBKCH[self._pass]
        self._pass = (self._pass + 1) % len(self.keys_JBKCH)  # a tape's first pass is recorded, then replayed
        (b, t, n, h), k = q_BTNH.shape, k_BTKH.size(2)
        keys_BKCH.narrow(2, self.past, t).copy_(k_BTKH.detach().transpose(1, 2))
        values_BKCH.narrow(2, self.past, t).copy_(v_BTKH.detach().transpose(1, 2))
        if self.past == 0:
            return attend(q_BTNH, k_BTKH, v_BTKH, gate_BTN, xsa, shared)
        # The query heads of a key head are queries beside each other, so that no key is copied for them.
        q_BKQH, mask = q_BTNH.view(b, k, n // k, h) if t == 1 else _beside(q_BTNH, k), None
        if self.mask_BTS is not None:
            mask = self.mask_BTS.repeat(1, n // k, 1)[:, None]
        y_BKQH = F.scaled_dot_product_attention(
            q_BKQH, keys_BKCH.narrow(2, 0, self.stop), values_BKCH.narrow(2, 0, self.stop), attn_mask=mask
        )
        y_BTNH = y_BKQH.reshape(b, k, n // k, t, h).permute(0, 3, 1, 2, 4).reshape(b, t, n, h)
        return finish(y_BTNH, v_BTKH, gate_BTN, xsa)


def _beside(q_BTNH: Tensor, kv_heads: int) -> Tensor:
    """Return [B, K, G T, H]: the queries of all heads that read one key head, head by head."""
    b, t, n, h = q_BTNH.shape
    return q_BTNH.view(b, t, kv_heads, n // kv_heads, h).permute(0, 2, 3, 1, 4).reshape(b, kv_heads, -1, h)
