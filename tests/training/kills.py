"""kill -9 of ranks at random moments, until a run has ended; the suite does it a few times, this as a command more:

PYTHONPATH=tests python tests/training/kills.py --times 20      (make test-kills)
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from many_ranks import QUICK, Ranks
from ranked_training import ALONE, losses, make_recipe, train, write_tokens

from golfcore.config import RecipeConfig
from golfcore.ranks.world import World
from golfcore.run_folder import CHECKPOINT, METRICS, PREVIOUS_CHECKPOINT
from golfcore.training.checkpoint import load_newest
from golfcore.training.runlog import read_metrics

EVERY_S = 0.5
STEP_S = 0.01  # a step takes at least this, so that a run lasts long enough to be killed


@dataclass(frozen=True)
class Lost:
    """What a kill cost: seconds of training since the checkpoint that the run goes on from, and in steps."""

    size: int
    seconds: float
    steps: int


def paced(world: World, config: RecipeConfig, tokens: Path, run_dir: Path) -> dict[str, np.ndarray]:
    """``train``, with steps that are not too quick to be interrupted."""
    from ranked_training import Run

    run = Run(world, config, tokens, run_dir)
    update = run.trainer.update

    def slower(*arguments: float) -> None:
        time.sleep(STEP_S)
        update(*arguments)

    run.trainer.update = slower  # type: ignore[method-assign]
    return {name: w.numpy() for name, w in run.train().items()}


def kill_and_resume(times: int, folder: Path, seed: int = 0) -> list[Lost]:
    """Kills a random rank of a run of 1 to 3 ranks ``times`` times, each time starting it again on another number.

    Raises:
        AssertionError: a run did not end with the others, the curve is not the uninterrupted one's, or too many files.
    """
    rng = random.Random(seed)
    tokens, run_dir = write_tokens(folder / "tokens"), folder / "run"
    config = make_recipe(
        iterations=60 * (times + 1), batch_tokens=192, warmup_steps=0, warmdown_iters=0, checkpoint_every_s=EVERY_S
    )
    lost: list[Lost] = []
    while len(lost) < times:
        size = rng.choice([1, 2, 3])
        with Ranks(size, paced, config, tokens, run_dir, limits=QUICK) as ranks:
            if not _run_for(ranks, run_dir, rng.uniform(0.2, 2 * EVERY_S)):
                break  # it had ended before its turn
            victim = rng.randrange(size)
            ranks.processes[victim].kill()
            outcomes = ranks.outcomes(30)
        for rank, outcome in outcomes.items():
            if rank != victim and size > 1:
                assert f"rank {victim} of {size} (process " in outcome.error + outcome.stderr, outcome
        lost.append(_lost(run_dir, size))
    with Ranks(2, paced, config, tokens, run_dir) as ranks:
        outcomes = ranks.outcomes(120)
    assert all(not o.error and o.exit_code == 0 for o in outcomes.values()), outcomes
    train(ALONE, config, tokens, folder / "whole")
    found, expected = losses(run_dir), losses(folder / "whole")
    assert list(found) == list(expected)
    # Another number of ranks rounds otherwise, and the curves of a run drift apart as any two do: the start is compared
    # step by step, the rest as a whole.
    np.testing.assert_allclose(list(found.values())[:20], list(expected.values())[:20], atol=0.02)
    np.testing.assert_allclose(np.mean(list(found.values())), np.mean(list(expected.values())), atol=0.02)
    names = {path.name for path in run_dir.iterdir() if "checkpoint" in path.name}
    assert names <= {CHECKPOINT, PREVIOUS_CHECKPOINT}, names
    return lost


def _run_for(ranks: Ranks, run_dir: Path, seconds: float) -> bool:
    """Waits until the run has made a step and then ``seconds``; whether it still runs."""
    before = _steps(run_dir)
    while _steps(run_dir) <= before:
        if ranks.processes[0].exitcode is not None:
            return False
        time.sleep(0.02)
    time.sleep(seconds)
    return all(process.is_alive() for process in ranks.processes)


def _steps(run_dir: Path) -> int:
    return max((row["step"] for row in read_metrics(run_dir / METRICS)), default=0)


def _lost(run_dir: Path, size: int) -> Lost:
    last = max(read_metrics(run_dir / METRICS), key=lambda row: row["step"])
    saved = load_newest(run_dir)[0] if (run_dir / CHECKPOINT).exists() else {"train_s": 0.0, "step": 0}
    return Lost(size, last["train_s"] - saved["train_s"], last["step"] - saved["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lost = kill_and_resume(options.times, Path(folder), options.seed)
    for i, each in enumerate(lost, 1):
        print(f"kill {i}: {each.size} ranks, {each.seconds:.2f} s and {each.steps} steps lost")
    print(f"{len(lost)} kills, at most {max(each.seconds for each in lost):.2f} s lost of {EVERY_S:g} s allowed")


if __name__ == "__main__":
    main()
