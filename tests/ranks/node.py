"""What torchrun starts on each node of ``test_nodes.py``: ``node.py TOKENS RUN_DIR STEPS``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from many_ranks import QUICK
from ranked_training import make_recipe, train

from golfcore.errors import GolfError
from golfcore.ranks.world import join_world

if __name__ == "__main__":
    tokens, run_dir, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    try:
        with join_world(limits=QUICK) as world:
            if not world.primary:
                run_dir = run_dir.with_name("on no other machine")
            train(world, make_recipe(iterations=steps, checkpoint_every_s=2.0, warmdown_iters=0), tokens, run_dir)
    except GolfError as error:
        sys.exit(f"node.py: {error}")
