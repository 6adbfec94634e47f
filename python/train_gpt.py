"""The contest's entry point: train, pack and score a recipe, in one process or under torchrun.

    torchrun --standalone --nproc_per_node=8 python/train_gpt.py
    torchrun --standalone --nproc_per_node=2 python/train_gpt.py --recipe pocket

Settings come from the environment under the contest's names (MATRIX_LR=0.03 NUM_LAYERS=10 ...) and replace the
recipe's. Lines are printed, and written to runs/RUN_ID/log.txt, in the contest's form. The score is read from the
packed bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from golfcore.openmp import share_cores

share_cores()  # before torch is imported

from golfcore.data.tokens import open_tokens  # noqa: E402
from golfcore.errors import GolfError, RuleError  # noqa: E402
from golfcore.pipeline.score import score_artifact, validation_of  # noqa: E402
from golfcore.pipeline.start import Wish, begin_together  # noqa: E402
from golfcore.pipeline.whole import run_stages  # noqa: E402
from golfcore.ranks.world import World, join_world  # noqa: E402
from golfcore.run_folder import owned  # noqa: E402


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="baseline_8xh100", help="a recipe's name or a .toml file")
    parser.add_argument("--data", type=Path, help="a folder of token shards (DATA_PATH)")
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="own text instead of shards")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are made")
    parser.add_argument("--run-id", default="", help="the run folder's name (RUN_ID)")
    parser.add_argument("--resume", type=Path, help="a run folder that was cut off")
    return parser.parse_args()


def main(options: argparse.Namespace, world: World) -> None:
    wish = Wish(
        options.recipe, options.text, options.data, environment=os.environ, runs=options.runs, run_id=options.run_id,
        resume=options.resume,
    )  # fmt: skip
    start = begin_together(world, wish)
    start = dataclasses.replace(start, echo=print)
    config = start.config
    tokens = open_tokens(config.data.path, config.data.tokenizer)

    def evaluate(artifact: Path) -> dict[str, Any]:
        return score_artifact(
            artifact, validation_of(tokens), world, batch_tokens=config.eval.batch_tokens,
            budget_s=config.track.eval_s, tell=print if world.primary else lambda line: None,
        )  # fmt: skip

    with owned(start.run_dir, by_this_process=world.primary):
        result = run_stages(start, world, evaluate)
    if result is not None and (broken := result.broken_limit()):
        raise RuleError(broken)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM, by which torchrun ends the other ranks when one has failed: each reports what it knows."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    options = parse()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        with join_world() as world:
            main(options, world)
    except GolfError as error:
        if error.is_printed_by(os.environ):
            print(f"train_gpt.py: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit("train_gpt.py: interrupted; go on with --resume and the run's folder")
