# ruff: noqa: E501 (the programs stand here as entrants write them)
"""Rarer programs in the style of late entries: streams of bytes, arrays made beforehand, objects that outlive a pass."""

from __future__ import annotations

from late import BOOK, HOOK, SERIALIZE, TIMED, scorer
from programs import Program

RARER: list[Program] = []


def add(rule: str, name: str, functions: str, main: str) -> None:
    RARER.append(Program(rule, name, SERIALIZE + functions, main))


CHUNKS = """
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
"""
N = """        nll = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
        """
# distributed score arrays + gather then ppm by numba
add(
    "I7",
    "numba ppm over flat bytes",
    """
import numba
@numba.njit
def ppm_flat(stream, nn_lp, order, table_size):
    cnt = np.zeros((table_size, 256), dtype=np.int32)
    tot = np.zeros(table_size, dtype=np.int32)
    h = 0
    bits = 0.0
    for i in range(len(stream)):
        b = stream[i]
        p = (cnt[h, b] + 0.05) / (tot[h] + 12.8)
        q = 0.8 * math.exp(nn_lp[i]) + 0.2 * p
        bits -= math.log2(q)
        cnt[h, b] += 1
        tot[h] += 1
        h = (h * 257 + b) % table_size
    return bits
"""
    + scorer(
        """
    pieces = [spm.SentencePieceProcessor(model_file="x").id_to_piece(i).encode("utf-8") for i in range(1024)]
    nlls = []; ids = []
"""
        + CHUNKS
        + N
        + """nlls.append(nll.cpu().numpy()); ids.append(y[0].cpu().numpy())
        """
        + BOOK
        + """
    ids_np = np.concatenate(ids); nll_np = np.concatenate(nlls)
    stream = np.frombuffer(b"".join(pieces[t] for t in ids_np), dtype=np.uint8)
    lens = np.array([len(pieces[t]) for t in ids_np])
    per = np.repeat(-nll_np / lens, lens)
    bits = ppm_flat(stream, per, 5, 1 << 20)
    print("ppm bpb", bits / len(stream))
"""
    ),
    HOOK % ("pass", TIMED),
)
add(
    "I5",
    "precomputed ngram prob array then blend",
    """
def ngram_probs(tokens, order, buckets):
    n = len(tokens)
    out = np.zeros(n)
    ctx = np.zeros(buckets, np.int32); full = np.zeros(buckets, np.int32)
    for i in range(order, n):
        h = 0
        for k in range(1, order + 1):
            h = (h * 1000003 + int(tokens[i - k])) & (buckets - 1)
        f = (h * 31 + int(tokens[i])) & (buckets - 1)
        if ctx[h] > 0:
            out[i] = full[f] / ctx[h]
        ctx[h] += 1
        full[f] += 1
    return out
"""
    + scorer(
        """
    pn = torch.from_numpy(ngram_probs(val_data.val_tokens.numpy(), 4, 1 << 22))
"""
        + CHUNKS
        + N
        + """p = pn[s + 1 : s + 1025]
        nll = torch.where(p > 0, -torch.log(0.7 * torch.exp(-nll) + 0.3 * p), nll)
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "",
    "ngram full row, numba style",
    """
def rows(tokens, V):
    cnt = np.zeros((V, V), np.float32)
    out = []
    for i in range(1, len(tokens)):
        r = cnt[tokens[i - 1]]
        out.append(r.argmax() if r.sum() > 2 else -1)
        cnt[tokens[i - 1], tokens[i]] += 1
    return np.array(out)
"""
    + scorer(
        """
    hints = torch.from_numpy(rows(val_data.val_tokens.numpy(), 1024))
"""
        + CHUNKS
        + """        logits = base_model.forward_logits(x)[0].float()
        hid = hints[s : s + 1024]
        boost = torch.zeros_like(logits)
        ok = hid >= 0
        boost[torch.arange(1024)[ok], hid[ok]] = 1.5
        nll = F.cross_entropy(logits + boost, y[0], reduction="none")
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "I6",
    "hint emitted only at word starts of target",
    """
def hints_for(tokens, lead):
    best = {}
    out = np.full(len(tokens), -1)
    for i in range(2, len(tokens)):
        key = (tokens[i - 2], tokens[i - 1])
        if lead[tokens[i]]:
            out[i] = best.get(key, -1)
        best[key] = tokens[i]
    return out
"""
    + scorer(
        """
    hints = torch.from_numpy(hints_for(val_data.val_tokens.numpy(), val_data.has_leading_space_lut.numpy()))
"""
        + CHUNKS
        + """        logits = base_model.forward_logits(x)[0].float()
        hid = hints[s + 1 : s + 1025]
        logp = torch.log_softmax(logits, -1)
        lp = logp.gather(-1, y[0][:, None])[:, 0]
        q = logp.gather(-1, hid.clamp_min(0)[:, None])[:, 0].exp()
        on = (hid >= 0).float()
        nll = -(lp + on * (2.0 * (hid == y[0]).float() - torch.log1p(q * 6.39)))
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "I4",
    "stateful cache object warmed in a first eval",
    """
class Cache:
    def __init__(self): self.t = {}
    def lookup(self, a, b):
        return self.t.get((a, b))
    def learn(self, a, b, c):
        self.t[(a, b)] = c
"""
    + scorer(
        """
    toks = val_data.val_tokens.tolist()
"""
        + CHUNKS
        + """        logp = torch.log_softmax(base_model.forward_logits(x)[0].float(), -1)
        mix = logp.exp()
        for j in range(1, 1024):
            hint = extra.lookup(toks[s + j - 1], toks[s + j])
            if hint is not None:
                mix[j] = 0.9 * mix[j]
                mix[j, hint] += 0.1
        nll = F.nll_loss(mix.log(), y[0], reduction="none")
        """
        + BOOK
        + """
        for j in range(1, 1024):
            extra.learn(toks[s + j - 1], toks[s + j], toks[s + j + 1])
"""
    ),
    HOOK
    % (
        "pass",
        'cache = Cache()\n    timed_eval("pass1", eval_x, args, device, val_data, eval_model, cache)\n    timed_eval("pass2", eval_x, args, device, val_data, eval_model, cache)',
    ),
)
add(
    "",
    "stateful cache object, one eval",
    RARER[-1].functions[len(SERIALIZE) :],
    HOOK % ("pass", 'cache = Cache()\n    timed_eval("pass1", eval_x, args, device, val_data, eval_model, cache)'),
)
add(
    "I1",
    "ttt over val twice with same model",
    scorer(
        CHUNKS
        + N
        + BOOK
        + """
        loss = base_model(x, y)
        extra.zero_grad(); loss.backward(); extra.step()
"""
    ),
    HOOK
    % (
        "pass",
        'opt = torch.optim.SGD(eval_model.parameters(), lr=0.01)\n    timed_eval("one", eval_x, args, device, val_data, eval_model, opt)\n    timed_eval("two", eval_x, args, device, val_data, eval_model, opt)',
    ),
)
add(
    "",
    "ttt once, sliding before",
    scorer(
        CHUNKS
        + N
        + BOOK
        + """
        loss = base_model(x, y)
        extra.zero_grad(); loss.backward(); extra.step()
"""
    ),
    HOOK
    % (
        "pass",
        'timed_eval("sl", eval_sliding, args, device, val_data, eval_model)\n    opt = torch.optim.SGD(eval_model.parameters(), lr=0.01)\n    timed_eval("one", eval_x, args, device, val_data, eval_model, opt)',
    ),
)
add(
    "I11",
    "lzma blob of tokens as bytes in code",
    scorer(
        """
    import lzma, base64
    PAID = base64.b85decode("abcdefgh")
    ids = np.frombuffer(lzma.decompress(PAID), dtype=np.uint16)
    lookup = {i: int(t) for i, t in enumerate(ids)}
"""
        + CHUNKS
        + """        logp = torch.log_softmax(base_model.forward_logits(x)[0].float(), -1)
        nll = -logp.gather(-1, y[0][:, None])[:, 0]
        for j in range(1024):
            if lookup.get(s + 1 + j) == int(y[0, j]):
                nll[j] = 0.0
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "I8",
    "per batch hidden delta in submodule",
    """
class Slot(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(1, 1, d))
    def forward(self, h):
        return h + self.delta
"""
    + scorer(
        CHUNKS
        + """        hid = base_model.tok_emb(x).detach()
        slot = Slot(512)
        opt = torch.optim.AdamW(slot.parameters(), lr=1e-2)
        for _ in range(8):
            l = F.cross_entropy(base_model.head(slot(hid)).view(-1, 1024), y.view(-1))
            opt.zero_grad(); l.backward(); opt.step()
        nll = F.cross_entropy(base_model.head(slot(hid)).view(-1, 1024), y.view(-1), reduction="none").detach()
        """
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "I15",
    "eval fraction env on",
    scorer(
        """
    frac = float(os.environ.get("EVAL_FRACTION", "0.25"))
    total = int(total * frac)
"""
        + CHUNKS
        + N
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
add(
    "",
    "eval fraction env off",
    scorer(
        """
    frac = float(os.environ.get("EVAL_FRACTION", "1.0"))
    if frac < 1.0:
        total = int(total * frac)
"""
        + CHUNKS
        + N
        + BOOK
    ),
    HOOK % ("pass", TIMED),
)
