"""Kill a sweep of 24 real runs at random five times, and check that every run is done once and none is lost.

    python bench/sweep_kill.py [--kills 5] [--seed 0] [--text TEXT]

Each time ``kill -9`` hits the sweep, every second time its runs too. Exits 1 if a run is lost or scored twice. The same
with stand-ins for the runs is in ``tests/sweep/test_runner.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from golfcore.sweep.worker import is_running

RECIPE = """
name = "tiny"
[track]
train_s = 0.0
[data]
vocab_size = 300
[model]
num_layers = 2
model_dim = 32
num_heads = 2
num_kv_heads = 1
[train]
iterations = 30
batch_tokens = 512
micro_batch_tokens = 512
seq_len = 64
warmup_steps = 1
log_every = 1
checkpoint_every_s = 0.2
precision = "fp32"
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--text", help="own text instead of the default")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        folder, recipe = Path(place) / "sweep", Path(place) / "tiny.toml"
        recipe.write_text(RECIPE)
        command = [sys.executable, "-m", "golfcore", "sweep", str(recipe), "--folder", str(folder), "--jobs", "2"]
        command += ["--set", "optim.matrix_lr=0.01,0.02,0.03,0.04", "--set", "model.mlp_mult=2,3", "--seeds", "3"]
        command += ["--stop-margin", "0", "--json", *(["--text", options.text] if options.text else [])]
        for number in range(options.kills):
            kill_at_random(command, folder, rng, with_runs=number % 2 == 1)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return judge(json.loads(done.stdout), options.kills)


def kill_at_random(command: list[str], folder: Path, rng: random.Random, *, with_runs: bool) -> None:
    """Start the sweep, let it run until up to four more runs are scored and a random while longer, and kill it."""
    before, more = scored(folder), rng.randrange(5)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and (scored(folder) < before + more or not running(folder)):
        time.sleep(0.05)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(rng.uniform(0.0, 6.0))
        sys.exit("the sweep ended before it could be killed: nothing was tried")
    process.kill()
    process.wait()
    pids = running(folder)
    if with_runs:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it may just have ended
                os.kill(pid, signal.SIGKILL)
    what = f"and {len(pids)} runs" if with_runs else f"alone, {len(pids)} runs outlived it"
    print(f"killed the sweep {what}; {scored(folder)} runs were scored", flush=True)


def scored(folder: Path) -> int:
    return len(list(folder.glob("*/score.json")))


def running(folder: Path) -> list[int]:
    names = [path.name.removesuffix(".lock") for path in (folder / "locks").glob("*.lock")]
    return [pid for name in names if (pid := is_running(folder, name))]


def judge(found: dict[str, object], kills: int) -> int:
    """Check that each of the 24 runs has its score, and one closing line in its log."""
    runs: list[dict[str, object]] = found["runs"]  # type: ignore[assignment]
    wrong = []
    for run in runs:
        log = Path(str(run.get("run", "nowhere"))) / "log.txt"
        closings = log.read_text().count("_roundtrip_exact") if log.exists() else 0
        if run["state"] != "done" or closings != 1:
            wrong.append(f"{run['name']}: {run['state']}, scored {closings} times")
    attempts = sum(int(str(run["attempts"])) for run in runs)
    print(f"{kills} kills, {len(runs)} runs, {len(runs) - len(wrong)} done once, started {attempts} times")
    print("\n".join(wrong))
    return 1 if wrong or len(runs) != 24 else 0


if __name__ == "__main__":
    sys.exit(main())
