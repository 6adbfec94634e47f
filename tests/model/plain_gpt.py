"""The GPT a second time, from the contest's descriptions: plain torch, head by head, nothing taken from the package.

Every part is written as its formula reads; ``p`` are the parameters by name, ``c`` the config's fields.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Parameters = dict[str, Tensor]


def norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()


def layers_of(text: str, n: int) -> set[int]:
    if text in ("", "all"):
        return set(range(n)) if text else set()
    spans = [part.split("-") for part in text.split(",")]
    return {i for span in spans for i in range(int(span[0]), int(span[-1]) + 1)}


def documents(ids: Tensor, c: Any) -> Tensor:
    """The number of each token's document, counted along its row."""
    mark = ids == c.bos
    mark[:, 0] = True
    return mark.long().cumsum(1)


def table(p: Parameters, c: Any) -> Tensor:
    return p["embed.weight"] @ p["embed.proj.weight"].T if c.embed_dim else p["embed.weight"]


def embedding(p: Parameters, c: Any, ids: Tensor) -> Tensor:
    document = documents(ids, c)
    rows = []
    for b in range(ids.size(0)):
        e: list[Tensor] = []
        x: list[Tensor] = []
        for t in range(ids.size(1)):
            fresh = t == 0 or bool(document[b, t] != document[b, t - 1])
            now = table(p, c)[ids[b, t]]
            if c.bigram_slots:
                slot = c.bigram_slots - 1
                if not fresh:
                    cur, prev = int(ids[b, t]), int(ids[b, t - 1])
                    slot = ((36313 * cur) ^ (27191 * prev)) % (c.bigram_slots - 1)
                hashed = p["embed.bigram_GE"][slot]
                if c.bigram_dim:
                    hashed = p["embed.bigram_proj.weight"] @ hashed
                now = now + p["embed.bigram_scale"] * hashed
            e.append(now)
            if c.smear == "token" and not fresh:
                gate = torch.sigmoid(p["embed.smear_w"] @ now[:12])
                now = now + p["embed.smear_lambda"] * gate * e[t - 1]
            elif c.smear == "channel" and not fresh:
                g = torch.sigmoid(p["embed.smear_D"])
                now = (1 - g) * now + g * e[t - 1]
            elif c.smear == "mean":
                g = torch.sigmoid(p["embed.smear_D"])
                own = [e[s] for s in range(t + 1) if document[b, s] == document[b, t]]
                now = (1 - g) * now + g * torch.stack(own).mean(0)
            x.append(now)
        rows.append(torch.stack(x))
    return torch.stack(rows)


def angles(c: Any, length: int) -> tuple[Tensor, float]:
    d = c.rope_dims or c.model_dim // c.num_heads
    base, s, stretch = c.rope_base, max(1.0, length / c.rope_train_len), 1.0
    if c.rope_scaling == "ntk":
        base = base * s ** (d / (d - 2))
    frequency = torch.tensor([base ** (-2 * i / d) for i in range(d // 2)])
    if c.rope_scaling == "yarn" and s > 1:
        for i in range(d // 2):
            turns = float(frequency[i]) * c.rope_train_len / (2 * math.pi)
            share = min(1.0, max(0.0, (turns - 1) / 31))
            frequency[i] = share * frequency[i] + (1 - share) * frequency[i] / s
        stretch = 0.1 * math.log(s) + 1
    return torch.arange(length)[:, None] * frequency, stretch


def rotate(x: Tensor, c: Any) -> Tensor:
    angle, stretch = angles(c, x.size(-2))
    r = angle.size(1)
    a, b, rest = x[..., :r], x[..., r : 2 * r], x[..., 2 * r :]
    cos, sin = angle.cos() * stretch, angle.sin() * stretch
    return torch.cat((a * cos + b * sin, b * cos - a * sin, rest), -1)


def seen(ids: Tensor, c: Any) -> Tensor:
    """[B, T, T]: whether query t sees key s."""
    t_max = ids.size(1)
    mask = torch.ones(t_max, t_max).tril().bool().expand(ids.size(0), -1, -1)
    if not c.packed_documents:
        return mask
    document = documents(ids, c)
    segment = document.clone()
    if c.max_segment:
        for b in range(ids.size(0)):
            for t in range(t_max):
                first = int((document[b] == document[b, t]).nonzero()[0])
                segment[b, t] = document[b, t] * 1000 + (t - first) // c.max_segment
    return mask & (segment[:, :, None] == segment[:, None, :])


def attention(p: Parameters, c: Any, i: int, h: Tensor, ids: Tensor) -> Tensor:
    name, hd = f"blocks.{i}.attn.", c.model_dim // c.num_heads
    value_layers = sorted(layers_of(c.value_embed_layers, c.num_layers))
    heads = []
    for n in range(c.num_heads):
        kv = n * c.num_kv_heads // c.num_heads
        rows = slice(kv * hd, (kv + 1) * hd)
        q = rotate(norm(h @ p[name + "q.weight"][n * hd : (n + 1) * hd].T), c) * p[name + "q_gain_N"][n]
        k = rotate(norm(h @ p[name + "k.weight"][rows].T), c)
        v = h @ p[name + "v.weight"][rows].T
        if i in value_layers:
            scale = p["value_embed.scale_L"][value_layers.index(i)]
            v = v + scale * (p["value_embed.weight"][ids] @ p["value_embed.proj.weight"][rows].T)
        scores = (q @ k.mT / hd**0.5).masked_fill(~seen(ids, c), float("-inf"))
        y = scores.softmax(-1) @ v
        if i in layers_of(c.xsa_layers, c.num_layers):
            u = v / v.norm(dim=-1, keepdim=True)
            y = y - (y * u).sum(-1, keepdim=True) * u
        if c.attn_gate == "head":
            y = y * 2 * torch.sigmoid(h[..., :12] @ p[name + "gate_NI"][n])[..., None]
        elif c.attn_gate == "sparse":
            y = y * torch.sigmoid(c.attn_gate_scale * h[..., :12] @ p[name + "gate_NI"][n])[..., None]
        elif c.attn_gate == "dense":
            y = y * torch.sigmoid(h @ p[name + "gate_NI"][n])[..., None]
        heads.append(y)
    return torch.cat(heads, -1) @ p[name + "o.weight"].T


def mlp(p: Parameters, c: Any, i: int, h: Tensor) -> Tensor:
    u = h @ p[f"blocks.{i}.mlp.up.weight"].T
    if c.activation == "swiglu":
        a, b = u[..., : u.size(-1) // 2], u[..., u.size(-1) // 2 :]
        hidden = a * torch.sigmoid(a) * b
    else:
        hidden = torch.where(u > 0, u, (0.5 if c.activation == "leaky2" else 0.0) * u) ** 2
    return hidden @ p[f"blocks.{i}.mlp.down.weight"].T


def order_of(c: Any, passes: int) -> list[int]:
    order = list(range(c.num_layers))
    span = sorted(layers_of(c.loop_layers, c.num_layers))
    return order[: span[0]] + span * (1 + passes) + order[span[-1] + 1 :] if span else order


def logits(p: Parameters, c: Any, ids: Tensor, passes: int | None = None) -> Tensor:
    """fp32 logits [B, T, V]; ``passes``: further passes of the loop, default all."""
    order = order_of(c, len(c.loop_starts) if passes is None else passes)
    half = len(order) // 2
    x = x0 = norm(embedding(p, c, ids))
    other: Tensor | None = None  # the MLP's lane
    skips: list[Tensor] = []
    for step, i in enumerate(order):
        block = f"blocks.{i}."
        scale = 1 / math.sqrt(i + 1) if c.layer_scale else 1.0
        if step >= half and c.lanes_from and i >= c.lanes_from and other is None:
            other = x
        if step >= half and skips:
            skip = p["skip_weight_SD"][step - half] * skips.pop()
            if c.skips == "gated":
                g = torch.sigmoid(p["skip_gate_SD"][step - half])
                x = (1 - g) * skip + g * x
            else:
                x = x + skip
        xin = x
        if c.resid_mix != "none":
            xin = p[block + "resid_mix_2D"][0] * x + p[block + "resid_mix_2D"][1] * x0
        a = p[block + "attn_scale_D"] * attention(p, c, i, scale * norm(xin), ids)
        if other is None:
            x = xin + a
            x = x + p[block + "mlp_scale_D"] * mlp(p, c, i, scale * norm(x))
        else:
            m = p[block + "mlp_scale_D"] * mlp(p, c, i, scale * norm(other))
            keep, post = p["lane_keep_L2"][i], p["lane_post_L22"][i]
            x, other = (
                keep[0] * x + post[0, 0] * a + post[1, 0] * m,
                keep[1] * other + post[0, 1] * a + post[1, 1] * m,
            )
        if step < half and c.skips != "none":
            skips.append(x)
    if other is not None:
        x = (x + other) / 2
    z = norm(x) @ (table(p, c) if c.tie_embeddings else p["head.weight"]).T / c.logit_softcap
    if c.softcap == "tanh":
        return c.logit_softcap * torch.tanh(z)
    z = z.clamp(-2, 2)
    return c.logit_softcap * (z - z**3 / 3 + 2 * z**5 / 15).clamp(-1, 1)


def loss(p: Parameters, c: Any, ids: Tensor, targets: Tensor, passes: int | None = None) -> Tensor:
    z = logits(p, c, ids, passes).flatten(0, 1)
    ce = F.nll_loss(z.log_softmax(-1), targets.flatten())
    return ce + c.z_loss * z.logsumexp(-1).square().mean() if c.z_loss else ce
