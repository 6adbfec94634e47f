"""Use golfcore's operations in a network that knows nothing of golfcore.

    python examples/ops_in_your_network.py

A plain torch transformer is trained for ten steps. Then the same network, from the same weights and on the same tokens,
is trained with our norm, attention, head with cross-entropy, and Muon in the places of torch's.
"""

import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golfcore import ops

LAYERS, DIM, HEADS, VOCAB, ROWS, TOKENS, STEPS = 2, 128, 2, 512, 8, 128, 10


class Network(nn.Module):
    """A pre-norm transformer; ``ours`` swaps the operations, never the weights."""

    def __init__(self, ours: bool) -> None:
        super().__init__()
        self.ours = ours
        self.embedding = nn.Embedding(VOCAB, DIM)
        self.qkv = nn.ModuleList(nn.Linear(DIM, 3 * DIM, bias=False) for _ in range(LAYERS))
        self.out = nn.ModuleList(nn.Linear(DIM, DIM, bias=False) for _ in range(LAYERS))
        self.up = nn.ModuleList(nn.Linear(DIM, 4 * DIM, bias=False) for _ in range(LAYERS))
        self.down = nn.ModuleList(nn.Linear(4 * DIM, DIM, bias=False) for _ in range(LAYERS))
        self.head = nn.Linear(DIM, VOCAB, bias=False)

    def norm(self, x_BTD: Tensor) -> Tensor:
        return ops.rms_norm(x_BTD) if self.ours else F.rms_norm(x_BTD, (DIM,))

    def attention(self, qkv_BTC: Tensor) -> Tensor:
        q_BTNH, k_BTNH, v_BTNH = qkv_BTC.unflatten(-1, (3, HEADS, DIM // HEADS)).unbind(2)
        if self.ours:
            return ops.attention(q_BTNH, k_BTNH, v_BTNH).flatten(2)
        heads = (x.transpose(1, 2) for x in (q_BTNH, k_BTNH, v_BTNH))
        return F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)

    def loss(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(inputs_BT)
        for qkv, out, up, down in zip(self.qkv, self.out, self.up, self.down, strict=True):
            x_BTD = x_BTD + out(self.attention(qkv(self.norm(x_BTD))))
            x_BTD = x_BTD + down(F.relu(up(self.norm(x_BTD))).square())
        x_BTD = self.norm(x_BTD)
        if self.ours:
            return ops.linear_cross_entropy(x_BTD, self.head.weight, targets_BT)
        return F.cross_entropy(self.head(x_BTD).flatten(0, 1), targets_BT.flatten())


def train(network: Network, tokens_SBT: Tensor) -> list[float]:
    matrices = [p for name, p in network.named_parameters() if p.ndim == 2 and not name.startswith(("emb", "head"))]
    tables = [network.embedding.weight, network.head.weight]
    adam = torch.optim.AdamW(tables, lr=0.01, weight_decay=0.0)
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for p in matrices:
        by_shape.setdefault(p.shape, []).append(p)
    momenta = {shape: [torch.zeros_like(p) for p in bank] for shape, bank in by_shape.items()}
    muon = None if network.ours else torch.optim.Muon(matrices, lr=0.01, momentum=0.9, weight_decay=0.0)
    losses = []
    for tokens_BT in tokens_SBT:
        loss = network.loss(tokens_BT[:, :-1], tokens_BT[:, 1:])
        loss.backward()
        adam.step()
        if muon is not None:
            muon.step()
        for shape, bank in by_shape.items() if network.ours else ():
            ops.muon_(bank, [p.grad for p in bank], momenta[shape], lr=0.01, momentum=0.9, coefficients=ops.QUINTIC)
        network.zero_grad()
        losses.append(loss.item())
    return losses


torch.manual_seed(0)
# Each token follows from the one before, so there is something to learn.
first_SBT = torch.randint(VOCAB, (STEPS, ROWS, 1))
tokens_SBT = (first_SBT + 7 * torch.arange(TOKENS + 1)) % VOCAB
plain, ours = Network(ours=False), Network(ours=True)
ours.load_state_dict(plain.state_dict())
for name, network in (("torch", plain), ("golfcore", ours)):
    started = time.perf_counter()
    losses = train(network, tokens_SBT)
    seconds = time.perf_counter() - started
    print(f"{name:<9} loss {losses[0]:.3f} -> {losses[-1]:.3f} in {STEPS} steps, {seconds:.2f} s")
