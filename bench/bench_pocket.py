"""Whole runs of a recipe over several seeds: bits per byte, bytes and seconds, with a mean and an interval.

    python bench/bench_pocket.py --recipe pocket --seeds 1337 1338 1339 --save

Each seed is a run of its own through the command line, with every stage and its clock; leave the machine alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from record import Result, append
from rich.console import Console
from rich.table import Table
from scipy import stats

METRICS = {"val_bpb": "bit/byte", "val_loss": "nat/token", "bytes_total": "byte", "train_s": "s", "eval_s": "s"}


def one_run(recipe: str, seed: int, more: list[str], runs: Path) -> dict[str, float]:
    """The last line of ``golfcore run``, and the steps that its clock allowed."""
    command = [sys.executable, "-m", "golfcore", "run", recipe, "--runs", str(runs), "--run-id", f"seed{seed}", *more]
    done = subprocess.run([*command, "--set", f"train.seed={seed}"], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    rows = (runs / f"seed{seed}" / "metrics.jsonl").read_text().splitlines()
    return result | {"steps": json.loads(rows[-1])["step"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="pocket")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1337, 1338, 1339])
    parser.add_argument("--text", help="own text instead of the default")
    parser.add_argument("--save", action="store_true", help="append to bench/results/pocket.csv")
    options = parser.parse_args()
    more = ["--text", options.text] if options.text else []
    with tempfile.TemporaryDirectory() as folder:
        found = {seed: one_run(options.recipe, seed, more, Path(folder)) for seed in options.seeds}
    case = f"{options.recipe}, {Path(options.text).name if options.text else 'default text'}"
    results = []
    table = Table("seed", *METRICS, "steps", title=case)
    for seed, row in found.items():
        table.add_row(str(seed), *(f"{row[m]:.6g}" for m in METRICS), str(row["steps"]))
        results += [Result(case, f"golfcore, seed {seed}", m, row[m], unit) for m, unit in METRICS.items()]
        results.append(Result(case, f"golfcore, seed {seed}", "last logged step", row["steps"], "step"))
    scores = [row["val_bpb"] for row in found.values()]
    mean = statistics.fmean(scores)
    results.append(Result(case, "golfcore", "val_bpb mean", mean, "bit/byte"))
    Console().print(table)
    if len(scores) > 1:
        half = stats.t.ppf(0.975, len(scores) - 1) * statistics.stdev(scores) / len(scores) ** 0.5
        results.append(Result(case, "golfcore", "val_bpb 95 % half-width", half, "bit/byte"))
        print(f"val_bpb {mean:.4f} +- {half:.4f} (95 %, t, {len(scores)} seeds)")
    if options.save:
        print(f"appended to {append('pocket', results, ('golfcore', 'torch'))}")


if __name__ == "__main__":
    main()
