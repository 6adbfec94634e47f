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
from golfcore.errors import InputError
from golfcore.model.gpt.blocks import Shared, attend
from golfcore.model.gpt.config import GPTConfig
from golfcore.model.gpt.model import GPT
from golfcore.model.gpt.parts import EPS, Linear, document_starts
from golfcore.ops.attention_backends import finish
from golfcore.ops.bitpack import PackedWeight
from golfcore.ops.registry import mode
from golfcore.ops.tape import Tape

SMALLEST = 64  # tokens that a cache begins with; it doubles
BEFORE = 2  # tokens before a piece that the embeddings of its first one read


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
        fresh = symbols_BT.size(1)
        cache = Cache(state["keys"], state["values"], seen_BS, fresh, self.config)
        next_state = {"symbols": seen_BS, "keys": cache.keys_JBKCH, "values": cache.values_JBKCH}
        if cache.past == 0:
            return self._leave(self.enter(seen_BS, self.embed.table())._replace(cache=cache)), next_state
        # Smear reads the embedding of the token before, whose bigram reads the one before that; the mean reads all.
        recent_BT = seen_BS[:, -(fresh + (cache.past if self.config.smear == "mean" else BEFORE)) :]
        longest = self.config.rope_train_len if self.config.rope_scaling != "none" else cache.capacity
        tables = self.rotary.tables(min(cache.capacity, longest), seen_BS.device)
        cos_TR, sin_TR = (table.narrow(0, cache.past, fresh) for table in tables)
        if self._is_recordable(recent_BT):
            return self._replayed(recent_BT, cos_TR, sin_TR, cache), next_state
        return self._after(recent_BT, fresh, cos_TR, sin_TR, cache), next_state

    def _after(
        self, recent_BT: Tensor, fresh: int, cos_TR: Tensor, sin_TR: Tensor, cache: Callable[..., Tensor]
    ) -> Tensor:
        """Return the logits of the last ``fresh`` of some tokens, with what the blocks read of them alone."""
        e_BTD = self.embed(recent_BT, self.embed.table(), self.activation_dtype)[:, -fresh:]
        values = {}
        if self.value_embed is not None:
            values = self.value_embed(recent_BT[:, -fresh:], self.activation_dtype)
        return self._leave(Shared(ops.rms_norm(e_BTD, eps=EPS), cos_TR, sin_TR, values, cache=cache))

    def _leave(self, shared: Shared) -> Tensor:
        return self.head_logits(self.through(shared), self.head_weight(self.embed.table()))

    def _is_recordable(self, recent_BT: Tensor) -> bool:
        """Return whether a tape serves: weights that change no more, one token on the CPU, no mean of all before."""
        one = recent_BT.shape == (1, 1 + BEFORE) and self.config.smear != "mean"
        return one and self.packed and recent_BT.device.type == "cpu" and mode() == "native"

    @torch.inference_mode()
    def _replayed(self, recent_BT: Tensor, cos_TR: Tensor, sin_TR: Tensor, cache: Cache) -> Tensor:
        """Return the logits of one token by the tape of the first such token."""
        if not 0 <= (token := int(recent_BT[0, -1])) < self.vocab_size:  # a tape looks at no number
            raise InputError(f"symbol {token}: expected 0 to {self.vocab_size - 1}")
        if self._step is None:
            self._step = Step(self._after, recent_BT, cos_TR, sin_TR, cache)
        return self._step(recent_BT, cos_TR, sin_TR, cache)

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
    """A pass of one token, recorded once (``ops.tape``).

    Args:
        work: ``CachedGPT._after``.
        recent_BT, cos_TR, sin_TR: its arguments for some token; later ones are copied into the same memory.
        cache: that token's cache.
    """

    def __init__(
        self, work: Callable[..., Tensor], recent_BT: Tensor, cos_TR: Tensor, sin_TR: Tensor, cache: Cache
    ) -> None:
        self._tape, self._lock, self._cache = Tape(), threading.Lock(), cache
        self._inputs = recent_BT.clone(), cos_TR.clone(), sin_TR.clone()
        recent_BT, cos_TR, sin_TR = self._inputs
        with self._tape.recording():
            self._logits_BTV = work(recent_BT, 1, cos_TR, sin_TR, self._attend)

    def _attend(self, *arguments: Any) -> Tensor:
        return self._tape.by_hand(lambda: self._cache(*arguments))

    def __call__(self, recent_BT: Tensor, cos_TR: Tensor, sin_TR: Tensor, cache: Cache) -> Tensor:
        """Return the logits [1, 1, V] of another token."""
        with self._lock:
            self._cache = cache
            for kept, given in zip(self._inputs, (recent_BT, cos_TR, sin_TR), strict=True):
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
        # Where each pass writes, and what it reads.
        parts = ((self.past, fresh), (0, self.stop))
        self._views = [
            t_JBKCH.narrow(3, *part).unbind(0) for t_JBKCH in (self.keys_JBKCH, self.values_JBKCH) for part in parts
        ]
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
        new_keys_BKTH, keys_BKSH, new_values_BKTH, values_BKSH = (views[self._pass] for views in self._views)
        self._pass = (self._pass + 1) % len(self._views[0])  # a tape's first pass is recorded, then replayed
        new_keys_BKTH.copy_(_without_gradient(k_BTKH).transpose(1, 2))
        new_values_BKTH.copy_(_without_gradient(v_BTKH).transpose(1, 2))
        if self.past == 0:
            return attend(q_BTNH, k_BTKH, v_BTKH, gate_BTN, xsa, shared)
        (b, t, n, h), k = q_BTNH.shape, k_BTKH.size(2)
        # The query heads of a key head are queries beside each other, so that no key is copied for them.
        q_BKQH, mask = q_BTNH.view(b, k, n // k, h) if t == 1 else _beside(q_BTNH, k), None
        if self.mask_BTS is not None:
            mask = self.mask_BTS.repeat(1, n // k, 1)[:, None]
        y_BKQH = F.scaled_dot_product_attention(q_BKQH, keys_BKSH, values_BKSH, attn_mask=mask)
        if t > 1:
            y_BKQH = y_BKQH.reshape(b, k, n // k, t, h).permute(0, 3, 1, 2, 4)
        return finish(y_BKQH.reshape(b, t, n, h), v_BTKH, gate_BTN, xsa)


def _without_gradient(x: Tensor) -> Tensor:
    return x.detach() if x.requires_grad else x


def _beside(q_BTNH: Tensor, kv_heads: int) -> Tensor:
    """Return [B, K, G T, H]: the queries of all heads that read one key head, head by head."""
    b, t, n, h = q_BTNH.shape
    return q_BTNH.view(b, t, kv_heads, n // kv_heads, h).permute(0, 2, 3, 1, 4).reshape(b, kv_heads, -1, h)
