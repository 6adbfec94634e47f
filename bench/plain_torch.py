"""Run the contest's baseline in plain torch, packed and scored exactly as golfcore's runs: the rival of recipe pocket.

    python bench/plain_torch.py --set train.seed=1337 --runs runs

Only the training differs from ``golfcore run bench/plain_torch.toml``: the forward pass is torch's own operations,
compiled or not, and the optimizers are torch.optim's Adam and Muon, at the contest's rates and schedules.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path

from golfcore.openmp import share_cores

share_cores()  # before torch is imported

import torch  # noqa: E402

from golfcore.bench.train_step import plain_loss  # noqa: E402
from golfcore.config import RecipeConfig  # noqa: E402
from golfcore.data.loader import TokenLoader  # noqa: E402
from golfcore.data.tokens import Tokens, open_tokens  # noqa: E402
from golfcore.errors import RuleError  # noqa: E402
from golfcore.model import get_family  # noqa: E402
from golfcore.model.gpt.model import GPT  # noqa: E402
from golfcore.ops import products  # noqa: E402
from golfcore.ops.cases.optim import torch_muon_in_fast_precision  # noqa: E402
from golfcore.ops.memory import keep_freed_memory  # noqa: E402
from golfcore.optim.routing import route  # noqa: E402
from golfcore.optim.schedule import lr_multiplier, muon_momentum  # noqa: E402
from golfcore.pipeline.config import write_config  # noqa: E402
from golfcore.pipeline.limits import broken_limit  # noqa: E402
from golfcore.pipeline.pack import pack_stage  # noqa: E402
from golfcore.pipeline.quantize import calibrate, quantize_stage  # noqa: E402
from golfcore.pipeline.score import score_in_new_process  # noqa: E402
from golfcore.pipeline.start import Wish, begin  # noqa: E402
from golfcore.ranks.world import World  # noqa: E402
from golfcore.run_folder import ARTIFACT  # noqa: E402
from golfcore.training.feed import batches_of  # noqa: E402


def optimizers(model: GPT, config: RecipeConfig) -> list[torch.optim.Optimizer]:
    """Return Adam with one group per learning rate, and Muon for the matrices."""
    roles, optim = model.parameter_roles(), config.optim
    rates: dict[float, list[torch.nn.Parameter]] = {}
    matrices = []
    for name, parameter in model.named_parameters():
        path = route(roles[name], optim, tied=config.model.tie_embeddings)
        if path.optimizer == "muon":
            matrices.append(parameter)
        else:
            rates.setdefault(path.lr, []).append(parameter)
    groups = [{"params": parameters, "lr": lr} for lr, parameters in rates.items()]
    adam = torch.optim.Adam(groups, betas=(optim.beta1, optim.beta2), eps=optim.adam_eps, fused=True)
    muon = torch.optim.Muon(
        matrices, lr=optim.matrix_lr, weight_decay=0.0, momentum=optim.muon_momentum, ns_steps=optim.muon_backend_steps
    )
    for optimizer in (adam, muon):
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return [adam, muon]


def train(model: GPT, config: RecipeConfig, tokens: Tokens, *, compiled: bool) -> tuple[int, float]:
    """Train until the clock or the step count runs out; return steps and seconds."""
    settings = config.train
    budget_s = config.steps_s  # as the trainer reckons it
    loader = TokenLoader(
        tokens.shards("train"), batch_tokens=settings.batch_tokens, seq_len=settings.seq_len, seed=settings.seed,
        order=settings.order,
    )  # fmt: skip
    loss_fn = torch.compile(plain_loss, dynamic=False) if compiled else plain_loss
    fresh = optimizers(model, config)

    def step(number: int, multiplier: float) -> None:
        host = next(loader)
        (batch,) = batches_of(host, len(host.inputs_BT), torch.device("cpu"))
        loss_fn(model, batch).backward()
        for optimizer in fresh:
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * multiplier
                if "momentum" in group:
                    group["momentum"] = muon_momentum(number, config.optim)
            with torch_muon_in_fast_precision():
                optimizer.step()
            optimizer.zero_grad()

    with loader:
        before = copy.deepcopy(model.state_dict()), loader.state_dict()
        for _ in range(settings.warmup_steps):
            step(0, 1.0)
        model.load_state_dict(before[0])
        loader.load_state_dict(before[1])
        fresh = optimizers(model, config)
        started, done, longest = time.perf_counter(), 0, 0.0
        while done < settings.iterations:
            elapsed = time.perf_counter() - started
            if budget_s and elapsed + 1.25 * longest > budget_s:
                break
            step(done, lr_multiplier(done, elapsed, settings, budget_s))
            longest = max(longest, time.perf_counter() - started - elapsed)
            done += 1
        return done, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default=str(Path(__file__).with_name("plain_torch.toml")))
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="own text instead of the default")
    parser.add_argument("--set", dest="sets", action="append", default=[], help="section.key=value")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--run-id", default="")
    parser.add_argument("--compile", action="store_true", help="torch.compile the loss; off the clock")
    options = parser.parse_args()
    start = begin(
        Wish(options.recipe, options.text, sets=options.sets, runs=options.runs, run_id=options.run_id)
    )  # fmt: skip
    config, run_dir = start.config, start.run_dir
    tokens = open_tokens(config.data.path)
    keep_freed_memory()
    write_config(run_dir, config)
    model = get_family("gpt").build(config.model, tokens.vocab_size, config.train.seed)
    assert isinstance(model, GPT)
    model.activation_dtype = products.fast_dtype()
    steps, train_s = train(model, config, tokens, compiled=options.compile)
    calibration = calibrate(model, config, tokens, World(rank=0, size=1, device=torch.device("cpu")))
    quantize_stage(run_dir, model, config, tokens, calibration)
    packed = pack_stage(run_dir, config, tokens, run_dir / ARTIFACT)
    started = time.perf_counter()
    score = score_in_new_process(run_dir / ARTIFACT, config)
    result = {
        "run": run_dir.name, "val_bpb": score["val_bpb"], "val_loss": score["val_loss"],
        "bytes_total": packed["bytes"]["file"], "train_s": train_s, "eval_s": time.perf_counter() - started,
        "steps": steps, "compiled": options.compile,
    }  # fmt: skip
    print(json.dumps(result))
    if broken := broken_limit(config, result):
        raise RuleError(broken)


if __name__ == "__main__":
    main()
