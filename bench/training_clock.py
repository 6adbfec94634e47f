"""Count the short runs of each quantization method whose training took longer than its clock.

    python bench/training_clock.py --runs 50 --seconds 3 --steal 0.5

Each run trains a tiny model and calibrates it, as ``golfcore run`` does, on the real clock; the number is the one that
the ledger holds and the verdict counts. ``--steal`` is the share of the time in which a thread beside it computes too,
so that steps and passes are uneven.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
from pathlib import Path

from golfcore.openmp import share_cores

share_cores()  # before torch is imported

import numpy as np  # noqa: E402
import torch  # noqa: E402

from golfcore.config import OptimConfig, QuantConfig, RecipeConfig, TrackConfig, TrainConfig  # noqa: E402
from golfcore.data.shards import ShardWriter  # noqa: E402
from golfcore.data.tokens import Tokens  # noqa: E402
from golfcore.model.gpt.config import GPTConfig  # noqa: E402
from golfcore.pipeline.start import Start  # noqa: E402
from golfcore.pipeline.whole import trained_and_calibrated  # noqa: E402
from golfcore.progress import no_progress  # noqa: E402
from golfcore.ranks.world import World  # noqa: E402
from golfcore.run_folder import LEDGER  # noqa: E402
from golfcore.training.runlog import RunLog, read_ledger  # noqa: E402

METHODS = {
    "rtn": QuantConfig(method="rtn"),
    "lite": QuantConfig(method="lite"),
    "gptq": QuantConfig(method="gptq", calibration_tokens=1 << 20, reserve_s=0.5),
    "gptq without a reserve": QuantConfig(method="gptq", calibration_tokens=1 << 20),
}


def tokens_in(folder: Path) -> Tokens:
    """Write random tokens as a training shard; nothing else of a text is needed before the packing."""
    with ShardWriter(folder, "train") as writer:
        writer.append(np.random.default_rng(0).integers(4, 260, 2 << 20).astype(np.uint16))
    return Tokens(folder, 260, None, "", prepared=False)  # type: ignore[arg-type]


def steal(share: float, over: threading.Event) -> None:
    """Compute for ``share`` of the time, in bursts of up to 0.2 s."""
    x = torch.randn(400, 400)
    while share and not over.is_set():
        end = time.monotonic() + random.uniform(0.0, 0.2) * share
        while time.monotonic() < end:
            x @ x
        time.sleep(random.uniform(0.0, 0.2) * (1 - share))


def train_s(quant: QuantConfig, seconds: float, tokens: Tokens, run_dir: Path) -> tuple[float, int]:
    """Return the ledger's seconds of training, and the tokens that Hessians are from."""
    config = RecipeConfig(
        name="clock",
        track=TrackConfig(train_s=seconds),
        model=GPTConfig(num_layers=2, model_dim=64, num_heads=4, num_kv_heads=2, mlp_mult=2),
        optim=OptimConfig(muon_momentum_warmup_steps=0),
        train=TrainConfig(
            iterations=10**6, batch_tokens=2048, micro_batch_tokens=2048, seq_len=128, warmup_steps=2, log_every=10**6
        ),
        quant=quant,
    )
    world = World(rank=0, size=1, device=torch.device("cpu"))
    with RunLog(run_dir, primary=True) as log:
        _, calibration = trained_and_calibrated(Start(run_dir, config), None, tokens, world, log, no_progress)
    (row,) = (row for row in read_ledger(run_dir / LEDGER) if row["phase"] == "train")
    return row["seconds"], calibration.hessians.tokens if calibration.hessians else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=3.0, help="the clock of a run")
    parser.add_argument("--steal", type=float, default=0.5, help="share of the time that a thread beside computes")
    options = parser.parse_args()
    over = threading.Event()
    threading.Thread(target=steal, args=(options.steal, over), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        tokens = tokens_in(Path(folder) / "tokens")
        for method, quant in METHODS.items():
            found = [
                train_s(quant, options.seconds, tokens, Path(folder) / f"{method}{i}") for i in range(options.runs)
            ]
            used = np.array([seconds for seconds, _ in found])
            without = sum(not seen for _, seen in found) if quant.method == "gptq" else 0
            print(
                f"{method}: {(used > options.seconds).sum()} of {len(used)} runs over {options.seconds:g} s; used "
                f"{used.min():.3f} to {used.max():.3f} s, median {np.median(used):.3f}; {without} without Hessians; "
                f"load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    over.set()


if __name__ == "__main__":
    main()
