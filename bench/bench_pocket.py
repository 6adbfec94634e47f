"""Run a recipe with several seeds; report bits per byte, bytes and seconds, with mean and interval.

    python bench/bench_pocket.py --recipe pocket --seeds 1337 1338 1339 --save
    python bench/bench_pocket.py --recipe plain_torch --runs runs/plain --save

Each seed is a run by the command line, with every stage and its clock; leave the machine alone. The recipe plain_torch
is that of bench/plain_torch.py. With --runs the run folders stay, and seeds that have a folder are not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from record import Result, append
from rich.console import Console
from rich.table import Table
from scipy import stats

PLAIN = Path(__file__).with_name("plain_torch.py")
METRICS = {"val_bpb": "bit/byte", "val_loss": "nat/token", "bytes_total": "byte", "train_s": "s", "eval_s": "s"}


def one_run(recipe: str, seed: int, more: list[str], runs: Path, before: list[str]) -> dict[str, float]:
    """Run one seed; return the last line that it printed, and its number of steps."""
    kept = runs / f"seed{seed}.json"
    if not kept.exists():
        # A folder without a result is of a run that was cut off.
        run_id = next(name for n in itertools.count() if not (runs / (name := f"seed{seed}-{n}")).exists())
        program = [str(PLAIN)] if recipe == PLAIN.stem else ["-m", "golfcore", "run", recipe]
        command = [*before, sys.executable, *program, "--runs", str(runs), "--run-id", run_id, *more]
        done = subprocess.run([*command, "--set", f"train.seed={seed}"], stdout=subprocess.PIPE, text=True, check=True)
        result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        if "steps" not in result:
            rows = (runs / run_id / "metrics.jsonl").read_text().splitlines()
            result["steps"] = json.loads(rows[-1])["step"]
        kept.write_text(json.dumps(result))
    found: dict[str, float] = json.loads(kept.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="pocket")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1337, 1338, 1339])
    parser.add_argument("--text", help="own text instead of the default")
    parser.add_argument("--runs", type=Path, help="keep the run folders here; default: a folder that is removed")
    parser.add_argument("--before", default="", help="words put before each run's command, such as nice -n -5")
    parser.add_argument("--save", action="store_true", help="append to bench/results/pocket.csv")
    options = parser.parse_args()
    more = ["--text", options.text] if options.text else []
    with tempfile.TemporaryDirectory() as folder:
        runs, before = options.runs or Path(folder), shlex.split(options.before)
        runs.mkdir(parents=True, exist_ok=True)
        found = {seed: one_run(options.recipe, seed, more, runs, before) for seed in options.seeds}
    case = f"{options.recipe}, {Path(options.text).name if options.text else 'default text'}"
    who = "torch" if options.recipe == PLAIN.stem else "golfcore"
    results = []
    table = Table("seed", *METRICS, "steps", title=case)
    for seed, row in found.items():
        table.add_row(str(seed), *(f"{row[m]:.6g}" for m in METRICS), str(row["steps"]))
        results += [Result(case, f"{who}, seed {seed}", m, row[m], unit) for m, unit in METRICS.items()]
        results.append(Result(case, f"{who}, seed {seed}", "last logged step", row["steps"], "step"))
    scores = [row["val_bpb"] for row in found.values()]
    mean = statistics.fmean(scores)
    results.append(Result(case, who, "val_bpb mean", mean, "bit/byte"))
    Console().print(table)
    if len(scores) > 1:
        half = stats.t.ppf(0.975, len(scores) - 1) * statistics.stdev(scores) / len(scores) ** 0.5
        results.append(Result(case, who, "val_bpb 95 % half-width", half, "bit/byte"))
        print(f"val_bpb {mean:.4f} +- {half:.4f} (95 %, t, {len(scores)} seeds)")
    if options.save:
        print(f"appended to {append('pocket', results, ('golfcore', 'torch'))}")


if __name__ == "__main__":
    main()
