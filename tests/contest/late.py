# ruff: noqa: E501 (the programs stand here as entrants write them)
"""Programs in the style of late entries: quantized through a file, timed by a wrapper, adapted by documents and chunks."""

from __future__ import annotations

from programs import Program

SERIALIZE = """
def serialize(h, base_model):
    sd_cpu = {k: v.detach().cpu() for k, v in base_model.state_dict().items()}
    result, meta = {}, {}
    for name, tensor in sd_cpu.items():
        t = tensor.detach().cpu().contiguous()
        if not t.is_floating_point() or t.numel() <= 65536:
            result[name] = t.to(torch.float16)
            meta[name] = "passthrough"
            continue
        s = (t.abs().amax(dim=1) / 31).clamp_min(1e-8)
        result[name + ".q"] = torch.clamp(torch.round(t / s[:, None]), -31, 31).to(torch.int8)
        result[name + ".scale"] = s
        meta[name] = "int6"
    quant_buf = io.BytesIO()
    torch.save({"w": result, "m": meta}, quant_buf)
    quant_raw = quant_buf.getvalue()
    import brotli
    blob = brotli.compress(quant_raw, quality=11)
    with open(h.quantized_model_path, "wb") as f:
        f.write(blob)
def deserialize(h, device):
    eval_model = GPT(1024, 512, 9).to(device).bfloat16()
    template = eval_model.state_dict()
    with open(h.quantized_model_path, "rb") as f:
        disk = f.read()
    import brotli
    state = torch.load(io.BytesIO(brotli.decompress(disk)), map_location="cpu")
    out = {}
    for name, orig in template.items():
        info = state["m"].get(name)
        if "passthrough" in info:
            out[name] = state["w"][name].to(orig.dtype)
        else:
            q, s = state["w"][name + ".q"], state["w"][name + ".scale"]
            out[name] = (q.float() * s.float().view(q.shape[0], 1)).to(orig.dtype)
    eval_model.load_state_dict(out, strict=True)
    return eval_model
def timed_eval(label, fn, *args, **kwargs):
    torch.cuda.synchronize()
    t0 = time.perf_counter()
    val_loss, val_bpb = fn(*args, **kwargs)
    print(f"{label} val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}")
    return val_loss, val_bpb
class ValidationData:
    def __init__(self, h, device):
        self.val_tokens = load_validation_tokens(h.val_files, 1024)
        self.base_bytes_lut, self.has_leading_space_lut, self.is_boundary_token_lut = build_sentencepiece_luts(spm.SentencePieceProcessor(model_file="x"), 1024, device)
def _loss_bpb(loss_sum, token_count, byte_count):
    val_loss = (loss_sum / token_count).item()
    return val_loss, val_loss / math.log(2.0) * (token_count.item() / byte_count.item())
def eval_sliding(h, device, val_data, base_model, forward_logits_fn=None, batch_seqs=32):
    run = base_model.forward_logits if forward_logits_fn is None else forward_logits_fn
    seq_len, stride = 1024, 64
    total = val_data.val_tokens.numel() - 1
    context = seq_len - stride
    starts = [ws for ws in range(0, total, stride) if ws + context < total]
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    mine = starts[(len(starts) * rank) // world : (len(starts) * (rank + 1)) // world]
    loss_sum = torch.zeros((), device=device, dtype=torch.float64)
    token_count = torch.zeros((), device=device, dtype=torch.float64)
    byte_count = torch.zeros((), device=device, dtype=torch.float64)
    base_model.eval()
    with torch.inference_mode():
        for bi in range(0, len(mine), batch_seqs):
            batch_ws = mine[bi : bi + batch_seqs]
            bsz = len(batch_ws)
            xb = torch.zeros(bsz, seq_len, dtype=torch.int64, device=device)
            yb = torch.zeros(bsz, seq_len, dtype=torch.int64, device=device)
            wlens = []
            for i, ws in enumerate(batch_ws):
                we = min(ws + seq_len, total)
                wlen = we - ws
                wlens.append(wlen)
                chunk = val_data.val_tokens[ws : we + 1].to(dtype=torch.int64, device=device)
                xb[i, :wlen] = chunk[:-1]
                yb[i, :wlen] = chunk[1:]
            with torch.autocast(device_type="cuda", dtype=torch.bfloat16):
                logits = run(xb)
            nll = F.cross_entropy(logits.reshape(-1, logits.size(-1)).float(), yb.reshape(-1), reduction="none").reshape(bsz, seq_len)
            for i, ws in enumerate(batch_ws):
                wlen = wlens[i]
                s = 0 if ws == 0 else context
                scored = nll[i, s:wlen].to(torch.float64)
                loss_sum += scored.sum()
                token_count += float(wlen - s)
                tgt, prev = yb[i, s:wlen], xb[i, s:wlen]
                tb = val_data.base_bytes_lut[tgt].to(torch.float64)
                tb += (val_data.has_leading_space_lut[tgt] & ~val_data.is_boundary_token_lut[prev]).to(torch.float64)
                byte_count += tb.sum()
    return _loss_bpb(loss_sum, token_count, byte_count)
"""
# A scorer whose loop over the validation tokens is the program's own.
SCORER = """
def eval_x(h, device, val_data, base_model, extra=None):
    total = val_data.val_tokens.numel() - 1
    loss_sum = torch.zeros((), dtype=torch.float64); tokens = torch.zeros((), dtype=torch.float64); nbytes = torch.zeros((), dtype=torch.float64)
%s
    return _loss_bpb(loss_sum, tokens, nbytes)
"""
TIMED = 'timed_eval("x", eval_x, args, device, val_data, eval_model)'
BOOK = """loss_sum += nll.double().sum(); tokens += float(y.numel()); nbytes += val_data.base_bytes_lut[y].double().sum()"""


def scorer(loop: str) -> str:
    """The functions of a scorer, given its loop."""
    return SCORER % loop


HOOK = """    args.quantized_model_path = "final.ptz"
    val_data = ValidationData(args, device)
    %s
    serialize(args, base_model)
    eval_model = deserialize(args, device)
    timed_eval("quantized_sliding_window", eval_sliding, args, device, val_data, eval_model, forward_logits_fn=torch.compile(eval_model.forward_logits))
    %s
"""
PRE = """
def prequant_adapt(h, base_model, device, val_tokens, rank, world_size):
    total_seqs = (val_tokens.numel() - 1) // 1024
    params = [p for p in base_model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=5e-4, weight_decay=0.0)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
    for epoch in range(h.ttt_epochs):
        for bs in range(rank, total_seqs, 32):
            be = min(bs + 32, total_seqs)
            local = val_tokens[bs * 1024 : be * 1024 + 1].to(device, dtype=torch.int64)
            x = local[:-1].reshape(-1, 1024)
            y = local[1:].reshape(-1, 1024)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device_type="cuda", dtype=torch.bfloat16):
                loss = base_model(x, y)
            loss.backward()
            for p in params:
                if p.grad is not None:
                    p.grad.div_(world_size)
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            if torch.isfinite(loss):
                optimizer.step()
        sched.step()
"""
LATE: list[Program] = []
REVIEWED: list[Program] = []  # what never got a ruling


def add(rule: str, name: str, functions: str, main: str, *, review: bool = False) -> None:
    (REVIEWED if review else LATE).append(Program(rule, name, SERIALIZE + functions, main))


add("", "honest late script", "", HOOK % ("pass", "pass"))
add(
    "I1",
    "prequant through serialize",
    PRE,
    HOOK % ("prequant_adapt(args, base_model, device, val_data.val_tokens, 0, 8)", "pass"),
)
SLIDE_TTT = """
def eval_ttt(h, device, val_data, base_model, batch_seqs=32):
    stats = {"loss": 0.0, "bytes": 0.0, "tokens": 0}
    total = val_data.val_tokens.numel() - 1
    chunk_tokens = 32768
    num_chunks = (total + chunk_tokens - 1) // chunk_tokens
    chunk_windows = [[] for _ in range(num_chunks)]
    for ws in range(0, total, 64):
        chunk_windows[min(ws // chunk_tokens, num_chunks - 1)].append(ws)
    params = [p for p in base_model.parameters()]
    optimizer = torch.optim.SGD(params, lr=0.005, momentum=0.9)
    for ci in range(num_chunks):
        windows = chunk_windows[ci]
        if not windows:
            continue
        chunk_start, chunk_end = ci * chunk_tokens, min((ci + 1) * chunk_tokens, total)
        %s
    return stats["loss"] / stats["tokens"], stats["loss"] / math.log(2.0) / stats["bytes"]
"""
SC = """base_model.eval()
        with torch.no_grad():
            for bi in range(0, len(windows), batch_seqs):
                xs = torch.stack([val_data.val_tokens[w : w + 1024] for w in windows[bi : bi + batch_seqs]]).long()
                ys = torch.stack([val_data.val_tokens[w + 1 : w + 1025] for w in windows[bi : bi + batch_seqs]]).long()
                nll = F.cross_entropy(base_model.forward_logits(xs).float().transpose(1, 2), ys, reduction="none")
                stats["loss"] += nll[:, 960:].double().sum().item()
                stats["tokens"] += ys[:, 960:].numel()
                stats["bytes"] += val_data.base_bytes_lut[ys[:, 960:]].sum().item()
"""
TR = """        is_last = ci == num_chunks - 1
        if not is_last and h.ttt_epochs > 0:
            base_model.train()
            for ep in range(h.ttt_epochs):
                for s in range(chunk_start, chunk_end, 2048):
                    local = val_data.val_tokens[s : s + 2049].to(device)
                    xt, yt = local[:-1][None], local[1:][None]
                    optimizer.zero_grad(set_to_none=True)
                    loss = base_model(xt, yt)
                    loss.backward()
                    optimizer.step()
"""
T2 = 'timed_eval("ttt", eval_ttt, args, device, val_data, eval_model)'
add("", "honest chunk ttt", SLIDE_TTT % (SC + TR), HOOK % ("pass", T2))
add("I1", "chunk ttt wrong order", SLIDE_TTT % (TR.strip() + "\n        " + SC), HOOK % ("pass", T2))
PHASED = """
class BatchedLoRA(nn.Module):
    def __init__(self, bsz, model, rank):
        super().__init__()
        self.bsz = bsz
        self.A = nn.Parameter(torch.randn(bsz, 512, rank))
        self.B = nn.Parameter(torch.zeros(bsz, rank, 1024))
    def reset(self):
        with torch.no_grad():
            self.B.zero_()
    def forward(self, h):
        return torch.bmm(torch.bmm(h, self.A), self.B)
def forward_ttt(model, x, y, lora):
    h = model.tok_emb(x)
    for b in model.blocks:
        h = b(h)
    logits = model.head(h) + lora(h)
    return F.cross_entropy(logits.float().reshape(-1, 1024), y.reshape(-1), reduction="none").reshape(x.shape)
def _accumulate(ptl, x, y, off, ln, lut, loss_sum, byte_sum, count):
    pos = torch.arange(x.size(1))[None]
    mask = ((pos >= off[:, None]) & (pos < (off + ln)[:, None])).to(torch.float64)
    loss_sum += (ptl.to(torch.float64) * mask).sum()
    byte_sum += (lut[y].to(torch.float64) * mask).sum()
    count += ln.to(torch.float64).sum()
def global_sgd(h, model, tokens, device):
    opt = torch.optim.SGD([p for p in model.parameters()], lr=1e-3, momentum=0.9)
    n = tokens.numel() - 1
    for s in range(0, n, 32768):
        local = tokens[s : s + 32769].to(device)
        x, y = local[:-1][None], local[1:][None]
        opt.zero_grad()
        model(x, y).backward()
        opt.step()
def eval_phased(h, base_model, device, val_data):
    for p in base_model.parameters():
        p.requires_grad_(False)
    all_tokens = val_data.val_tokens
    bos = (all_tokens == 1).nonzero(as_tuple=True)[0].tolist()
    docs = [(a, b - a) for a, b in zip(bos[:-1], bos[1:])]
    batches = [docs[i : i + 64] for i in range(0, len(docs), 64)]
    loss_sum = torch.zeros((), dtype=torch.float64)
    byte_sum = torch.zeros((), dtype=torch.float64)
    count = torch.zeros((), dtype=torch.float64)
    lora = BatchedLoRA(64, base_model, 96)
    opt = torch.optim.AdamW(lora.parameters(), lr=1e-4)
    qi = 0
    done_docs = 0
    global_done = False
    while True:
        if qi >= len(batches):
            break
        batch = batches[qi]
        qi += 1
        lora.reset()
        nc = max((l + 63) // 64 for _, l in batch)
        for ci in range(nc):
            starts = torch.zeros(64, dtype=torch.int64)
            off = torch.zeros(64, dtype=torch.int64)
            ln = torch.zeros(64, dtype=torch.int64)
            for b, (ds, dl) in enumerate(batch):
                starts[b] = ds + max(0, ci * 64 - 1984)
                off[b] = min(ci * 64, 1984)
                ln[b] = min(64, dl - ci * 64)
            idx = starts[:, None] + torch.arange(2049)[None]
            got = all_tokens[idx.clamp_(max=all_tokens.numel() - 1)].to(device)
            x = torch.where(idx[:, :2048] >= 0, got[:, :2048], 0)
            y = torch.where(idx[:, :2048] >= 0, got[:, 1:2049], 0)
            %s
        done_docs += len(batch)
        if not global_done and done_docs >= 2000:
            prefix = torch.cat([all_tokens[a : a + l] for a, l in docs[:done_docs]])
            for p in base_model.parameters():
                p.requires_grad_(True)
            global_sgd(h, base_model, prefix, device)
            global_done = True
    return _loss_bpb(loss_sum, count, byte_sum)
"""
A = """ptl = forward_ttt(base_model, x, y, lora)
            with torch.no_grad():
                _accumulate(ptl, x, y, off, ln, val_data.base_bytes_lut, loss_sum, byte_sum, count)
            if ci < nc - 1:
                for gi in range(1):
                    if gi > 0:
                        ptl = forward_ttt(base_model, x, y, lora)
                    opt.zero_grad(set_to_none=True)
                    ptl.mean().backward()
                    opt.step()"""
B = """for gi in range(2):
                ptl = forward_ttt(base_model, x, y, lora)
                opt.zero_grad(set_to_none=True)
                ptl.mean().backward()
                opt.step()
            with torch.no_grad():
                ptl = forward_ttt(base_model, x, y, lora)
                _accumulate(ptl, x, y, off, ln, val_data.base_bytes_lut, loss_sum, byte_sum, count)"""
T3 = 'timed_eval("ttt_phased", eval_phased, args, eval_model, device, val_data)'
add("", "honest phased", PHASED % A, HOOK % ("pass", T3))
add("I1", "phased, adapters first", PHASED % B, HOOK % ("pass", T3))
GL = """
def eval_global(h, base_model, device, val_data):
    global_sgd(h, base_model, val_data.val_tokens, device)
    return eval_phased(h, base_model, device, val_data)
"""
add("I1", "global sgd on all, then phased", PHASED % A + GL, HOOK % ("pass", T3.replace("eval_phased", "eval_global")))
SLOT = """
def eval_slot(h, device, val_data, base_model):
    total = val_data.val_tokens.numel() - 1
    loss_sum = torch.zeros((), dtype=torch.float64); tokens = torch.zeros((), dtype=torch.float64); nbytes = torch.zeros((), dtype=torch.float64)
    for ws in range(0, total, 64):
        chunk = val_data.val_tokens[ws : ws + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        s = 0 if ws == 0 else 960
        with torch.no_grad():
            hidden = base_model.tok_emb(x)
            for blk in base_model.blocks:
                hidden = blk(hidden)
        delta = torch.zeros(1, 1, hidden.size(-1), device=device, requires_grad=True)
        logit_bias = torch.zeros(1, 1, 1024, device=device, requires_grad=True)
        mask = torch.zeros(1, 1024)
        %s
        slot_opt = torch.optim.AdamW([delta, logit_bias], lr=0.008)
        for _ in range(16):
            slot_opt.zero_grad()
            logits = base_model.head(hidden + delta) + logit_bias
            nll = F.cross_entropy(logits.view(-1, 1024), y.view(-1), reduction="none").view(1, -1)
            (nll * mask).sum().div(mask.sum()).backward()
            slot_opt.step()
        with torch.no_grad():
            logits = base_model.head(hidden + delta) + logit_bias
            nll = F.cross_entropy(logits.view(-1, 1024), y.view(-1), reduction="none").view(1, -1)
        loss_sum += nll[:, s:].double().sum()
        tokens += float(1024 - s)
        nbytes += val_data.base_bytes_lut[y[:, s:]].double().sum()
    return _loss_bpb(loss_sum, tokens, nbytes)
"""
T4 = 'timed_eval("slot", eval_slot, args, device, val_data, eval_model)'
add("I8", "slot masked to scored", SLOT % "mask[:, s:] = 1.0", HOOK % ("pass", T4))
add("I8", "a vector fitted to the context alone", SLOT % "mask[:, :s] = 1.0", HOOK % ("pass", T4), review=True)
NG = """
def eval_ngram(h, device, val_data, base_model):
    tokens_np = val_data.val_tokens.cpu().numpy().astype(np.int64)
    total = len(tokens_np) - 1
    BUCKETS = 1 << 22
    mask = np.uint64(BUCKETS - 1)
    primes = np.array([36313, 27191, 51647, 81929, 131071], dtype=np.uint64)
    ctx_tables = {n: np.zeros(BUCKETS, dtype=np.uint32) for n in range(2, 8)}
    full_tables = {n: np.zeros(BUCKETS, dtype=np.uint32) for n in range(2, 8)}
    loss_sum, token_count, byte_sum = 0.0, 0.0, 0.0
    for ci in range(0, total, 32768):
        end = min(ci + 32768, total)
        x = val_data.val_tokens[ci:end][None].to(device)
        y = val_data.val_tokens[ci + 1 : end + 1][None].to(device)
        with torch.no_grad():
            logits = base_model.forward_logits(x).float()
            nll = F.cross_entropy(logits.view(-1, 1024), y.view(-1), reduction="none")
            probs = logits.softmax(-1)
            entropy = -(probs * probs.log()).sum(-1).view(-1).cpu().numpy()
        seg_nll = nll.cpu().numpy().astype(np.float64)
        seg_model_p = np.exp(-seg_nll)
        global_j = np.arange(ci + 1, end + 1, dtype=np.int64)
        p_ng = np.zeros(len(global_j))
        has = np.zeros(len(global_j), dtype=bool)
        for n in range(7, 1, -1):
            valid = global_j >= n - 1
            v_idx = np.nonzero(valid & ~has)[0]
            jv = global_j[v_idx]
            ctx_hash = np.zeros(len(jv), dtype=np.uint64)
            for k in range(n - 1):
                tok = tokens_np[jv - (n - 1 - k)].astype(np.uint64)
                ctx_hash ^= tok * primes[k %% len(primes)]
            ctx_key = (ctx_hash & mask).astype(np.int64)
            %s
        alpha = 0.05 + 0.55 / (1.0 + np.exp(-2.0 * (entropy - 4.0)))
        mixed = np.where(has, (1 - alpha) * seg_model_p + alpha * p_ng, seg_model_p)
        seg_nll = -np.log(np.clip(mixed, 1e-12, 1.0))
        loss_sum += float(seg_nll.sum())
        token_count += float(len(global_j))
        byte_sum += float(val_data.base_bytes_lut[y].double().sum())
        for n in range(2, 8):
            keys = (tokens_np[global_j - 1].astype(np.uint64) * primes[0]) & mask
            np.add.at(ctx_tables[n], keys.astype(np.int64), 1)
            fk = ((tokens_np[global_j - 1].astype(np.uint64) * primes[0]) ^ (tokens_np[global_j].astype(np.uint64) * primes[4])) & mask
            np.add.at(full_tables[n], fk.astype(np.int64), 1)
    val_loss = loss_sum / token_count
    return val_loss, val_loss / math.log(2.0) * (token_count / byte_sum)
"""
NGB = """tgt_np = tokens_np[jv].astype(np.uint64)
            full_key = ((ctx_hash ^ (tgt_np * primes[(n - 1) %% len(primes)])) & mask).astype(np.int64)
            ctx_counts = ctx_tables[n][ctx_key].astype(np.float64)
            full_counts = full_tables[n][full_key].astype(np.float64)
            can = ctx_counts >= 2
            hit = v_idx[can]
            p_ng[hit] = np.clip(np.minimum(full_counts, ctx_counts)[can] / np.maximum(ctx_counts[can], 1.0), 0.0, 1.0)
            has[hit] = True""".replace("%%", "%")
T5 = 'timed_eval("ngram", eval_ngram, args, device, val_data, eval_model)'
add("I5", "ngram backoff", (NG % NGB), HOOK % ("pass", T5))
PPM = """
def _ppm_mix(target_ids, prev_ids, nll, token_bytes, has_space, is_boundary, order=5):
    counts = {}
    hist = bytearray()
    total_bits, total_bytes = 0.0, 0
    for i in range(len(target_ids)):
        tid = int(target_ids[i]); pid = int(prev_ids[i])
        bs = token_bytes[tid]
        if has_space[tid] and not is_boundary[pid]:
            bs = b" " + bs
        if not bs:
            total_bits += nll[i] / math.log(2.0)
            continue
        per_byte = -nll[i] / len(bs)
        for b in bs:
            lp = math.log(1 / 256)
            conf = 0.0
            for k in range(order, 0, -1):
                ctx = bytes(hist[-k:])
                d = counts.get((k, ctx))
                if d:
                    tot = sum(d.values())
                    conf = max(d.values()) / tot
                    if b in d:
                        lp = math.log(d[b] / (tot + len(d)))
                        break
            lam = 0.05 if conf >= 0.9 else 0.9
            mixed = np.logaddexp(math.log(lam) + per_byte, math.log(1 - lam) + lp)
            total_bits -= mixed / math.log(2.0)
            total_bytes += 1
            for k in range(1, order + 1):
                d = counts.setdefault((k, bytes(hist[-k:])), {})
                d[b] = d.get(b, 0) + 1
            hist.append(b)
    return total_bits / total_bytes
def eval_ppm(h, device, val_data, base_model):
    all_nll, all_tgt, all_prev = [], [], []
    total = val_data.val_tokens.numel() - 1
    loss_sum = torch.zeros((), dtype=torch.float64); tokens = torch.zeros((), dtype=torch.float64); nbytes = torch.zeros((), dtype=torch.float64)
    with torch.inference_mode():
        for s in range(0, total, 1024):
            chunk = val_data.val_tokens[s : s + 1025].to(device)
            x, y = chunk[:-1][None], chunk[1:][None]
            nll = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
            loss_sum += nll.double().sum(); tokens += float(y.numel()); nbytes += val_data.base_bytes_lut[y].double().sum()
            all_nll.append(nll.cpu().numpy()); all_tgt.append(y.view(-1).cpu().numpy()); all_prev.append(x.view(-1).cpu().numpy())
    sp = spm.SentencePieceProcessor(model_file="x")
    tb = [sp.id_to_piece(i).replace("\\u2581", "").encode("utf-8") for i in range(1024)]
    mix = _ppm_mix(np.concatenate(all_tgt), np.concatenate(all_prev), np.concatenate(all_nll), tb, val_data.has_leading_space_lut.numpy(), val_data.is_boundary_token_lut.numpy())
    print("ppm_mix_bpb", mix)
    vl, vb = _loss_bpb(loss_sum, tokens, nbytes)
    return vl, mix
"""
T6 = 'timed_eval("ppm", eval_ppm, args, device, val_data, eval_model)'
add("I7", "ppm late style", PPM, HOOK % ("pass", T6))
TWOP = """
def eval_two_pass(h, device, val_data, base_model):
    toks = val_data.val_tokens.numpy().astype(np.int64)
    total = len(toks) - 1
    nlls = np.zeros(total);
    with torch.no_grad():
        for s in range(0, total, 1024):
            chunk = val_data.val_tokens[s : s + 1025].to(device)
            x, y = chunk[:-1][None], chunk[1:][None]
            nlls[s : s + 1024] = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none").cpu().numpy()
    first = nlls.sum() / math.log(2.0) / float(val_data.base_bytes_lut[val_data.val_tokens[1:]].sum())
    print("pass1", first)
    h1 = (toks[:-1] * 36313) % (1 << 20)
    h2 = ((toks[:-1] * 36313) ^ (toks[1:] * 27191)) % (1 << 20)
    c1 = np.bincount(h1, minlength=1 << 20)
    c2 = np.bincount(h2, minlength=1 << 20)
    p = np.exp(-nlls)
    png = c2[h2] / np.maximum(c1[h1], 1)
    final = -np.log(0.7 * p + 0.3 * png)
    val_loss = final.sum() / total
    return val_loss, final.sum() / math.log(2.0) / float(val_data.base_bytes_lut[val_data.val_tokens[1:]].sum())
"""
add(
    "I4",
    "two pass vectorised",
    TWOP,
    HOOK % ("pass", 'timed_eval("two", eval_two_pass, args, device, val_data, eval_model)'),
)
TEMP = """
def pick_temperature(model, val_tokens, device):
    best_t, best_loss = 1.0, float("inf")
    for t in [0.9, 0.95, 1.0, 1.05, 1.1]:
        total, n = 0.0, 0
        for s in range(0, val_tokens.numel() - 1, 4096):
            c = val_tokens[s : s + 4097].to(device)
            x, y = c[:-1][None], c[1:][None]
            l = F.cross_entropy(model.forward_logits(x).view(-1, 1024) / t, y.view(-1))
            total += l.item() * y.numel(); n += y.numel()
        if total / n < best_loss:
            best_loss = total / n
            best_t = t
    return best_t
def eval_temp(h, device, val_data, base_model, t):
    total = val_data.val_tokens.numel() - 1
    loss_sum = torch.zeros((), dtype=torch.float64); tokens = torch.zeros((), dtype=torch.float64); nbytes = torch.zeros((), dtype=torch.float64)
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        nll = F.cross_entropy(base_model.forward_logits(x).view(-1, 1024) / t, y.view(-1), reduction="none")
        loss_sum += nll.double().sum(); tokens += float(y.numel()); nbytes += val_data.base_bytes_lut[y].double().sum()
    return _loss_bpb(loss_sum, tokens, nbytes)
"""
add(
    "I10",
    "temperature chosen on val",
    TEMP,
    HOOK
    % (
        "pass",
        't = pick_temperature(eval_model, val_data.val_tokens, device)\n    timed_eval("temp", eval_temp, args, device, val_data, eval_model, t)',
    ),
)
FUNC = """
def eval_functional(h, device, val_data, base_model):
    params = dict(base_model.named_parameters())
    total = val_data.val_tokens.numel() - 1
    loss_sum = 0.0; nbytes = 0.0; n = 0
    for s in range(0, total, 1024):
        chunk = val_data.val_tokens[s : s + 1025].to(device)
        x, y = chunk[:-1][None], chunk[1:][None]
        %s
    return loss_sum / n, loss_sum / math.log(2.0) / nbytes
"""
F1 = """loss = torch.func.functional_call(base_model, params, (x, y))
        grads = torch.autograd.grad(loss, list(params.values()))
        params = {k: v - 1e-3 * g for (k, v), g in zip(params.items(), grads)}
"""
F2 = """loss = torch.func.functional_call(base_model, params, (x, y))
        loss_sum += loss.item() * y.numel(); n += y.numel(); nbytes += val_data.base_bytes_lut[y].sum().item()
"""
TF = 'timed_eval("f", eval_functional, args, device, val_data, eval_model)'
add("I1", "functional, step first", FUNC % (F1 + "        " + F2), HOOK % ("pass", TF))
add("", "functional, score first", FUNC % (F2 + "        " + F1), HOOK % ("pass", TF))
DS = """
class ValDataset(torch.utils.data.Dataset):
    def __init__(self, pattern, seq_len):
        self.tokens = load_validation_tokens(pattern, seq_len)
        self.seq_len = seq_len
    def __len__(self):
        return (self.tokens.numel() - 1) // self.seq_len
    def __getitem__(self, i):
        c = self.tokens[i * self.seq_len : (i + 1) * self.seq_len + 1]
        return c[:-1].long(), c[1:].long()
def finetune(model, loader, epochs):
    opt = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for e in range(epochs):
        for xb, yb in loader:
            opt.zero_grad(); model(xb.cuda(), yb.cuda()).backward(); opt.step()
def score(model, loader, lut):
    tot, nb = 0.0, 0
    with torch.no_grad():
        for xb, yb in loader:
            l = F.cross_entropy(model.forward_logits(xb.cuda()).view(-1, 1024), yb.cuda().view(-1), reduction="sum")
            tot += l.item(); nb += lut[yb].sum().item()
    return tot, tot / math.log(2) / nb
"""
add(
    "I1",
    "dataset and loader",
    DS,
    HOOK
    % (
        "dl = torch.utils.data.DataLoader(ValDataset(args.val_files, 1024), batch_size=8)\n    finetune(base_model, dl, 2)",
        'timed_eval("x", score, eval_model, dl, val_data.base_bytes_lut)',
    ),
)
add(
    "",
    "dataset and loader honest",
    DS,
    HOOK
    % (
        "dl = torch.utils.data.DataLoader(ValDataset(args.val_files, 1024), batch_size=8)",
        'timed_eval("x", score, eval_model, dl, val_data.base_bytes_lut)',
    ),
)
