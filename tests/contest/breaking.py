# ruff: noqa: E501 (the programs and logs of entries stand here as entrants write them)
"""Programs that break a rule by what they do with data: several for each rule that data flow decides."""

from __future__ import annotations

from programs import BOOK, BOOK_ONE, CHUNK, NLL, PROBS, SCORE, Program, evaluation

ADAPT = """
def adapt(args, model, val_tokens, device):
    opt = torch.optim.SGD(model.parameters(), lr=args.ttt_lr, momentum=0.9)
    for ep in range(args.ttt_epochs):
        for s in range(0, val_tokens.numel() - 1, 32768):
            local = val_tokens[s : s + 32769].to(device)
            x, y = local[:-1], local[1:]
            opt.zero_grad(set_to_none=True)
            with torch.autocast(device_type="cuda", dtype=torch.bfloat16):
                loss = model(x[None], y[None])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
"""
MANUAL = """
class Adapter:
    def __init__(self, model, lr):
        self.model = model
        self.lr = lr

    def fit(self, tokens):
        for s in range(0, tokens.numel() - 1, 2048):
            x = tokens[s : s + 2048]
            y = tokens[s + 1 : s + 2049]
            loss = self.model(x[None], y[None])
            loss.backward()
            with torch.no_grad():
                for p in self.model.parameters():
                    p.data -= self.lr * p.grad
                    p.grad = None
"""
LORA = """
class LoRA(nn.Module):
    def __init__(self, dim, vocab, rank):
        super().__init__()
        self.A = nn.Parameter(torch.zeros(dim, rank))
        self.B = nn.Parameter(torch.zeros(rank, vocab))

    def forward(self, h):
        return h @ self.A @ self.B
"""
STEP = """            opt.zero_grad()
            loss = model(x, y)
            loss.backward()
            opt.step()
"""
I1 = [
    Program("I1", "adapted before the final score", ADAPT, "    adapt(args, base_model, val_tokens, device)\n" + SCORE),
    Program("I1", "own updates in a class", MANUAL, "    Adapter(base_model, 1e-3).fit(val_tokens)\n" + SCORE),
    evaluation("I1", "each chunk trained on, then scored", "    opt = torch.optim.SGD(model.parameters(), lr=0.01)\n" + CHUNK
               + "        for _ in range(3):\n" + STEP + NLL + BOOK),
    Program(
        "I1", "before quantization, through a file", ADAPT,
        "    adapt(args, base_model, val_tokens, device)\n"
        '    torch.save({k: v.half() for k, v in base_model.state_dict().items()}, "q.pt")\n'
        "    eval_model = GPT(1024, 512, 9).to(device)\n"
        '    eval_model.load_state_dict(torch.load("q.pt"))\n' + SCORE.replace("base_model", "eval_model"),
    ),
    evaluation(
        "I1", "an adapter per chunk, trained before", CHUNK + """        h = model.tok_emb(x)
        lora = LoRA(512, 1024, 8)
        opt = torch.optim.AdamW(lora.parameters(), lr=1e-3)
        for _ in range(4):
            opt.zero_grad()
            loss = F.cross_entropy((model.head(h) + lora(h)).view(-1, 1024), y.view(-1))
            loss.backward()
            opt.step()
        nll = F.cross_entropy((model.head(h) + lora(h)).view(-1, 1024), y.view(-1), reduction="none")
""" + BOOK, before=LORA,
    ),
]  # fmt: skip
I2 = [
    evaluation(
        "I2",
        "sums reset in each epoch",
        """    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(args.ttt_epochs):
        loss_sum = 0.0
        byte_sum = 0.0
        n = 0
        for ci in range(0, total, 1024):
            local = val_tokens[ci : ci + 1025].to(device)
            x, y = local[:-1][None], local[1:][None]
            loss = model(x, y)
            loss_sum += loss.item() * y.numel()
            byte_sum += base_bytes_lut[y].sum().item()
            n += y.numel()
            opt.zero_grad()
            loss.backward()
            opt.step()
""",
    ),
    Program(
        "I2",
        "a pass as a function, the last one kept",
        """
def one_pass(model, opt, val_tokens, device, base_bytes_lut):
    loss_sum = torch.zeros((), dtype=torch.float64)
    byte_sum = torch.zeros((), dtype=torch.float64)
    for s in range(0, val_tokens.numel() - 1, 4096):
        chunk = val_tokens[s : s + 4097].to(device)
        x, y = chunk[:-1].unsqueeze(0), chunk[1:].unsqueeze(0)
        loss = model(x, y)
        loss_sum += loss.detach() * y.numel()
        byte_sum += base_bytes_lut[y].sum()
        loss.backward()
        opt.step()
        opt.zero_grad()
    return loss_sum.item() / math.log(2.0) / byte_sum.item()
""",
        """    opt = torch.optim.AdamW(base_model.parameters(), lr=1e-4)
    for epoch in range(5):
        bpb = one_pass(base_model, opt, val_tokens, device, base_bytes_lut)
        print("epoch", epoch, bpb)
    print("final val_bpb", bpb)
""",
    ),
    evaluation(
        "I2",
        "a table of losses overwritten",
        """    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    table = torch.zeros(total)
    for epoch in range(3):
        for ci in range(0, total, 1024):
            local = val_tokens[ci : ci + 1025].to(device)
            x, y = local[:-1][None], local[1:][None]
            nll = F.cross_entropy(model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
            table[ci : ci + 1024] = nll.detach()
            opt.zero_grad()
            nll.mean().backward()
            opt.step()
    loss_sum = table.sum().item()
    byte_sum = base_bytes_lut[val_tokens[1:]].sum().item()
    n = total
""",
    ),
    evaluation(
        "I2",
        "adapters of documents, epochs outside",
        """    lora = LoRA(512, 1024, 8)
    opt = torch.optim.AdamW(lora.parameters(), lr=1e-3)
    documents = (val_tokens == 1).nonzero()[:, 0].tolist()
    for epoch in range(4):
        losses = []
        sizes = []
        for start, end in zip(documents[:-1], documents[1:]):
            x, y = val_tokens[start : end - 1][None], val_tokens[start + 1 : end][None]
            h = model.tok_emb(x)
            nll = F.cross_entropy((model.head(h) + lora(h)).view(-1, 1024), y.view(-1), reduction="none")
            losses.append(nll.detach().sum())
            sizes.append(base_bytes_lut[y].sum())
            opt.zero_grad()
            nll.mean().backward()
            opt.step()
    loss_sum = torch.stack(losses).sum().item()
    byte_sum = torch.stack(sizes).sum().item()
    n = total
""",
        before=LORA,
    ),
]
TWO = """        a = F.cross_entropy(model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
        b = F.cross_entropy(extra.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
"""
SECOND = "    second = GPT(1024, 256, 4).to(device)\n"
I3 = [
    evaluation(
        "I3",
        "torch.minimum of two models",
        CHUNK + TWO + "        nll = torch.minimum(a, b)\n" + BOOK,
        "second",
        main=SECOND,
    ),
    evaluation(
        "I3",
        "where of a comparison",
        CHUNK + TWO + "        nll = torch.where(a < b, a, b)\n" + BOOK,
        "second",
        main=SECOND,
    ),
    evaluation(
        "I3",
        "the best of stacked passes",
        CHUNK + TWO + "        nll = torch.stack([a, b]).min(dim=0).values\n" + BOOK,
        "second",
        main=SECOND,
    ),
    evaluation(
        "I3",
        "the best so far, token by token",
        """    best = torch.full((total,), 1e9)
    for p in range(3):
        for ci in range(0, total, 1024):
            local = val_tokens[ci : ci + 1025].to(device)
            x, y = local[:-1][None], local[1:][None]
            a = F.cross_entropy(model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
            best[ci : ci + 1024] = torch.minimum(best[ci : ci + 1024], a)
    loss_sum = best.sum().item()
    byte_sum = base_bytes_lut[val_tokens[1:]].sum().item()
    n = total
""",
    ),
    evaluation(
        "I3",
        "python's min in a loop",
        CHUNK
        + TWO
        + """        for j in range(y.numel()):
            loss_sum += min(a[j].item(), b[j].item())
        byte_sum += base_bytes_lut[y].sum().item()
        n += y.numel()
""",
        "second",
        main=SECOND,
    ),
]
ROW = """            row = torch.zeros(1024)
            for k, v in counts.get(ctx, {}).items():
                row[k] = v
            mix = 0.7 * probs[j] + 0.3 * row / row.sum().clamp_min(1)
            p = float(mix[int(y[0, j])])
"""
I4 = [
    evaluation(
        "I4",
        "counts of pairs from a first pass",
        """    toks = val_tokens.tolist()
    counts = {}
    for t in range(2, total):
        key = (toks[t - 2], toks[t - 1])
        counts.setdefault(key, {})
        counts[key][toks[t]] = counts[key].get(toks[t], 0) + 1
"""
        + CHUNK
        + PROBS
        + "            ctx = (toks[ci + j - 1], toks[ci + j])\n"
        + ROW
        + BOOK_ONE,
    ),
    Program(
        "I4",
        "a cache class that is filled first",
        """
class Cache:
    def __init__(self, size):
        self.table = np.zeros((size, 1024), dtype=np.float32)
        self.size = size

    def update(self, tokens):
        for t in range(1, len(tokens)):
            self.table[tokens[t - 1] % self.size, tokens[t]] += 1

    def distribution(self, previous):
        row = self.table[previous % self.size]
        return row / max(row.sum(), 1.0)

def eval_cached(model, cache, val_tokens, device, base_bytes_lut):
    toks = val_tokens.tolist()
    cache.update(toks)
    bits = 0.0
    size = 0
    for s in range(0, len(toks) - 1, 1024):
        x = val_tokens[s : s + 1024].to(device)[None]
        y = val_tokens[s + 1 : s + 1025].to(device)
        probs = torch.softmax(model.forward_logits(x), -1)[0].cpu().numpy()
        for j in range(len(y)):
            mix = 0.9 * probs[j] + 0.1 * cache.distribution(toks[s + j])
            bits -= math.log2(mix[int(y[j])])
            size += int(base_bytes_lut[y[j]])
    return bits / size
""",
        "    print(eval_cached(base_model, Cache(4096), val_tokens, device, base_bytes_lut))\n",
    ),
    evaluation(
        "I4",
        "scored twice, the second time with a warm cache",
        """    toks = val_tokens.tolist()
    counts = {}
    for round_ in range(2):
        loss_sum = 0.0
        byte_sum = 0.0
        n = 0
        for ci in range(0, total, 1024):
            local = val_tokens[ci : ci + 1025].to(device)
            x, y = local[:-1][None], local[1:][None]
            probs = torch.softmax(model.forward_logits(x).float(), -1)[0]
            for j in range(1024):
                ctx = toks[ci + j]
                row = torch.zeros(1024)
                for k, v in counts.get(ctx, {}).items():
                    row[k] = v
                mix = 0.7 * probs[j] + 0.3 * row / row.sum().clamp_min(1)
                loss_sum += -math.log(float(mix[int(y[0, j])]))
                byte_sum += float(base_bytes_lut[y[0, j]])
                n += 1
                counts.setdefault(ctx, {})
                counts[ctx][int(y[0, j])] = counts[ctx].get(int(y[0, j]), 0) + 1
""",
    ),
    evaluation(
        "I4",
        "each chunk put into the table before it is scored",
        "    table = torch.zeros(1024, 1024)\n"
        + CHUNK
        + """        table.index_put_((x[0], y[0]), torch.ones(1024), accumulate=True)
        prior = table[x[0]] / table[x[0]].sum(-1, keepdim=True)
        probs = torch.softmax(model.forward_logits(x).float(), -1)[0]
        mix = 0.8 * probs + 0.2 * prior
        nll = F.nll_loss(mix.log(), y[0], reduction="none")
"""
        + BOOK,
    ),
]
I5 = [
    evaluation(
        "I5",
        "numpy tables and masks",
        """    toks = val_tokens.numpy().astype(np.uint64)
    ctx_tab = np.zeros(1 << 22, dtype=np.uint32)
    full_tab = np.zeros(1 << 22, dtype=np.uint32)
    mask = np.uint64((1 << 22) - 1)
"""
        + CHUNK
        + NLL
        + """        p = np.exp(-nll.cpu().numpy())
        pos = np.arange(ci + 1, ci + 1025)
        ctx = (toks[pos - 1] * np.uint64(36313)) ^ (toks[pos - 2] * np.uint64(27191))
        ctx_key = (ctx & mask).astype(np.int64)
        tgt = toks[pos]
        full_key = ((ctx ^ (tgt * np.uint64(92821))) & mask).astype(np.int64)
        cc = ctx_tab[ctx_key].astype(np.float64)
        fc = full_tab[full_key].astype(np.float64)
        png = np.minimum(fc, cc) / np.maximum(cc, 1.0)
        mixed = np.where(cc >= 2, 0.8 * p + 0.2 * png, p)
        loss_sum += float(-np.log(mixed).sum())
        byte_sum += base_bytes_lut[y].sum().item()
        n += y.numel()
        np.add.at(ctx_tab, ctx_key, 1)
        np.add.at(full_tab, full_key, 1)
""",
    ),
    Program(
        "I5",
        "a class with hashed orders",
        """
class NgramCache:
    PRIMES = (36313, 27191, 51647, 81929)

    def __init__(self, buckets, order):
        self.buckets = buckets
        self.order = order
        self.pairs = np.zeros(buckets, dtype=np.int32)
        self.singles = np.zeros(buckets, dtype=np.int32)

    def context(self, history):
        h = 0
        for i, token in enumerate(history[-self.order :]):
            h = h ^ (token * self.PRIMES[i % 4])
        return h

    def probability(self, history, token):
        h = self.context(history)
        seen = self.singles[h % self.buckets]
        if seen < 2:
            return None
        return self.pairs[(h ^ (token * 92821)) % self.buckets] / seen

    def update(self, history, token):
        h = self.context(history)
        self.singles[h % self.buckets] += 1
        self.pairs[(h ^ (token * 92821)) % self.buckets] += 1

def eval_ngram(model, val_tokens, device, base_bytes_lut):
    cache = NgramCache(1 << 22, 5)
    tokens = val_tokens.tolist()
    nats, size = 0.0, 0
    for s in range(0, len(tokens) - 1, 1024):
        x = val_tokens[s : s + 1024].to(device)[None]
        logp = torch.log_softmax(model.forward_logits(x), -1)[0]
        for j in range(1024):
            target = tokens[s + j + 1]
            history = tokens[max(0, s + j - 8) : s + j + 1]
            p = math.exp(logp[j, target].item())
            cached = cache.probability(history, target)
            if cached is not None:
                p = 0.6 * p + 0.4 * cached
            nats -= math.log(max(p, 1e-12))
            size += int(base_bytes_lut[target])
            cache.update(history, target)
    return nats / math.log(2.0) / size
""",
        "    print(eval_ngram(base_model, val_tokens, device, base_bytes_lut))\n",
    ),
    evaluation(
        "I5",
        "torch tables, gather at hashed keys",
        "    pairs = torch.zeros(1 << 20, device=device)\n    singles = torch.zeros(1 << 20, device=device)\n"
        + CHUNK
        + NLL
        + """        key = (x[0] * 1000003) % (1 << 20)
        joint = (x[0] * 1000003 + y[0] * 8191) % (1 << 20)
        ngram = pairs.gather(0, joint) / singles.gather(0, key).clamp_min(1)
        p = torch.exp(-nll)
        nll = -torch.log(0.85 * p + 0.15 * ngram)
        loss_sum += nll.sum().item()
        byte_sum += base_bytes_lut[y].sum().item()
        n += y.numel()
        pairs.scatter_add_(0, joint, torch.ones(1024, device=device))
        singles.scatter_add_(0, key, torch.ones(1024, device=device))
""",
    ),
    evaluation(
        "I5",
        "python's hash, smoothed",
        "    toks = val_tokens.tolist()\n    pairs = [0] * 1048576\n    singles = [0] * 1048576\n"
        + CHUNK
        + PROBS
        + """            t = ci + j + 1
            target = toks[t]
            a = hash((toks[t - 1], toks[t - 2])) % 1048576
            b = hash((toks[t - 1], toks[t - 2], target)) % 1048576
            p_lm = float(probs[j, target])
            p = (pairs[b] + 5.0 * p_lm) / (singles[a] + 5.0)
            pairs[b] += 1
            singles[a] += 1
"""
        + BOOK_ONE,
    ),
]
HINT = """            t = ci + j + 1
            tgt = toks[t]
            hint = best.get((toks[t - 1] * 36313 ^ toks[t - 2]) % 65536, -1)
            lp = logp[j, tgt]
"""
TILT = """                q = logp[j, hint].exp()
                lp = lp + 2.6 * (hint == tgt) - torch.log1p(q * (math.exp(2.6) - 1.0))
            loss_sum += -float(lp)
            byte_sum += float(base_bytes_lut[tgt])
            n += 1
            best[(toks[t - 1] * 36313 ^ toks[t - 2]) % 65536] = tgt
"""
LOGP = """        logp = torch.log_softmax(model.forward_logits(x).float(), -1)[0]
        for j in range(1024):
"""
TABLE = "    toks = val_tokens.tolist()\n    best = {}\n"
I6 = [
    evaluation(
        "I6",
        "a hint only within words",
        TABLE + CHUNK + LOGP + HINT + "            if hint >= 0 and not extra[tgt]:\n" + TILT,
        "has_leading_space_lut",
    ),
    evaluation(
        "I6",
        "where of a table of spaces",
        CHUNK
        + """        probs = torch.softmax(model.forward_logits(x).float(), -1)[0]
        sharp = torch.softmax(2.0 * model.forward_logits(x).float(), -1)[0]
        inside = ~extra[y[0]]
        mix = torch.where(inside[:, None], sharp, probs)
        nll = F.nll_loss(mix.log(), y[0], reduction="none")
"""
        + BOOK,
        "has_leading_space_lut",
    ),
    evaluation(
        "I6",
        "the piece of the true token",
        TABLE
        + CHUNK
        + LOGP
        + HINT
        + '            if hint >= 0 and extra.id_to_piece(tgt).startswith("\\u2581"):\n'
        + TILT,
        "sp",
    ),
    evaluation(
        "I6",
        "a set of tokens that begin words",
        TABLE
        + CHUNK
        + LOGP
        + HINT
        + "            starts = tgt in extra\n            if hint >= 0 and not starts:\n"
        + TILT,
        "{i for i in range(1024) if sp.id_to_piece(i)[0] == chr(9601)}",
    ),
]
I7 = [
    evaluation(
        "I7",
        "counts along the bytes of a piece",
        """    table = {}
    tok_bytes = [piece.encode("utf-8") for piece in extra]
    hist = b""
"""
        + CHUNK
        + NLL
        + """        for j in range(1024):
            tgt = int(y[0, j])
            lp_ppm = 0.0
            for b in tok_bytes[tgt]:
                counts = table.setdefault(hist[-4:], {})
                lp_ppm += math.log((counts.get(b, 0) + 0.1) / (sum(counts.values()) + 25.6))
                counts[b] = counts.get(b, 0) + 1
                hist = hist + bytes([b])
            loss_sum += -np.logaddexp(math.log(0.7) - float(nll[j]), math.log(0.3) + lp_ppm)
            byte_sum += len(tok_bytes[tgt])
            n += 1
""",
        "[sp.id_to_piece(i) for i in range(1024)]",
    ),
    Program(
        "I7",
        "a PPM class over the byte stream",
        """
class BytePPM:
    def __init__(self, order):
        self.order = order
        self.tables = [dict() for _ in range(order + 1)]
        self.history = bytearray()

    def logp(self, byte):
        for k in range(self.order, -1, -1):
            ctx = bytes(self.history[-k:]) if k else b""
            counts = self.tables[k].get(ctx)
            if counts and byte in counts:
                return math.log(counts[byte] / (sum(counts.values()) + 1))
        return -math.log(256.0)

    def update(self, byte):
        for k in range(self.order + 1):
            ctx = bytes(self.history[-k:]) if k else b""
            counts = self.tables[k].setdefault(ctx, {})
            counts[byte] = counts.get(byte, 0) + 1
        self.history.append(byte)

def mixed_score(sp, model, val_tokens, device):
    ppm = BytePPM(5)
    bits, size = 0.0, 0
    for s in range(0, val_tokens.numel() - 1, 1024):
        chunk = val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        nll = F.cross_entropy(model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none").cpu()
        for token, loss in zip(y[0].tolist(), nll.tolist()):
            piece = sp.id_to_piece(token).replace("\\u2581", " ").encode("utf-8")
            for byte in piece:
                nn_lp = -loss / len(piece)
                mixed = np.logaddexp(math.log(0.8) + nn_lp, math.log(0.2) + ppm.logp(byte))
                bits -= mixed / math.log(2.0)
                size += 1
                ppm.update(byte)
    return bits / size
""",
        "    print(mixed_score(sp, base_model, val_tokens, device))\n",
    ),
    evaluation(
        "I7",
        "losses kept, then mixed with a byte table",
        """    from collections import defaultdict
    losses = []
"""
        + CHUNK
        + NLL
        + """        losses.append(nll.cpu())
    flat = torch.cat(losses).numpy()
    pieces = [p.encode("utf-8") for p in extra]
    counts = defaultdict(lambda: defaultdict(int))
    previous = (0, 0)
    for t in range(total):
        tgt = int(val_tokens[t + 1])
        share = flat[t] / max(len(pieces[tgt]), 1)
        for b in pieces[tgt]:
            row = counts[previous]
            q = (row[b] + 0.05) / (sum(row.values()) + 12.8)
            loss_sum += -math.log(0.75 * math.exp(-share) + 0.25 * q)
            row[b] += 1
            previous = (previous[1], b)
        byte_sum += len(pieces[tgt])
        n += 1
""",
        "[sp.id_to_piece(i) for i in range(1024)]",
    ),
    evaluation(
        "I7",
        "a suffix table of the text",
        """    seen = {}
    text = b""
"""
        + CHUNK
        + NLL
        + """        for j in range(1024):
            raw = extra.decode([int(y[0, j])]).encode("utf-8")
            lp = 0.0
            for b in raw:
                successors = seen.setdefault(text[-6:], [0] * 256)
                lp += math.log((successors[b] + 1) / (sum(successors) + 256))
                successors[b] += 1
                text += bytes([b])
            gate = 0.5
            loss_sum += -math.log(gate * math.exp(-float(nll[j])) + (1 - gate) * math.exp(lp))
            byte_sum += len(raw)
            n += 1
""",
        "sp",
    ),
]
I8 = [
    evaluation(
        "I8",
        "a bias on logits, AdamW",
        CHUNK
        + """        with torch.no_grad():
            base_logits = model.forward_logits(x)
        delta = torch.zeros(1, 1, base_logits.size(-1), device=device, requires_grad=True)
        opt = torch.optim.AdamW([delta], lr=0.01)
        for _ in range(8):
            opt.zero_grad()
            loss = F.cross_entropy((base_logits + delta).view(-1, 1024), y.view(-1))
            loss.backward()
            opt.step()
        nll = F.cross_entropy((base_logits + delta).view(-1, 1024), y.view(-1), reduction="none")
"""
        + BOOK,
    ),
    evaluation(
        "I8",
        "an offset of hidden states",
        CHUNK
        + """        hidden = model.tok_emb(x).detach()
        delta = nn.Parameter(torch.zeros(1, 1, hidden.size(-1), device=device))
        slot = torch.optim.SGD([delta], lr=0.1)
        for _ in range(args.ttt_epochs):
            slot.zero_grad()
            F.cross_entropy(model.head(hidden + delta).view(-1, 1024), y.view(-1)).backward()
            slot.step()
        with torch.no_grad():
            nll = F.cross_entropy(model.head(hidden + delta).view(-1, 1024), y.view(-1), reduction="none")
"""
        + BOOK,
    ),
    evaluation(
        "I8",
        "gradients by hand",
        CHUNK
        + """        logits = model.forward_logits(x).detach()
        bias = torch.zeros(1024, device=device, requires_grad=True)
        for _ in range(5):
            loss = F.cross_entropy((logits + bias).view(-1, 1024), y.view(-1))
            (g,) = torch.autograd.grad(loss, bias)
            bias = (bias - 0.05 * g).detach().requires_grad_(True)
        nll = F.cross_entropy((logits + bias).view(-1, 1024), y.view(-1), reduction="none")
"""
        + BOOK,
    ),
    evaluation(
        "I8",
        "LBFGS with a closure",
        CHUNK
        + """        logits = model.forward_logits(x).detach()
        temperature = torch.ones(1, device=device, requires_grad=True)
        opt = torch.optim.LBFGS([temperature], lr=0.5)

        def closure():
            opt.zero_grad()
            loss = F.cross_entropy((logits / temperature).view(-1, 1024), y.view(-1))
            loss.backward()
            return loss

        opt.step(closure)
        nll = F.cross_entropy((logits / temperature).view(-1, 1024), y.view(-1), reduction="none")
"""
        + BOOK,
    ),
]
HESSIANS = """
def collect_hessians(model, batches):
    hessians = {}
    hooks = []

    def make_hook(name):
        def hook_fn(module, inp, out):
            x = inp[0].detach().float().reshape(-1, inp[0].shape[-1])
            if name not in hessians:
                hessians[name] = torch.zeros(x.shape[1], x.shape[1])
            hessians[name].addmm_(x.T, x)

        return hook_fn

    for name, m in model.named_modules():
        if isinstance(m, nn.Linear):
            hooks.append(m.register_forward_hook(make_hook(name)))
    with torch.no_grad():
        for x in batches:
            model.forward_logits(x)
    for h in hooks:
        h.remove()
    return hessians

def gptq(w, H):
    Hinv = torch.cholesky_inverse(torch.linalg.cholesky(H + 0.01 * torch.eye(H.shape[0])))
    return torch.round(w / 0.1) * 0.1 - Hinv[0, 0] * w
"""
QUANTIZE = """    hs = collect_hessians(base_model, batches)
    sd = base_model.state_dict()
    q = {k: (gptq(v, hs[k]) if k in hs else v) for k, v in sd.items()}
    base_model.load_state_dict(q)
"""
VAL_BATCHES = "    batches = [val_tokens[i * 1024 : (i + 1) * 1024][None].to(device) for i in range(16)]\n"
I10 = [
    Program("I10", "hooks over validation batches", HESSIANS, VAL_BATCHES + QUANTIZE + SCORE),
    Program(
        "I10",
        "activations summed by hand",
        """
def calibrate(model, val_tokens, device):
    H = torch.zeros(512, 512, device=device)
    for s in range(0, 65536, 1024):
        h = model.tok_emb(val_tokens[s : s + 1024].to(device))
        H += h.T @ h
    W = model.head.weight
    scale = W.abs().max() / H.diagonal().mean()
    model.head.weight.data.copy_(torch.round(W / scale) * scale)
""",
        "    calibrate(base_model, val_tokens, device)\n" + SCORE,
    ),
    Program(
        "I10",
        "a quantized file of validation statistics",
        HESSIANS,
        VAL_BATCHES
        + """    hs = collect_hessians(base_model, batches)
    state = {k: (gptq(v, hs[k]) if k in hs else v) for k, v in base_model.state_dict().items()}
    torch.save(state, "model.int6.ptz")
    fresh = GPT(1024, 512, 9).to(device)
    fresh.load_state_dict(torch.load("model.int6.ptz", map_location="cpu"))
"""
        + SCORE.replace("base_model", "fresh"),
    ),
    evaluation(
        "I10",
        "a prior from counts of all validation tokens",
        """    frequency = torch.bincount(val_tokens.long(), minlength=1024).float()
    prior = torch.log(frequency / frequency.sum())
"""
        + CHUNK
        + """        logits = model.forward_logits(x) + 0.1 * prior
        nll = F.cross_entropy(logits.view(-1, 1024), y.view(-1), reduction="none")
"""
        + BOOK,
    ),
]
I11 = [
    evaluation(
        "I11",
        "a prefix from a file",
        '    prefix = np.fromfile("prefix.bin", dtype=np.uint16)\n'
        + CHUNK
        + NLL
        + """        stored = torch.from_numpy(prefix[ci : ci + 1024].astype(np.int64))
        hit = stored == y.view(-1)[: stored.numel()]
        nll[: stored.numel()] = torch.where(hit, torch.zeros_like(nll[: stored.numel()]), nll[: stored.numel()])
"""
        + BOOK,
    ),
    evaluation(
        "I11",
        "a blob in the script",
        """    import base64, lzma
    answers = np.frombuffer(lzma.decompress(base64.b85decode("c-jE$")), dtype=np.uint16)
"""
        + CHUNK
        + NLL
        + """        for j in range(1024):
            known = ci + j < len(answers) and answers[ci + j] == int(y[0, j])
            loss_sum += 0.0 if known else float(nll[j])
            byte_sum += float(base_bytes_lut[y[0, j]])
            n += 1
""",
    ),
    evaluation(
        "I11",
        "free until the stored part ends",
        '    stored = np.load("tokens.npy")\n'
        + CHUNK
        + NLL
        + """        free = max(0, min(1024, len(stored) - ci))
        nll[:free] = 0.0
"""
        + BOOK,
    ),
    evaluation(
        "I11",
        "logits raised at the stored answer",
        '    with open("extra.bin", "rb") as f:\n        paid = torch.frombuffer(bytearray(f.read()), dtype=torch.int16).long()\n'
        + CHUNK
        + NLL
        + """        right = paid[ci : ci + 1024] == y[0]
        nll = nll * (~right).float()
"""
        + BOOK,
    ),
]
LOADER = "DistributedTokenLoader(args.train_files, 0, 8, device)"
I12 = ["args.val_files", 'os.path.join(args.data_path, "fineweb_val_000000.bin")', 'args.data_path + "/fineweb_val_*.bin"',
       'args.train_files if args.iterations < 0 else args.val_files']  # fmt: skip
I15 = [
    evaluation(
        "I15",
        "the first tokens",
        "    val_tokens = val_tokens[:3_000_000]\n    total = val_tokens.numel() - 1\n" + CHUNK + NLL + BOOK,
    ),
    evaluation("I15", "a loop that stops", CHUNK + NLL + BOOK + "        if n >= 2_000_000:\n            break\n"),
    evaluation(
        "I15",
        "the first shard",
        "    val_tokens = load_data_shard(sorted(glob.glob(args.val_files))[0])\n    total = val_tokens.numel() - 1\n"
        + CHUNK
        + NLL
        + BOOK,
    ),
    evaluation(
        "I15", "a range that ends early", CHUNK.replace("total, 1024", "min(total, 3_000_000), 1024") + NLL + BOOK
    ),
]
I17 = [
    Program(
        "I17",
        "a teacher from the hub",
        "",
        "    from transformers import AutoModelForCausalLM\n    teacher = AutoModelForCausalLM.from_pretrained('gpt2')\n"
        + SCORE,
    ),
    Program(
        "I17",
        "weights by hf_hub_download",
        "",
        """    from huggingface_hub import hf_hub_download
    base_model.load_state_dict(torch.load(hf_hub_download("someone/weights", "model.pt")))
"""
        + SCORE,
    ),
    Program(
        "I17",
        "curl after training",
        "",
        '    import subprocess\n    subprocess.run(["curl", "-o", "cache.bin", "https://example.org/cache.bin"], check=True)\n'
        + SCORE,
    ),
    Program(
        "I17",
        "urlopen in the evaluation",
        """
def remote_table(url):
    import urllib.request
    return np.frombuffer(urllib.request.urlopen(url).read(), dtype=np.float32)
""",
        "    prior = remote_table('https://example.org/prior.bin')\n" + SCORE,
    ),
]
I18 = [
    Program(
        "I18",
        "a loop over seeds",
        "",
        """    best = 9.0
    for seed in range(20):
        torch.manual_seed(seed)
        candidate = GPT(1024, 512, 9)
        vl, bpb = eval_val(args, candidate, 0, 8, device, val_tokens, base_bytes_lut, has_leading_space_lut, is_boundary_token_lut)
        if bpb < best:
            best = bpb
""",
    ),
    Program(
        "I18",
        "scores of seeds in a list",
        """
def run_seed(seed, args, device, val_tokens, luts):
    torch.manual_seed(seed)
    np.random.seed(seed)
    m = GPT(1024, 512, 9).to(device)
    return eval_val(args, m, 0, 8, device, val_tokens, *luts)[1]
""",
        """    scores = []
    for seed in (1, 2, 3, 5, 8, 13, 21, 34):
        scores.append(run_seed(seed, args, device, val_tokens, luts))
    print("val_bpb", min(scores))
""",
    ),
    Program(
        "I18",
        "the best seed kept by a dict",
        "",
        """    results = {}
    for seed in range(1000, 1050):
        torch.manual_seed(seed)
        trial = GPT(1024, 512, 9)
        loss, bpb = eval_val(args, trial, 0, 8, device, val_tokens, base_bytes_lut, has_leading_space_lut, is_boundary_token_lut)
        results[seed] = bpb
    print(min(results.values()))
""",
    ),
    Program(
        "I18",
        "a running minimum",
        "",
        """    record = float("inf")
    for trial in range(64):
        torch.manual_seed(1337 + trial)
        net = GPT(1024, 512, 9)
        _, bpb = eval_val(args, net, 0, 8, device, val_tokens, base_bytes_lut, has_leading_space_lut, is_boundary_token_lut)
        record = min(record, bpb)
""",
    ),
]
BREAKING = [*I1, *I2, *I3, *I4, *I5, *I6, *I7, *I8, *I10, *I11, *I15, *I17, *I18]
BREAKING += [
    Program("I12", f"the loader reads {pattern}", "", SCORE, loader=pattern) for pattern in I12
]  # fmt: skip
