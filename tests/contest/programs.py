# ruff: noqa: E501 (the programs and logs of entries stand here as entrants write them)
"""Programs in the styles that entrants use: each breaks one rule, or looks like it and is honest.

A program is a template of a training script with one technique put into it. ``monolith`` makes it 1,500 lines long,
``packed`` a shim around compressed code, ``helper`` puts the technique into a file beside train_gpt.py, and ``switched``
behind a flag that is on by default.
"""

from __future__ import annotations

import base64
import lzma
import textwrap
from dataclasses import dataclass

BASE = r"""
import os, glob, math, time, io
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, Tensor
import sentencepiece as spm
class Hyperparameters:
    data_path = os.environ.get("DATA_PATH", "./data/datasets/fineweb10B_sp1024")
    train_files = os.path.join(data_path, "fineweb_train_*.bin")
    val_files = os.path.join(data_path, "fineweb_val_*.bin")
    iterations = int(os.environ.get("ITERATIONS", 20000))
    max_wallclock_seconds = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))
    ttt_enabled = bool(int(os.environ.get("TTT_ENABLED", "1")))
    ttt_epochs = int(os.environ.get("TTT_EPOCHS", 3))
    ttt_lr = 0.002
    train_seq_len = 1024
    stride = 64
def load_data_shard(file):
    header = np.fromfile(file, dtype="<i4", count=256)
    return torch.from_numpy(np.fromfile(file, dtype="<u2", count=int(header[2]), offset=1024))
def load_validation_tokens(pattern, seq_len):
    files = [p for p in sorted(glob.glob(pattern))]
    tokens = torch.cat([load_data_shard(f) for f in files]).contiguous()
    usable = ((tokens.numel() - 1) // seq_len) * seq_len
    return tokens[: usable + 1]
class TokenStream:
    def __init__(self, pattern):
        self.files = [p for p in sorted(glob.glob(pattern))]
        self.file_idx = 0
        self.tokens = load_data_shard(self.files[0])
        self.pos = 0
    def _advance_file(self):
        self.file_idx = (self.file_idx + 1) % len(self.files)
        self.tokens = load_data_shard(self.files[self.file_idx])
        self.pos = 0
    def take(self, n):
        chunks = []
        remaining = n
        while remaining > 0:
            avail = self.tokens.numel() - self.pos
            if avail <= 0:
                self._advance_file()
                continue
            k = min(remaining, avail)
            chunks.append(self.tokens[self.pos : self.pos + k])
            self.pos += k
            remaining -= k
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)
class DistributedTokenLoader:
    def __init__(self, pattern, rank, world_size, device):
        self.rank = rank; self.device = device
        self.stream = TokenStream(pattern)
    def next_batch(self, global_tokens, seq_len, accum):
        chunk = self.stream.take(global_tokens)
        local = chunk[: global_tokens].to(dtype=torch.int64)
        x = local[:-1].reshape(-1, seq_len)
        y = local[1:].reshape(-1, seq_len)
        return x.to(self.device), y.to(self.device)
class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc = nn.Linear(dim, 4 * dim, bias=False)
        self.proj = nn.Linear(4 * dim, dim, bias=False)
        self.scale = nn.Parameter(torch.ones(dim))
    def forward(self, x):
        return x + self.scale * self.proj(torch.relu(self.fc(x)).square())
class GPT(nn.Module):
    def __init__(self, vocab, dim, n):
        super().__init__()
        self.tok_emb = nn.Embedding(vocab, dim)
        self.blocks = nn.ModuleList([Block(dim) for _ in range(n)])
        self.head = nn.Linear(dim, vocab, bias=False)
    def forward_logits(self, ids):
        x = self.tok_emb(ids)
        for block in self.blocks:
            x = block(x)
        return 30.0 * torch.tanh(self.head(x) / 30.0)
    def forward(self, ids, targets):
        logits = self.forward_logits(ids)
        return F.cross_entropy(logits.reshape(-1, logits.size(-1)).float(), targets.reshape(-1))
def build_sentencepiece_luts(sp, vocab_size, device):
    base_bytes_np = np.zeros((vocab_size,), dtype=np.int16)
    has_leading_space_np = np.zeros((vocab_size,), dtype=np.bool_)
    is_boundary_token_np = np.ones((vocab_size,), dtype=np.bool_)
    for token_id in range(int(sp.vocab_size())):
        if sp.is_control(token_id) or sp.is_unknown(token_id) or sp.is_unused(token_id):
            continue
        is_boundary_token_np[token_id] = False
        if sp.is_byte(token_id):
            base_bytes_np[token_id] = 1
            continue
        piece = sp.id_to_piece(token_id)
        if piece.startswith("\u2581"):
            has_leading_space_np[token_id] = True
            piece = piece[1:]
        base_bytes_np[token_id] = len(piece.encode("utf-8"))
    return torch.tensor(base_bytes_np), torch.tensor(has_leading_space_np), torch.tensor(is_boundary_token_np)
def eval_val(args, model, rank, world_size, device, val_tokens, base_bytes_lut, has_leading_space_lut, is_boundary_token_lut):
    seq_len = args.train_seq_len
    total_seqs = (val_tokens.numel() - 1) // seq_len
    val_loss_sum = torch.zeros((), device=device, dtype=torch.float64)
    val_token_count = torch.zeros((), device=device, dtype=torch.float64)
    val_byte_count = torch.zeros((), device=device, dtype=torch.float64)
    model.eval()
    with torch.inference_mode():
        for batch_seq_start in range(0, total_seqs, 8):
            raw_start = batch_seq_start * seq_len
            raw_end = (batch_seq_start + 8) * seq_len + 1
            local = val_tokens[raw_start:raw_end].to(device=device, dtype=torch.int64)
            x = local[:-1].reshape(-1, seq_len)
            y = local[1:].reshape(-1, seq_len)
            batch_loss = model(x, y).detach()
            n = float(y.numel())
            val_loss_sum += batch_loss.to(torch.float64) * n
            val_token_count += n
            prev_ids = x.reshape(-1)
            tgt_ids = y.reshape(-1)
            token_bytes = base_bytes_lut[tgt_ids].to(dtype=torch.int16)
            token_bytes += (has_leading_space_lut[tgt_ids] & ~is_boundary_token_lut[prev_ids]).to(dtype=torch.int16)
            val_byte_count += token_bytes.to(torch.float64).sum()
    val_loss = val_loss_sum / val_token_count
    bits_per_token = val_loss.item() / math.log(2.0)
    tokens_per_byte = val_token_count.item() / val_byte_count.item()
    model.train()
    return float(val_loss.item()), float(bits_per_token * tokens_per_byte)
"""

MAIN = r"""
def main():
    args = Hyperparameters()
    device = torch.device("cuda")
    sp = spm.SentencePieceProcessor(model_file="x.model")
    val_tokens = load_validation_tokens(args.val_files, args.train_seq_len)
    luts = build_sentencepiece_luts(sp, 1024, device)
    base_bytes_lut, has_leading_space_lut, is_boundary_token_lut = luts
    base_model = GPT(1024, 512, 9).to(device).bfloat16()
    compiled = torch.compile(base_model, dynamic=False)
    model = compiled
    matrix_params = [p for name, p in base_model.blocks.named_parameters() if p.ndim == 2]
    optimizer_a = torch.optim.Adam([{"params": [base_model.tok_emb.weight], "lr": 0.1}], betas=(0.9, 0.95))
    optimizer_m = torch.optim.AdamW(matrix_params, lr=0.02)
    optimizers = [optimizer_a, optimizer_m]
    train_loader = DistributedTokenLoader(args.train_files, 0, 8, device)
    max_wallclock_ms = 1000.0 * args.max_wallclock_seconds
    t0 = time.perf_counter()
    step = 0
    stop_after_step = None
    while True:
        last_step = step == args.iterations or (stop_after_step is not None and step >= stop_after_step)
        if last_step or step % 1000 == 0:
            val_loss, val_bpb = eval_val(args, model, 0, 8, device, val_tokens, base_bytes_lut, has_leading_space_lut, is_boundary_token_lut)
            print(f"step:{step}/{args.iterations} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f}")
        if last_step:
            break
        for opt in optimizers:
            opt.zero_grad(set_to_none=True)
        for micro in range(1):
            x, y = train_loader.next_batch(524288, args.train_seq_len, 1)
            loss = model(x, y)
            loss.backward()
        for opt in optimizers:
            opt.step()
        step += 1
        elapsed = 1000.0 * (time.perf_counter() - t0)
        if stop_after_step is None and elapsed >= max_wallclock_ms:
            stop_after_step = step
    sd = base_model.state_dict()
    quant = {k: torch.round(v.float() * 31) for k, v in sd.items()}
    buf = io.BytesIO()
    torch.save(quant, buf)
    with open("final_model.int8.ptz", "wb") as f:
        f.write(buf.getvalue())
    with open("final_model.int8.ptz", "rb") as f:
        blob = f.read()
    state = torch.load(io.BytesIO(blob), map_location="cpu")
    base_model.load_state_dict({k: v / 31 for k, v in state.items()}, strict=True)
#TECHNIQUE
if __name__ == "__main__":
    main()
"""

SCORE = """    val_loss, val_bpb = eval_val(args, base_model, 0, 8, device, val_tokens, base_bytes_lut, has_leading_space_lut, is_boundary_token_lut)
    print(f"final_int8_zlib_roundtrip_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}")
"""
HEAD = """
def eval_technique(args, model, val_tokens, device, base_bytes_lut, extra=None):
    loss_sum = 0.0
    byte_sum = 0.0
    n = 0
    total = val_tokens.numel() - 1
"""
FOOT = """
    return loss_sum / n, (loss_sum / n) / math.log(2.0) * (n / byte_sum)
"""
CALL = """    val_loss, val_bpb = eval_technique(args, base_model, val_tokens, device, base_bytes_lut, {extra})
    print(f"final_int8_zlib_roundtrip_exact val_loss:{{val_loss:.8f}} val_bpb:{{val_bpb:.8f}}")
"""
CHUNK = """    for ci in range(0, total, 1024):
        local = val_tokens[ci : ci + 1025].to(device)
        x, y = local[:-1][None], local[1:][None]
"""
BOOK = """        loss_sum += nll.sum().item()
        byte_sum += base_bytes_lut[y].sum().item()
        n += y.numel()
"""
NLL = """        nll = F.cross_entropy(model.forward_logits(x).view(-1, 1024), y.view(-1), reduction="none")
"""
PROBS = """        probs = torch.softmax(model.forward_logits(x).float(), -1)[0]
        for j in range(1024):
"""
BOOK_ONE = """            loss_sum += -math.log(p)
            byte_sum += float(base_bytes_lut[y[0, j]])
            n += 1
"""


@dataclass(frozen=True)
class Program:
    """A technique: functions, the statements of main that use them, and the rule that it breaks, or '' if it is honest."""

    rule: str
    name: str
    functions: str
    main: str
    loader: str = "args.train_files"
    near: str = ""  # of an honest program: the rule that it looks like breaking


def evaluation(
    rule: str, name: str, body: str, extra: str = "None", before: str = "", main: str = "", near: str = ""
) -> Program:
    """A program whose technique is the body of its evaluation."""
    return Program(rule, name, before + HEAD + body + FOOT, main + CALL.format(extra=extra), near=near)


def main(program: Program, technique: str = "") -> str:
    """The main function of a program."""
    text = MAIN.replace("DistributedTokenLoader(args.train_files,", f"DistributedTokenLoader({program.loader},")
    return text.replace("#TECHNIQUE\n", technique or program.main)


def script(program: Program) -> str:
    """The whole program in one file."""
    return BASE + program.functions + main(program)


def monolith(program: Program) -> dict[str, str]:
    """The program in 1,500 lines."""
    text = script(program)
    part = textwrap.dedent("""
        class Part{index}(nn.Module):
            def __init__(self, dim):
                super().__init__()
                self.up = nn.Linear(dim, dim * {width}, bias=False)
                self.down = nn.Linear(dim * {width}, dim, bias=False)
                self.gain = nn.Parameter(torch.ones(dim))

            def forward(self, x, scale=1.0):
                hidden = F.relu(self.up(x)).square()
                if self.training and scale != 1.0:
                    hidden = hidden * scale
                return x + self.gain * self.down(hidden)
    """)
    filler = [part.format(index=i, width=2 + i % 3) for i in range((1_500 - text.count("\n")) // 14)]
    return {"train_gpt.py": BASE + "\n".join(filler) + program.functions + main(program)}


def packed(program: Program) -> dict[str, str]:
    """The program as a shim: LZMA and base85 within an exec."""
    data = base64.b85encode(lzma.compress(script(program).encode())).decode()
    return {"train_gpt.py": f'import lzma as L,base64 as B\nexec(L.decompress(B.b85decode("{data}")))\n'}


def helper(program: Program) -> dict[str, str]:
    """The program with its technique in a file beside it."""
    names = [line.split("(")[0][4:] for line in program.functions.splitlines() if line.startswith("def ")]
    classes = [
        line.split("(")[0].split(":")[0][6:] for line in program.functions.splitlines() if line.startswith("class ")
    ]
    imports = f"from techniques import {', '.join([*names, *classes])}\n" if names + classes else ""
    top = "import math\nfrom collections import defaultdict\nimport numpy as np\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
    files = {"train_gpt.py": BASE + imports + main(program)}
    if imports:
        files["techniques.py"] = top + program.functions
    return files


def switched(program: Program) -> dict[str, str]:
    """The program with its technique behind a flag of the environment that is on by default."""
    flag = '    if bool(int(os.environ.get("USE_TECHNIQUE", "1"))):\n'
    inner = flag + textwrap.indent(program.main, "    ")
    return {"train_gpt.py": BASE + program.functions + main(program, inner)}


STYLES = {"monolith": monolith, "packed": packed, "helper": helper, "switched": switched}
