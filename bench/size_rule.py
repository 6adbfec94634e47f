"""Measure the data of the rule that sizes a run (golfcore.recipes.sizing): short runs of many shapes.

    python bench/size_rule.py --budget 80 250 --vocab 1024 6144 --batch 2048 4096 --rate 1 1.5 --save

A budget is a number of steps of pocket_frontier as it stands; each shape gets as many steps as cost the same number
of operations.
Runs end by their number of steps, so the results do not depend on the machine. Models are scored on documents that are
held out of the training text, before quantization.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
from pathlib import Path

from golfcore.machine import environment
from golfcore.openmp import share_cores

share_cores()  # before torch is imported

import torch  # noqa: E402

from golfcore.bench import store  # noqa: E402
from golfcore.bench.ablation import hold_out  # noqa: E402
from golfcore.config import RecipeConfig  # noqa: E402
from golfcore.data.tokens import open_tokens, prepare_data  # noqa: E402
from golfcore.evaluate.scorer import score  # noqa: E402
from golfcore.model import get_family  # noqa: E402
from golfcore.ops.memory import keep_freed_memory  # noqa: E402
from golfcore.pipeline.setup import build_trainer, token_loader  # noqa: E402
from golfcore.ranks.world import World  # noqa: E402
from golfcore.recipes import load_recipe  # noqa: E402
from golfcore.training.runlog import RunLog  # noqa: E402

BASE = "pocket_frontier"
HELD_OUT_BYTES = 200_000
ABOUT = ("date", "commit", "cpu", "cores", "isa", "torch")


@dataclasses.dataclass(frozen=True)
class Trial:
    """A shape, its number of steps, and its score on held-out text."""

    budget: int
    vocab_size: int
    batch_tokens: int
    rate: float  # factor on the recipe's learning rates
    ema_steps: float  # how many steps the average of the weights spans; 0 for none
    seed: int
    steps: int
    bpb: float


def shaped(budget: int, vocab_size: int, batch_tokens: int, rate: float, ema_steps: float, seed: int) -> RecipeConfig:
    """Return the recipe of a trial; its steps cost as much as ``budget`` steps of the base."""
    base = load_recipe(BASE, environment={}).config
    family = get_family(base.model_family)

    def step_flops(vocab: int, tokens: int) -> float:
        return tokens * family.work(base.model, vocab, base.train.seq_len)[-1].flops

    share = step_flops(base.data.vocab_size, base.train.batch_tokens) / step_flops(vocab_size, batch_tokens)
    steps = round(budget * share)
    return load_recipe(
        BASE,
        environment={},
        sets=[
            f"data.vocab_size={vocab_size}", f"train.batch_tokens={batch_tokens}",
            f"train.micro_batch_tokens={batch_tokens}", f"train.iterations={steps}", "track.train_s=0",
            f"optim.matrix_lr={base.optim.matrix_lr * rate}", f"optim.scalar_lr={base.optim.scalar_lr * rate}",
            f"optim.tied_embed_lr={base.optim.tied_embed_lr * rate}", "train.checkpoint_every_s=0",
            f"optim.muon_momentum_warmup_steps={min(50, steps // 6)}", f"train.seed={seed}",
            f"train.ema_decay={max(0.0, 1 - 1 / ema_steps) if ema_steps else 0.0}", "train.log_every=1000000",
        ],
    ).config  # fmt: skip


def run_trial(recipe: RecipeConfig, texts: list[Path]) -> tuple[int, float]:
    """Train and score a trial; return steps and bits per byte."""
    recipe = prepare_data(recipe, texts)
    tokens = open_tokens(recipe.data.path)
    source = tokens.shards("train")
    held = round(HELD_OUT_BYTES / float(tokens.count_bytes(source[:100_000]).mean()))
    source, text = hold_out(source, tokens.tokenizer.token_bytes, held)
    world = World(rank=0, size=1, device=torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder, token_loader(recipe, source, world) as loader:
        log = RunLog(Path(folder), primary=True)
        with build_trainer(recipe, tokens.vocab_size, loader, world, log) as trainer:
            state = trainer.run()
    return state.step, score(trainer.module, text, context=recipe.train.seq_len).val_bpb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, nargs="+", default=[80])
    parser.add_argument("--vocab", type=int, nargs="+", default=[6144])
    parser.add_argument("--batch", type=int, nargs="+", default=[4096])
    parser.add_argument("--rate", type=float, nargs="+", default=[1.0])
    parser.add_argument("--ema", type=float, nargs="+", default=[0.04], help="span of the average, share of the steps")
    parser.add_argument("--seed", type=int, nargs="+", default=[1337])
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="own text instead of the default")
    parser.add_argument("--save", action="store_true", help="append to bench/results/size_rule.csv")
    options = parser.parse_args()
    keep_freed_memory()
    now = environment()
    about = {name: now.get(name, "") for name in ABOUT}
    about |= {"date": now["started"], "commit": now["commit"] + ("+" if now["dirty"] else "")}
    for budget, vocab, batch, rate, ema, seed in itertools.product(
        options.budget, options.vocab, options.batch, options.rate, options.ema, options.seed
    ):
        plain = shaped(budget, vocab, batch, rate, 0.0, seed)
        span = round(ema * plain.train.iterations, 2)
        steps, bpb = run_trial(shaped(budget, vocab, batch, rate, span, seed), options.text)
        trial = Trial(budget, vocab, batch, rate, span, seed, steps, round(bpb, 5))
        print(trial, flush=True)
        if options.save:
            store.append(Path(__file__).parent / "results" / "size_rule.csv", about, [trial])


if __name__ == "__main__":
    main()
