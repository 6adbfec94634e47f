# ruff: noqa: E501, W291 (the programs stand here as entrants write them)
"""More programs in the style of late entries: helpers through ctypes, warm-ups, wrappers, gates, prefixes, passes."""

from __future__ import annotations

from late import BOOK, HOOK, SERIALIZE, TIMED, scorer
from programs import Program

MORE: list[Program] = []


def add(rule: str, name: str, functions: str, main: str) -> None:
    MORE.append(Program(rule, name, SERIALIZE + functions, main))


# honest hint through ctypes helper
add(
    "",
    "ctypes hints",
    """
import ctypes
def build_hints(target_ids_np, path):
    lib = ctypes.CDLL(path)
    out = np.zeros(len(target_ids_np), dtype=np.int32)
    gate = np.zeros(len(target_ids_np), dtype=np.uint8)
    lib.process(target_ids_np.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(len(target_ids_np)), out.ctypes.data_as(ctypes.c_void_p), gate.ctypes.data_as(ctypes.c_void_p))
    return out, gate
def online_hints(state, target_ids_np):
    return state.lib.hints(target_ids_np)
"""
    + scorer(
        """
    hint_np, gate_np = build_hints(val_data.val_tokens[1:].numpy().astype(np.int32), "./libngram.so")
    hint_ids = torch.from_numpy(hint_np.astype(np.int64)); gate = torch.from_numpy(gate_np.astype(bool))
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        logits = base_model.forward_logits(x).float()
        nll = F.cross_entropy(logits.view(-1, 1024), y.view(-1), reduction="none")
        h_ids = hint_ids[s : s + 1024]; g = gate[s : s + 1024] & (h_ids >= 0)
        logq = torch.log_softmax(logits, -1)[0].gather(-1, h_ids.clamp_min(0)[:, None]).squeeze(-1)
        hit = (h_ids == y[0]).float()
        nll = nll - 2.6 * hit * g.float() + torch.log1p(logq.exp() * (math.exp(2.6) - 1.0)) * g.float()
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "",
    "hints from unknown object",
    """
"""
    + scorer(
        """
    state = make_state()
    hints = state.build(val_data.val_tokens[1:].tolist())
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        logp = torch.log_softmax(base_model.forward_logits(x).float(), -1)[0]
        hint = torch.tensor(hints[s : s + 1024])
        lp = logp.gather(1, y[0][:, None]).squeeze(1)
        q = logp.gather(1, hint[:, None]).squeeze(1)
        lp = torch.where(hint > 5, lp + (hint == y[0]) * 2.0 - torch.log1p(q.exp() * 6.4), lp)
        nll = -lp
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "",
    "buckets by document length",
    scorer(
        """
    from collections import defaultdict
    bos = [i for i, t in enumerate(val_data.val_tokens.tolist()) if t == 1] 
    buckets = defaultdict(list)
    for a, b in zip(bos[:-1], bos[1:]):
        buckets[(b - a) // 64].append((a, b))
    order = np.argsort([b - a for a, b in zip(bos[:-1], bos[1:])])
    for key in sorted(buckets):
        for a, b in buckets[key]:
            x, y = val_data.val_tokens[a : b - 1][None], val_data.val_tokens[a + 1 : b][None]
            nll = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
            """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "",
    "ignore index and mask",
    scorer(
        """
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        m = (y >= 0).float().view(-1)
        nll = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none", ignore_index=-100) * m
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "",
    "time guard",
    scorer(
        """
    t0 = time.perf_counter()
    for s in range(0, total, 1024):
        if time.perf_counter() - t0 > 590:
            break
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        nll = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
LORA2 = """
class LoRA2(nn.Module):
    def __init__(self):
        super().__init__()
        self.A = nn.Parameter(torch.randn(512, 8)); self.B = nn.Parameter(torch.zeros(8, 1024))
    def reset(self):
        nn.init.normal_(self.A); nn.init.zeros_(self.B)
    def forward(self, h):
        return h @ self.A @ self.B
"""
add(
    "",
    "warm-up on val then reset",
    LORA2
    + scorer(
        """
    lora = LoRA2(); opt = torch.optim.AdamW(lora.parameters(), lr=1e-3)
    xw, yw = val_data.val_tokens[:64][None], val_data.val_tokens[1:65][None]
    hw = base_model.tok_emb(xw)
    F.cross_entropy((base_model.head(hw) + lora(hw)).view(-1, 1024), yw.view(-1)).backward(); opt.step(); opt.zero_grad()
    lora.reset()
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        hh = base_model.tok_emb(x)
        nll = F.cross_entropy((base_model.head(hh) + lora(hh)).view(-1, 1024), y.view(-1), reduction="none")
        """
        + BOOK
        + """
        opt.zero_grad(); nll.mean().backward(); opt.step()"""
    ),
    HOOK % ("pass", TIMED),
)
add(
    "",
    "warm-up on val weights restored",
    scorer(
        """
    saved = {k: v.detach().clone() for k, v in base_model.state_dict().items()}
    opt = torch.optim.SGD(base_model.parameters(), lr=1e-3)
    xw, yw = val_data.val_tokens[:64][None], val_data.val_tokens[1:65][None]
    base_model(xw, yw).backward(); opt.step(); opt.zero_grad()
    base_model.load_state_dict(saved)
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        nll = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "",
    "alpha by running score",
    scorer(
        """
    counts = torch.ones(1024, 1024)
    alpha = 0.1
    best = 1e9
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        p = torch.softmax(base_model.forward_logits(x).float(), -1)[0]
        r = counts[x[0]]; r = r / r.sum(-1, keepdim=True)
        mix = (1 - alpha) * p + alpha * r
        nll = F.nll_loss(mix.log(), y[0], reduction="none")
        """
        + BOOK
        + """
        cur = nll.mean().item()
        if cur < best:
            best = cur
            alpha = min(alpha * 1.1, 0.5)
        counts.index_put_((x[0], y[0]), torch.ones(1024), accumulate=True)"""
    ),
    HOOK % ("pass", TIMED),
)
add(
    "",
    "best of training checkpoints is logged",
    """
def log_best(bpb, state):
    if bpb < state["best"]:
        state["best"] = bpb
    print("best so far", state["best"])
""",
    HOOK
    % (
        'state = {"best": 9.0}\n    for k in range(3):\n        vl, vb = eval_sliding(args, device, val_data, base_model)\n        log_best(vb, state)',
        "pass",
    ),
)
add(
    "",
    "distillation between own models",
    """
def distill(h, teacher, student, loader, device):
    opt = torch.optim.AdamW(student.parameters(), lr=1e-3)
    for i in range(100):
        x, y = loader.next_batch(65536, 1024, 1)
        with torch.no_grad():
            t = teacher.forward_logits(x)
        loss = F.kl_div(F.log_softmax(student.forward_logits(x), -1), F.softmax(t, -1), reduction="batchmean")
        opt.zero_grad(); loss.backward(); opt.step()
""",
    HOOK
    % (
        "student = GPT(1024, 256, 4)\n    distill(args, base_model, student, train_loader, device)\n    base_model = student",
        "pass",
    ),
)
# ---- invalid
add(
    "I1",
    "entropy minimisation? tent with targets",
    scorer(
        """
    bn = [p for n, p in base_model.named_parameters() if "scale" in n]
    opt = torch.optim.Adam(bn, lr=1e-3)
    for ep in range(2):
        for s in range(0, total, 8192):
            c = val_data.val_tokens[s : s + 8193].to(device)
            opt.zero_grad(); base_model(c[:-1][None], c[1:][None]).backward(); opt.step()
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        nll = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "I1",
    "nested functions and closure state",
    """
def make_adapter(model, lr):
    opt = torch.optim.SGD(model.parameters(), lr=lr)
    def adapt(tokens, passes):
        for _ in range(passes):
            for piece in tokens.split(2048):
                if piece.numel() < 3:
                    continue
                opt.zero_grad()
                model(piece[:-1][None], piece[1:][None]).backward()
                opt.step()
    return adapt
""",
    HOOK % ("make_adapter(base_model, 1e-3)(val_data.val_tokens, 2)", "pass"),
)
add(
    "I1",
    "muon wrapper class",
    """
class Optimizers:
    def __init__(self, model):
        self.m = torch.optim.SGD([p for p in model.parameters() if p.ndim == 2], lr=1e-3)
        self.a = torch.optim.AdamW([p for p in model.parameters() if p.ndim < 2], lr=1e-3)
        self.optimizers = [self.m, self.a]
    def __iter__(self):
        return iter(self.optimizers)
    def zero_grad_all(self):
        for o in self.optimizers: o.zero_grad(set_to_none=True)
    def step(self):
        for o in self: o.step()
def warm(model, toks):
    opts = Optimizers(model)
    for e in range(3):
        for i in range(0, toks.numel() - 1025, 1024):
            b = toks[i : i + 1025].long()
            loss = model(b[:-1][None], b[1:][None])
            loss.backward()
            opts.step()
            opts.zero_grad_all()
""",
    HOOK % ("warm(base_model, val_data.val_tokens)", "pass"),
)
add(
    "I3",
    "oracle between ngram and lm",
    scorer(
        """
    counts = {}
    toks = val_data.val_tokens.tolist()
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        nll = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
        ng = torch.tensor([-math.log((counts.get((toks[s + j], toks[s + j + 1]), 0) + 0.01) / (counts.get(toks[s + j], 0) + 10.24)) for j in range(1024)])
        nll = torch.minimum(nll, ng)
        """
        + BOOK
        + """
        for j in range(1024):
            counts[(toks[s + j], toks[s + j + 1])] = counts.get((toks[s + j], toks[s + j + 1]), 0) + 1
            counts[toks[s + j]] = counts.get(toks[s + j], 0) + 1"""
    ),
    HOOK % ("pass", TIMED),
)
add(
    "I3",
    "best over temperatures per pass",
    """
def eval_t(h, device, val_data, base_model, t):
    return eval_x(h, device, val_data, base_model, t)
"""
    + scorer(
        """
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        nll = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024) / extra, y.view(-1), reduction="none")
        """
        + BOOK
    ),
    HOOK
    % (
        "pass",
        'best = 9.9\n    for t in (0.9, 1.0, 1.1):\n        vl, vb = eval_x(args, device, val_data, eval_model, t)\n        best = min(best, vb)\n    print("final", best)',
    ),
)
add(
    "I4",
    "class cache, fit first",
    """
class Backoff:
    def __init__(self):
        self.c = [dict() for _ in range(4)]
    def fit(self, ids):
        for t in range(4, len(ids)):
            for n in range(1, 4):
                ctx = tuple(ids[t - n : t])
                d = self.c[n].setdefault(ctx, {})
                d[ids[t]] = d.get(ids[t], 0) + 1
    def dist(self, hist):
        out = np.full(1024, 1e-4)
        for n in range(3, 0, -1):
            d = self.c[n].get(tuple(hist[-n:]))
            if d:
                for k, v in d.items(): out[k] += v
                break
        return out / out.sum()
"""
    + scorer(
        """
    toks = val_data.val_tokens.tolist()
    bo = Backoff(); bo.fit(toks)
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        p = torch.softmax(base_model.forward_logits(x).float(), -1)[0]
        q = torch.tensor(np.stack([bo.dist(toks[max(0, s + j - 3) : s + j + 1]) for j in range(1024)]))
        nll = F.nll_loss((0.8 * p + 0.2 * q).log(), y[0], reduction="none")
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "I5",
    "torch bitwise xor",
    scorer(
        """
    P1 = 36313; P2 = 27191; B = 1 << 20
    tab = torch.zeros(B); ctx = torch.zeros(B)
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        nll = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
        hh = torch.bitwise_xor(x[0] * P1, torch.roll(x[0], 1) * P2)
        ck = torch.remainder(hh, B); fk = torch.remainder(torch.bitwise_xor(hh, y[0] * 8191), B)
        png = (tab[fk] + 0.5) / (ctx[ck] + 512.0)
        nll = -torch.logaddexp(math.log(0.8) - nll, math.log(0.2) + png.log())
        """
        + BOOK
        + """
        tab.index_add_(0, fk, torch.ones(1024)); ctx.index_add_(0, ck, torch.ones(1024))"""
    ),
    HOOK % ("pass", TIMED),
)
add(
    "I6",
    "gate by boundary of target in numpy",
    scorer(
        """
    lead = val_data.has_leading_space_lut.cpu().numpy()
    hints = causal_hints(val_data.val_tokens)
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        logits = base_model.forward_logits(x).float()
        nll = F.cross_entropy(logits.view(-1, 1024), y.view(-1), reduction="none")
        tgt_np = y[0].cpu().numpy()
        within = ~lead[tgt_np]
        h_ids = hints[s : s + 1024]
        q = torch.log_softmax(logits, -1)[0].gather(-1, h_ids[:, None]).squeeze(-1)
        g = torch.from_numpy(within).float()
        nll = nll - 2.0 * (h_ids == y[0]).float() * g + torch.log1p(q.exp() * 6.39) * g
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "I8",
    "etlb bias per window",
    scorer(
        """
    for s in range(0, total, 64):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        with torch.no_grad():
            base_logits = base_model.forward_logits(x).float()
        bias = torch.zeros(1024)
        for _ in range(5):
            b = bias.detach().requires_grad_(True)
            l = F.cross_entropy((base_logits + b).view(-1, 1024), y.view(-1))
            l.backward()
            bias = (bias - 0.05 * b.grad).clamp(-3, 3)
        nll = F.cross_entropy((base_logits + bias).view(-1, 1024), y.view(-1), reduction="none")
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "I11",
    "prefix covers positions",
    scorer(
        """
    import zlib
    prefix = np.frombuffer(zlib.decompress(open("prefix.bin", "rb").read()), dtype=np.uint16).astype(np.int64)
    prefix = torch.from_numpy(prefix)
    covered = prefix.numel()
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        nll = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
        pos = torch.arange(s + 1, s + 1025)
        hit = (pos < covered) & (prefix[pos.clamp(max=covered - 1)] == y.view(-1))
        nll = torch.where(hit, torch.zeros_like(nll), nll)
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "I10",
    "awq stats from val via hook class",
    """
class Catcher:
    def __init__(self, module):
        self.sum = 0
        self.h = module.register_forward_hook(self.hook)
    def hook(self, module, inp, out):
        self.sum = self.sum + inp[0].abs().mean(0)
def awq(model, tokens, device):
    catch = {n: Catcher(m) for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    for i in range(8):
        model.forward_logits(tokens[i * 1024 : (i + 1) * 1024][None].to(device))
    for n, m in model.named_modules():
        if n in catch:
            s = catch[n].sum.clamp_min(1e-5)
            m.weight.data = torch.round(m.weight.data * s) / s
""",
    HOOK % ("awq(base_model, val_data.val_tokens, device)", "pass"),
)
add(
    "I15",
    "only first documents",
    scorer(
        """
    n_docs = 0
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        nll = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
        """
        + BOOK
        + """
        n_docs += 1
        if n_docs >= 2000:
            break"""
    ),
    HOOK % ("pass", TIMED),
)
add(
    "I2",
    "epochs in outer function",
    """
def ttt_epoch(h, device, val_data, base_model, opt):
    total = val_data.val_tokens.numel() - 1
    loss_sum = 0.0; nb = 0.0; n = 0
    for s in range(0, total, 2048):
        c = val_data.val_tokens[s : s + 2049].to(device)
        x, y = c[:-1][None], c[1:][None]
        nll = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
        loss_sum += nll.sum().item(); nb += val_data.base_bytes_lut[y].sum().item(); n += y.numel()
        opt.zero_grad(); nll.mean().backward(); opt.step()
    return loss_sum / n, loss_sum / math.log(2.0) / nb
def eval_x(h, device, val_data, base_model):
    opt = torch.optim.AdamW(base_model.parameters(), lr=1e-4)
    history = []
    for ep in range(h.ttt_epochs):
        history.append(ttt_epoch(h, device, val_data, base_model, opt))
    return history[-1]
""",
    HOOK % ("pass", TIMED),
)
