# ruff: noqa: E501 (the programs and logs of entries stand here as entrants write them)
"""Honest programs that look like a forbidden technique: the same ingredients in an order or place that the rules allow."""

from __future__ import annotations

from breaking import HESSIANS, HINT, LOGP, LORA, QUANTIZE, SECOND, TABLE, TILT, TWO
from programs import BOOK, BOOK_ONE, CHUNK, NLL, PROBS, SCORE, Program, evaluation


def honest(near: str, name: str, body: str, extra: str = "None", before: str = "", main: str = "") -> Program:
    return evaluation("", name, body, extra, before, main, near)


STEP = """        for _ in range(args.ttt_epochs):
            opt.zero_grad()
            loss = model(x, y)
            loss.backward()
            opt.step()
"""
SGD = "    opt = torch.optim.SGD(model.parameters(), lr=0.01)\n"
HONEST = [
    honest("I1", "scored, then trained on", SGD + CHUNK + NLL + BOOK + STEP),
    honest("I1", "trained on the chunk before", SGD + "    previous = None\n" + CHUNK + """        if previous is not None:
            opt.zero_grad()
            model(previous[0], previous[1]).backward()
            opt.step()
""" + NLL + BOOK + "        previous = (x, y)\n"),
    honest("I1", "an adapter per document, one forward for both", """    documents = (val_tokens == 1).nonzero()[:, 0].tolist()
    for start, end in zip(documents[:-1], documents[1:]):
        lora = LoRA(512, 1024, 8)
        opt = torch.optim.AdamW(lora.parameters(), lr=1e-3)
        for s in range(start, end - 1, 64):
            x, y = val_tokens[s : s + 64][None], val_tokens[s + 1 : s + 65][None]
            h = model.tok_emb(x)
            nll = F.cross_entropy((model.head(h) + lora(h)).view(-1, 1024), y.view(-1), reduction="none")
            with torch.no_grad():
                loss_sum += nll.sum().item()
                byte_sum += base_bytes_lut[y].sum().item()
                n += y.numel()
            opt.zero_grad()
            nll.mean().backward()
            opt.step()
""", before=LORA),
    Program("", "compiled on validation tokens with a throw-away adapter", LORA, """    warm = LoRA(512, 1024, 8)
    warm_opt = torch.optim.AdamW(warm.parameters(), lr=1e-3)
    xw, yw = val_tokens[:64][None], val_tokens[1:65][None]
    for _ in range(3):
        warm_opt.zero_grad()
        hw = base_model.tok_emb(xw)
        F.cross_entropy((base_model.head(hw) + warm(hw)).view(-1, 1024), yw.view(-1)).backward()
        warm_opt.step()
    del warm, warm_opt
""" + SCORE, near="I1"),
    Program("", "adapted on training text before the score", """
def refresh(args, model, loader):
    opt = torch.optim.SGD(model.parameters(), lr=args.ttt_lr)
    for step in range(32):
        x, y = loader.next_batch(65536, args.train_seq_len, 1)
        opt.zero_grad()
        model(x, y).backward()
        opt.step()
""", "    refresh(args, base_model, train_loader)\n" + SCORE, near="I1"),
    honest("I2", "epochs over a chunk that is scored", SGD + CHUNK + NLL + BOOK + """        for epoch in range(5):
            opt.zero_grad()
            model(x, y).backward()
            opt.step()
"""),
    honest("I2", "only the first epoch is counted", SGD + """    for epoch in range(3):
        for ci in range(0, total, 1024):
            local = val_tokens[ci : ci + 1025].to(device)
            x, y = local[:-1][None], local[1:][None]
            loss = model(x, y)
            if epoch == 0:
                loss_sum += loss.item() * y.numel()
                byte_sum += base_bytes_lut[y].sum().item()
                n += y.numel()
            opt.zero_grad()
            loss.backward()
            opt.step()
"""),
    honest("I2", "epochs with a log of their training loss", SGD + CHUNK + NLL + BOOK + """        for epoch in range(3):
            running = 0.0
            for s in range(0, 1024, 256):
                loss = model(x[:, s : s + 256], y[:, s : s + 256])
                opt.zero_grad()
                loss.backward()
                opt.step()
                running += loss.item()
            print(f"chunk {ci} epoch {epoch} train loss {running / 4:.4f}")
"""),
    Program("", "the validation loss at every thousandth step", "", """    for check in range(3):
        val_loss, val_bpb = eval_val(args, base_model, 0, 8, device, val_tokens, base_bytes_lut, has_leading_space_lut, is_boundary_token_lut)
        print(check, val_bpb)
""" + SCORE, near="I2"),
    honest("I3", "mixed by an entropy", CHUNK + """        p = torch.softmax(model.forward_logits(x).float(), -1)[0]
        q = torch.softmax(extra.forward_logits(x).float(), -1)[0]
        sure = (p * p.log()).sum(-1) > (q * q.log()).sum(-1)
        mix = torch.where(sure[:, None], p, q)
        nll = F.nll_loss(mix.log(), y[0], reduction="none")
""" + BOOK, "second", main=SECOND),
    honest("I3", "the mean of two losses", CHUNK + TWO + "        nll = 0.5 * (a + b)\n" + BOOK, "second", main=SECOND),
    honest("I3", "a clipped step size", CHUNK + NLL + BOOK + "        limit = torch.minimum(torch.tensor(1.0), 1.0 / nll.norm())\n        model.scale = limit\n"),
    honest("I3", "losses clamped from above in a log", CHUNK + NLL + BOOK + "        print(nll.max().item(), min(nll.mean().item(), 20.0))\n"),
    honest("I4", "counts that are updated after the token", "    toks = val_tokens.tolist()\n    counts = {}\n" + CHUNK + PROBS + """            ctx = (toks[ci + j - 1], toks[ci + j])
            row = torch.zeros(1024)
            for k, v in counts.get(ctx, {}).items():
                row[k] = v
            mix = 0.7 * probs[j] + 0.3 * row / row.sum().clamp_min(1)
            p = float(mix[int(y[0, j])])
""" + BOOK_ONE + """            counts.setdefault(ctx, {})
            counts[ctx][int(y[0, j])] = counts[ctx].get(int(y[0, j]), 0) + 1
"""),
    honest("I4", "hints made in a causal pass of their own", """    toks = val_tokens.tolist()
    last = {}
    hints = np.full(total + 1, -1, dtype=np.int64)
    for t in range(2, total):
        key = (toks[t - 2], toks[t - 1])
        hints[t] = last.get(key, -1)
        last[key] = toks[t]
""" + CHUNK + LOGP + """            t = ci + j + 1
            tgt = toks[t]
            hint = int(hints[t])
            lp = logp[j, tgt]
            if hint >= 0:
                q = logp[j, hint].exp()
                lp = lp + 2.0 * (hint == tgt) - torch.log1p(q * (math.exp(2.0) - 1.0))
            loss_sum += -float(lp)
            byte_sum += float(base_bytes_lut[tgt])
            n += 1
"""),
    honest("I4", "counts of training text", """    stream = extra.take(1 << 20).tolist()
    counts = np.ones((1024, 1024))
    for t in range(1, len(stream)):
        counts[stream[t - 1], stream[t]] += 1
    prior = torch.from_numpy(counts / counts.sum(1, keepdims=True))
""" + CHUNK + """        p = torch.softmax(model.forward_logits(x).float(), -1)[0]
        mix = 0.9 * p + 0.1 * prior[x[0]]
        nll = F.nll_loss(mix.log(), y[0], reduction="none")
""" + BOOK, "train_loader.stream"),
    honest("I4", "documents sorted by length", """    starts = (val_tokens == 1).nonzero()[:, 0].tolist()
    documents = []
    for a, b in zip(starts[:-1], starts[1:]):
        documents.append((a, b - a))
    for start, length in sorted(documents, key=lambda d: d[1]):
        x, y = val_tokens[start : start + length][None], val_tokens[start + 1 : start + length + 1][None]
""" + NLL + BOOK),
    honest("I5", "a hint with its normalizer", TABLE + CHUNK + LOGP + HINT + "            if hint >= 0:\n" + TILT),
    honest("I5", "a row of counts over the vocabulary", "    counts = torch.ones(1024, 1024)\n" + CHUNK + """        rows = counts[x[0]]
        p = torch.softmax(model.forward_logits(x).float(), -1)[0]
        mix = 0.8 * p + 0.2 * rows / rows.sum(-1, keepdim=True)
        nll = F.nll_loss(mix.log(), y[0], reduction="none")
""" + BOOK + "        counts.index_put_((x[0], y[0]), torch.ones(1024), accumulate=True)\n"),
    honest("I5", "every candidate hashed, then normalized", "    pairs = np.zeros(1 << 20)\n    candidates = np.arange(1024)\n    toks = val_tokens.tolist()\n" + CHUNK + PROBS + """            previous, target = toks[ci + j], toks[ci + j + 1]
            scores = pairs[(previous * 36313 ^ candidates * 27191) % (1 << 20)] + 0.01
            mix = 0.8 * probs[j].cpu().numpy() + 0.2 * scores / scores.sum()
            p = float(mix[target])
""" + BOOK_ONE + "            pairs[(previous * 36313 ^ target * 27191) % (1 << 20)] += 1\n"),
    Program("", "hashed bigrams as an embedding", """
class BigramGPT(GPT):
    def __init__(self, vocab, dim, n):
        super().__init__(vocab, dim, n)
        self.bigram = nn.Embedding(3072, dim)

    def forward_logits(self, ids):
        previous = F.pad(ids[:, :-1], (1, 0))
        key = (previous * 36313 ^ ids * 27191) % 3072
        x = self.tok_emb(ids) + self.bigram(key)
        for block in self.blocks:
            x = block(x)
        return self.head(x)
""", "    base_model = BigramGPT(1024, 512, 9).to(device)\n" + SCORE, near="I5"),
    honest("I6", "a gate on the token before", TABLE + CHUNK + LOGP + HINT + "            if hint >= 0 and not extra[toks[t - 1]]:\n" + TILT, "is_boundary_token_lut"),
    honest("I6", "bytes of the true token counted", CHUNK + NLL + """        loss_sum += nll.sum().item()
        token_bytes = base_bytes_lut[y].float()
        token_bytes += (extra[y] & (x != 1)).float()
        byte_sum += token_bytes.sum().item()
        n += y.numel()
""", "has_leading_space_lut"),
    honest("I6", "padding left out", CHUNK + NLL + """        keep = (y.view(-1) != 0).float()
        loss_sum += (nll * keep).sum().item()
        byte_sum += base_bytes_lut[y].sum().item()
        n += int(keep.sum())
"""),
    honest("I6", "a class of the hint", TABLE + CHUNK + LOGP + HINT + "            if hint >= 0 and extra[hint]:\n" + TILT, "has_leading_space_lut"),
    honest("I7", "bytes counted piece by piece", "    pieces = [p.encode('utf-8') for p in extra]\n" + CHUNK + NLL + """        loss_sum += nll.sum().item()
        for token in y[0].tolist():
            byte_sum += len(pieces[token])
        n += y.numel()
""", "[sp.id_to_piece(i) for i in range(1024)]"),
    honest("I7", "tokens that are bytes", CHUNK.replace("1024", "4096").replace("1025", "4097") + """        logits = model.forward_logits(x)[..., :260]
        nll = F.cross_entropy(logits.reshape(-1, 260), y.view(-1), reduction="none")
        loss_sum += nll.sum().item()
        byte_sum += float((y >= 4).sum())
        n += y.numel()
"""),
    honest("I7", "a sidecar of bytes", '    sidecar = np.fromfile(args.val_files.replace("val_", "val_bytes_"), dtype=np.uint16)\n' + CHUNK + NLL + """        loss_sum += nll.sum().item()
        byte_sum += float(sidecar[ci + 1 : ci + 1025].sum())
        n += y.numel()
"""),
    honest("I7", "a compressor of the text for comparison", "    import zlib\n    text = b''.join(p.encode('utf-8') for p in extra)\n    print('zlib', len(zlib.compress(text)))\n" + CHUNK + NLL + BOOK,
           "[sp.id_to_piece(i) for i in val_tokens[:4096].tolist()]"),
    honest("I8", "a bias that is carried on", """    delta = torch.zeros(1, 1, 1024, device=device, requires_grad=True)
    opt = torch.optim.AdamW([delta], lr=0.01)
""" + CHUNK + """        base_logits = model.forward_logits(x).detach()
        nll = F.cross_entropy((base_logits + delta).view(-1, 1024), y.view(-1), reduction="none")
""" + BOOK + """        opt.zero_grad()
        F.cross_entropy((base_logits + delta).view(-1, 1024), y.view(-1)).backward()
        opt.step()
"""),
    honest("I8", "a temperature fitted to training text", """    temperature = torch.ones(1, requires_grad=True)
    opt = torch.optim.SGD([temperature], lr=0.01)
    for _ in range(20):
        xt, yt = extra.next_batch(65536, 1024, 1)
        opt.zero_grad()
        F.cross_entropy((model.forward_logits(xt) / temperature).view(-1, 1024), yt.view(-1)).backward()
        opt.step()
""" + CHUNK + """        nll = F.cross_entropy((model.forward_logits(x) / temperature).view(-1, 1024), y.view(-1), reduction="none")
""" + BOOK, "train_loader"),
    honest("I8", "a leaf that nothing fits", "    delta = torch.zeros(1024, requires_grad=True)\n" + CHUNK + """        nll = F.cross_entropy((model.forward_logits(x) + delta).view(-1, 1024), y.view(-1), reduction="none")
""" + BOOK),
    honest("I8", "gradients by hand, after the score", """    bias = torch.zeros(1024, requires_grad=True)
""" + CHUNK + """        logits = model.forward_logits(x).detach()
        nll = F.cross_entropy((logits + bias).view(-1, 1024), y.view(-1), reduction="none")
""" + BOOK + """        (g,) = torch.autograd.grad(nll.mean(), bias)
        bias = (bias - 0.05 * g).detach().requires_grad_(True)
"""),
    Program("", "hooks over training batches", HESSIANS, "    batches = [train_loader.next_batch(1024, 1024, 1)[0] for _ in range(16)]\n" + QUANTIZE + SCORE, near="I10"),
    Program("", "hooks over text that the model makes", HESSIANS + """
def generate(model, device):
    ids = torch.randint(0, 1024, (8, 1), device=device)
    for _ in range(255):
        logits = model.forward_logits(ids)[:, -1]
        ids = torch.cat([ids, torch.multinomial(torch.softmax(logits, -1), 1)], dim=1)
    return ids
""", "    batches = [generate(base_model, device) for _ in range(4)]\n" + QUANTIZE + SCORE, near="I10"),
    Program("", "hooks over random tokens", HESSIANS, "    batches = [torch.randint(0, 1024, (1, 1024), device=device) for _ in range(16)]\n" + QUANTIZE + SCORE, near="I10"),
    Program("", "averaged weights", "", """    ema = {k: v.detach().float().clone() for k, v in base_model.state_dict().items()}
    for k, v in base_model.state_dict().items():
        ema[k].mul_(0.997).add_(v.detach().float(), alpha=0.003)
    base_model.load_state_dict({k: v.to(torch.bfloat16) for k, v in ema.items()}, strict=True)
""" + SCORE, near="I10"),
    honest("I11", "bigrams of training text from a file", '    bigrams = torch.from_numpy(np.load("train_bigrams.npy"))\n' + CHUNK + """        p = torch.softmax(model.forward_logits(x).float(), -1)[0]
        mix = 0.9 * p + 0.1 * bigrams[x[0]]
        nll = F.nll_loss(mix.log(), y[0], reduction="none")
""" + BOOK),
    honest("I11", "weights from a compressed blob", """    import lzma
    with open("final_model.int6.ptz", "rb") as f:
        raw = lzma.decompress(f.read())
    model.load_state_dict(torch.load(io.BytesIO(raw)))
""" + CHUNK + NLL + BOOK),
    honest("I11", "a table of hints by context from a file", '    best = np.load("train_hints.npy")\n    toks = val_tokens.tolist()\n' + CHUNK + LOGP + """            t = ci + j + 1
            tgt = toks[t]
            hint = int(best[(toks[t - 1] * 36313 ^ toks[t - 2]) % 65536])
            q = logp[j, hint].exp()
            lp = logp[j, tgt] + 2.0 * (hint == tgt) - torch.log1p(q * (math.exp(2.0) - 1.0))
            loss_sum += -float(lp)
            byte_sum += float(base_bytes_lut[tgt])
            n += 1
"""),
    honest("I11", "settings from a file", '    import json\n    settings = json.load(open("settings.json"))\n' + CHUNK + """        logits = model.forward_logits(x) / settings["temperature"]
        nll = F.cross_entropy(logits.view(-1, 1024), y.view(-1), reduction="none")
""" + BOOK),
    honest("I15", "all tokens in windows", """    for ws in range(0, total, args.stride):
        end = min(ws + args.train_seq_len, total)
        chunk = val_tokens[ws : end + 1].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        keep = 0 if ws == 0 else end - ws - args.stride
        nll = F.cross_entropy(model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
        loss_sum += nll[keep:].sum().item()
        byte_sum += base_bytes_lut[y[0, keep:]].sum().item()
        n += y.numel() - keep
"""),
    honest("I15", "a limit that is off", '    limit = int(os.environ.get("MAX_VAL_TOKENS", "0"))\n' + CHUNK + NLL + BOOK + "        if limit and n >= limit:\n            break\n"),
    honest("I15", "a smoke test beside the score", CHUNK + NLL + BOOK + "    smoke = val_tokens[:20_000].to(device)\n    print(model(smoke[:-1][None], smoke[1:][None]).item())\n"),
    honest("I15", "a rank's share", """    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    share = total // world
    for ci in range(rank * share, (rank + 1) * share, 1024):
        local = val_tokens[ci : ci + 1025].to(device)
        x, y = local[:-1][None], local[1:][None]
""" + NLL + BOOK),
    Program("", "a tool of the system", "", '    import subprocess\n    subprocess.run(["lrzip", "-z", "final_model.bin"], check=True)\n' + SCORE, near="I17"),
    Program("", "a compiler", "", '    import subprocess\n    subprocess.run(["g++", "-O3", "-shared", "-o", "ngram.so", "ngram.cpp"], check=True)\n' + SCORE, near="I17"),
    Program("", "attention from a package, with another if it is missing", "", """    try:
        from flash_attn_interface import flash_attn_func
    except ImportError:
        flash_attn_func = None
""" + SCORE, near="I17"),
    Program("", "what the machine is", "", '    import subprocess\n    print(subprocess.run(["nvidia-smi"], capture_output=True, text=True).stdout)\n' + SCORE, near="I17"),
    Program("", "one seed from the environment", "", '    torch.manual_seed(int(os.environ.get("SEED", "1337")))\n' + SCORE, near="I18"),
    Program("", "three seeds and their mean", "", """    scores = []
    for seed in (42, 314, 1337):
        torch.manual_seed(seed)
        m = GPT(1024, 512, 9)
        scores.append(eval_val(args, m, 0, 8, device, val_tokens, base_bytes_lut, has_leading_space_lut, is_boundary_token_lut)[1])
    print("mean val_bpb", sum(scores) / 3)
""", near="I18"),
    Program("", "seeds of data, not of scores", """
def shuffled(n, seeds):
    orders = []
    for seed in seeds:
        torch.manual_seed(seed)
        orders.append(torch.randperm(n))
    return orders
""", "    orders = shuffled(1024, range(8))\n" + SCORE, near="I18"),
    Program("", "a seed per rank", "", "    for rank in range(8):\n        torch.manual_seed(1337 + rank)\n" + SCORE, near="I18"),
    *(Program("", f"training reads {pattern}", "", SCORE, loader=pattern, near="I12") for pattern in (
        "args.train_files", 'os.path.join(args.data_path, "fineweb_train_000000.bin")', 'args.data_path + "/fineweb_train_*.bin"',
        'os.environ.get("TRAIN_FILES", args.train_files)')),
]  # fmt: skip
HONEST.append(
    Program(
        "",
        "names of targets within a model, clipped activations",
        """
class Attention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        x = torch.cat([x[:, :1], x[:, 1:] + torch.sigmoid(self.gate) * x[:, :-1]], dim=1)
        q, k, v = self.q(x), self.k(x), self.v(x)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        target = torch.minimum(self.proj(y), self.proj(q).abs() + 1.0)
        y = torch.where(y > 3.0, target, y)
        return x + target * y


class AttentionGPT(GPT):
    def __init__(self, vocab, dim, n):
        super().__init__(vocab, dim, n)
        self.attention = nn.ModuleList([Attention(dim) for _ in range(n)])

    def forward_logits(self, ids):
        x = self.tok_emb(ids)
        for block, attention in zip(self.blocks, self.attention):
            x = block(attention(x))
        return self.head(x)
""",
        "    base_model = AttentionGPT(1024, 512, 9).to(device)\n" + SCORE,
        near="I3",
    )
)
