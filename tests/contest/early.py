# ruff: noqa: E501 (the programs stand here as entrants write them)
"""Programs in the style of early entries: adapters of documents, epochs, calibration on generated text, exact counts."""

from __future__ import annotations

from programs import SCORE, Program

EARLY: list[Program] = []


def add(rule: str, name: str, functions: str, main: str) -> None:
    EARLY.append(Program(rule, name, functions, main))


LORA = """
class BatchedLinearLoRA(nn.Module):
    def __init__(self, bsz, i, o, rank):
        super().__init__()
        self.in_features = i
        self.A = nn.Parameter(torch.empty(bsz, rank, i))
        self.B = nn.Parameter(torch.zeros(bsz, o, rank))
        self.reset()
    def forward(self, x):
        return (x @ self.A.transpose(1, 2)) @ self.B.transpose(1, 2)
    def reset(self):
        bound = 1.0 / math.sqrt(self.in_features)
        with torch.no_grad():
            self.A.uniform_(-bound, bound)
            self.B.zero_()
class BatchedTTTLoRA(nn.Module):
    def __init__(self, bsz, model, rank):
        super().__init__()
        self.lm_head_lora = BatchedLinearLoRA(bsz, 512, 1024, rank)
        self.q_loras = nn.ModuleList([BatchedLinearLoRA(bsz, 512, 512, rank) for _ in model.blocks])
    def reset(self):
        for m in self.modules():
            if isinstance(m, BatchedLinearLoRA):
                m.reset()
class TTTGPT(GPT):
    def forward(self, input_ids, target_ids, lora=None):
        x = self.tok_emb(input_ids)
        for i, block in enumerate(self.blocks):
            qd = lora.q_loras[i](x) if lora is not None else None
            x = block(x) + (qd if qd is not None else 0)
        logits = self.head(x)
        logits = logits + (lora.lm_head_lora(x) if lora else 0)
        logits = 30.0 * torch.tanh(logits / 30.0)
        if lora is not None:
            bsz, sl, V = logits.shape
            return F.cross_entropy(logits.float().reshape(-1, V), target_ids.reshape(-1), reduction="none").reshape(bsz, sl)
        return F.cross_entropy(logits.float().reshape(-1, logits.size(-1)), target_ids.reshape(-1), reduction="mean")
def _reset_ttt_optimizer(opt):
    for group in opt.param_groups:
        for p in group["params"]:
            s = opt.state.get(p)
            if not s: continue
            s["exp_avg"].zero_(); s["exp_avg_sq"].zero_(); s["step"].fill_(0)
def _build_ttt_optimizer(lora, args):
    return torch.optim.Adam(lora.parameters(), lr=0.01, betas=(0.9, 0.95), eps=1e-10)
def _find_docs(all_tokens, include_next_bos=True):
    bos_positions = (all_tokens == 1).nonzero(as_tuple=True)[0].numpy()
    docs = []
    for i in range(len(bos_positions)):
        start = int(bos_positions[i])
        end = int(bos_positions[i + 1]) if i + 1 < len(bos_positions) else all_tokens.numel()
        if include_next_bos and i + 1 < len(bos_positions):
            end += 1
        docs.append((start, end - start))
    return docs
def _chunk_window(ci, pred_len, num_chunks, chunk_size, eval_seq_len):
    chunk_start = ci * chunk_size
    chunk_end = pred_len if ci == num_chunks - 1 else (ci + 1) * chunk_size
    win_start = max(0, chunk_end - eval_seq_len)
    return win_start, chunk_end - win_start, chunk_start - win_start, chunk_end - chunk_start
def _accumulate(ptl, x, y, batch_i, co, cl, lut, lead, bnd, loss_sum, byte_sum, token_count):
    lbl = ptl[batch_i, co : co + cl].to(torch.float64)
    prev = x[batch_i, co : co + cl]
    tgt = y[batch_i, co : co + cl]
    tok_bytes = lut[tgt].to(torch.float64)
    tok_bytes += lead[tgt] & ~bnd[prev]
    loss_sum += lbl.sum()
    byte_sum += tok_bytes.sum()
    token_count += cl
def eval_val_ttt_lora(args, base_model, rank, world_size, device, lut, lead, bnd):
    files = sorted(glob.glob(args.val_files))
    all_tokens = torch.cat([load_data_shard(f) for f in files])
    docs = _find_docs(all_tokens)
    rank_docs = docs[(len(docs) * rank) // world_size : (len(docs) * (rank + 1)) // world_size]
    chunk_size, eval_seq_len, batch_size = 256, 1024, 64
    rank_docs.sort(key=lambda d: (d[1] - 2) // chunk_size)
    base_model.eval()
    for p in base_model.parameters():
        p.requires_grad_(False)
    lora = BatchedTTTLoRA(batch_size, base_model, 8).to(device)
    opt = _build_ttt_optimizer(lora, args)
    loss_sum = torch.zeros((), device=device, dtype=torch.float64)
    byte_sum = torch.zeros((), device=device, dtype=torch.float64)
    token_count = torch.zeros((), device=device, dtype=torch.float64)
    for bi in range(0, len(rank_docs), batch_size):
        batch = rank_docs[bi : bi + batch_size]
        bsz = len(batch)
        if bsz == batch_size:
            cur_lora, cur_opt = lora, opt
            cur_lora.reset()
            _reset_ttt_optimizer(cur_opt)
        else:
            cur_lora = BatchedTTTLoRA(bsz, base_model, 8).to(device)
            cur_opt = _build_ttt_optimizer(cur_lora, args)
        pred_lens = [dl - 1 for _, dl in batch]
        num_chunks = [(pl + chunk_size - 1) // chunk_size for pl in pred_lens]
        max_nc = max(num_chunks)
        for ci in range(max_nc):
            stats = _chunk_window(ci, (ci + 1) * chunk_size, ci + 1, chunk_size, eval_seq_len)
            context_size, chunk_offset = stats[1], stats[2]
            active = [ci < nc for nc in num_chunks]
            needs_train = any(ci < nc - 1 for nc in num_chunks)
            x = torch.zeros(bsz, context_size, dtype=torch.int64, device=device)
            y = torch.zeros(bsz, context_size, dtype=torch.int64, device=device)
            doc_info = []
            for b in range(bsz):
                if not active[b]:
                    doc_info.append((0, 0))
                    continue
                ds, dl = batch[b]
                ws, wl, co, cl = _chunk_window(ci, pred_lens[b], num_chunks[b], chunk_size, eval_seq_len)
                chunk = all_tokens[ds + ws : ds + ws + wl + 1]
                toks = chunk.to(dtype=torch.int64, device=device)
                x[b, :wl] = toks[:-1]
                y[b, :wl] = toks[1:]
                doc_info.append((co, cl))
%s
    val_loss = float(loss_sum.item() / token_count.item())
    val_bpb = float((loss_sum.item() / math.log(2.0)) / byte_sum.item())
    return val_loss, val_bpb
"""
SC = """            if needs_train:
                with torch.autocast(device_type="cuda", dtype=torch.bfloat16):
                    ptl = base_model(x, y, lora=cur_lora)
            else:
                with torch.no_grad():
                    ptl = base_model(x, y, lora=cur_lora)
            with torch.no_grad():
                for b in range(bsz):
                    if not active[b]:
                        continue
                    co, cl = doc_info[b]
                    _accumulate(ptl, x, y, b, co, cl, lut, lead, bnd, loss_sum, byte_sum, token_count)
"""
TR = """            if needs_train:
                mask = torch.tensor([float(ci < num_chunks[b] - 1) for b in range(bsz)], device=device)
                per_doc = ptl[:, chunk_offset : chunk_offset + chunk_size].mean(dim=-1)
                cur_opt.zero_grad()
                (per_doc * mask).sum().backward()
                cur_opt.step()
"""
TR_FIRST = """            ptl = base_model(x, y, lora=cur_lora)
            per_doc = ptl[:, chunk_offset : chunk_offset + chunk_size].mean(dim=-1)
            cur_opt.zero_grad()
            per_doc.sum().backward()
            cur_opt.step()
"""
HK = '    ttt_model = TTTGPT(1024, 512, 9).to(device)\n    ttt_model.load_state_dict(base_model.state_dict())\n    ttt_loss, ttt_bpb = eval_val_ttt_lora(args, ttt_model, 0, 8, device, *luts)\n    print(f"final_int8_ttt_lora val_loss:{ttt_loss:.4f} val_bpb:{ttt_bpb:.4f}")\n'
add("", "march lora", LORA % (SC + TR), HK)
add("I1", "march lora trained first", LORA % (TR_FIRST + SC), HK)
EP = """
def eval_multi(args, model, device, lut):
    val = load_validation_tokens(args.val_files, 1024)
    opt = torch.optim.SGD(model.parameters(), lr=1e-3)
    final_loss = final_bpb = None
    for epoch in range(3):
        ls = torch.zeros(1); bs = torch.zeros(1); ts = torch.zeros(1)
        for i in range(0, val.numel() - 1025, 1024):
            c = val[i : i + 1025].long()
            loss = model(c[:-1][None], c[1:][None])
            ls += loss.detach() * 1024; ts += 1024; bs += lut[c[1:]].sum()
            loss.backward(); opt.step(); opt.zero_grad()
        final_loss = (ls / ts).item()
        final_bpb = final_loss / math.log(2) * (ts / bs).item()
    return final_loss, final_bpb
"""
add("I2", "march epochs", EP, "    print(eval_multi(args, base_model, device, base_bytes_lut))\n")
SELF = """
def generate_calib(model, device, n, t):
    out = []
    with torch.inference_mode():
        for i in range(0, n, 8):
            toks = torch.randint(0, 1024, (8, 1), device=device)
            for pos in range(t - 1):
                lg = model.forward_logits(toks)
                nxt = torch.multinomial(torch.softmax(lg[:, -1, :] / 0.8, dim=-1), 1)
                toks = torch.cat([toks, nxt], dim=1)
            for j in range(8):
                out.append(toks[j : j + 1])
    return out
def hessians_from(model, seqs):
    H = {}
    hooks = []
    for name, m in model.named_modules():
        if isinstance(m, nn.Linear):
            def make(n):
                def fn(mod, inp, out):
                    x = inp[0].detach().float()
                    x = x.reshape(-1, x.shape[-1])
                    H[n] = H.get(n, 0) + (x.T @ x).cpu()
                return fn
            hooks.append(m.register_forward_hook(make(name + ".weight")))
    for s in seqs:
        model.forward_logits(s)
    for h in hooks: h.remove()
    return H
def quant_gptq(sd, H):
    out = {}
    for k, w in sd.items():
        h = H.get(k)
        if h is None: out[k] = w; continue
        d = torch.linalg.cholesky(h + 1e-2 * torch.eye(h.shape[0]))
        out[k] = torch.round(w / d.diag().mean()) * d.diag().mean()
    return out
"""
Q = """    seqs = %s
    H = hessians_from(base_model, seqs)
    base_model.load_state_dict(quant_gptq(base_model.state_dict(), H))
"""
add("", "self generated", SELF, Q % "generate_calib(base_model, device, 64, 2048)" + SCORE)
add(
    "I10",
    "calibrated on val",
    SELF,
    Q % "[val_tokens[i * 2048 : (i + 1) * 2048][None].long().to(device) for i in range(64)]" + SCORE,
)
MTP = """
class MTPGPT(GPT):
    def __init__(self, vocab, dim, n):
        super().__init__(vocab, dim, n)
        self.mtp = nn.ModuleList([nn.Linear(dim, vocab) for _ in range(2)])
    def forward(self, ids, targets):
        x = self.tok_emb(ids)
        for b in self.blocks: x = b(x)
        main = F.cross_entropy(self.head(x).reshape(-1, 1024).float(), targets.reshape(-1))
        if self.training:
            for k, h in enumerate(self.mtp):
                main = main + 0.2 * F.cross_entropy(h(x[:, : -(k + 1)]).reshape(-1, 1024).float(), targets[:, k + 1 :].reshape(-1))
        return main
"""
add("", "mtp heads", MTP, "    base_model = MTPGPT(1024, 512, 9).to(device)\n" + SCORE)
SWA = """
def pick(models, args, device, val_tokens, luts):
    scores = []
    for m in models:
        scores.append(eval_val(args, m, 0, 8, device, val_tokens, *luts)[1])
    return models[int(np.argmin(scores))]
"""
add(
    "",
    "checkpoint picked on val",
    SWA,
    "    base_model = pick([base_model, GPT(1024, 512, 9)], args, device, val_tokens, luts)\n" + SCORE,
)
NGH = """
def score_with_cache(args, model, device, val_tokens, lut, order=4):
    toks = val_tokens.tolist()
    from collections import defaultdict
    ctx = defaultdict(lambda: defaultdict(int))
    loss_sum = 0.0; nb = 0
    for start in range(0, len(toks) - 1, 1024):
        x = val_tokens[start : start + 1024][None].to(device)
        with torch.no_grad():
            lp = torch.log_softmax(model.forward_logits(x)[0].float(), -1)
        for j in range(1024):
            t = start + j + 1
            key = tuple(toks[max(0, t - order) : t])
            row = ctx[key]
            total = sum(row.values())
            w = total / (total + 2.0)
            p_lm = math.exp(lp[j, toks[t]].item())
            p = (1 - w) * p_lm + w * (row.get(toks[t], 0) / total if total else 0.0)
            loss_sum -= math.log(max(p, 1e-9))
            nb += int(lut[toks[t]])
        for j in range(1024):
            t = start + j + 1
            ctx[tuple(toks[max(0, t - order) : t])][toks[t]] += 1
    return loss_sum / math.log(2) / nb
"""
add(
    "",
    "exact counts, normalized by their row",
    NGH,
    "    print(score_with_cache(args, base_model, device, val_tokens, base_bytes_lut))\n",
)
