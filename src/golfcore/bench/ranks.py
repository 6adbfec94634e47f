"""Make the cases ``ranks`` and ``checkpoint``: the cost of training on two ranks, and of saving during training.

``ranks``: one whole step of a recipe's batch by one process with all threads, against two gloo ranks in processes of
their own with one thread each, which halve the batch and the work of Muon between them. ``checkpoint``: steps alone,
against the same steps with a checkpoint begun before the first one.
"""

from __future__ import annotations

import multiprocessing
import socket
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from golfcore.bench.harness import NATIVE, Workload, require
from golfcore.config import RecipeConfig
from golfcore.model import get_family
from golfcore.model.interface import Batch, Context
from golfcore.optim.optimizers import Optimizers
from golfcore.ranks.world import World, join_world
from golfcore.run_folder import CHECKPOINT
from golfcore.training.checkpoint import CheckpointWriter

RANKS = 2
CHECKPOINT_STEPS = 4  # in which a checkpoint is written
CHECKED_STEPS = 3


class Steps:
    """Training steps of a recipe on random tokens, of which this rank takes its share."""

    def __init__(self, recipe: RecipeConfig, world: World) -> None:
        train, vocab_size = recipe.train, recipe.data.vocab_size
        self.recipe, self.world = recipe, world
        self.model = get_family(recipe.model_family).build(recipe.model, vocab_size, train.seed)
        self.model.activation_dtype = torch.bfloat16
        self.optimizers = Optimizers(
            self.model, self.model.parameter_roles(), recipe.optim, tied=getattr(recipe.model, "tie_embeddings", True),
            averaged=train.ema_decay > 0, ranks=world,
        )  # fmt: skip
        generator = torch.Generator().manual_seed(0)
        rows = train.batch_tokens // train.seq_len
        ids_BT = torch.randint(0, vocab_size, (rows, train.seq_len + 1), generator=generator)
        mine_BT = ids_BT[world.rank * rows // world.size : (world.rank + 1) * rows // world.size]
        self.batch = Batch(mine_BT[:, :-1].contiguous(), mine_BT[:, 1:].contiguous())

    def step(self) -> float:
        """Run a step; return the mean loss over the ranks before it."""
        self.optimizers.begin_overlapped_reduction()
        loss, _ = self.model.loss(self.batch, Context(torch.zeros(())))
        (loss / self.world.size).backward()  # type: ignore[no-untyped-call]
        mean = self.optimizers.reduce(loss.detach())
        self.optimizers.step(0.1, 0, self.recipe.train.ema_decay or 1.0)
        self.optimizers.zero_grad()
        return float(mean)


class Processes:
    """Processes that each run ``Steps`` as a rank of one thread; they end with this process."""

    def __init__(self, recipe: RecipeConfig) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        context = multiprocessing.get_context("spawn")
        self._ends: list[Connection] = []
        for rank in range(RANKS):
            here, there = context.Pipe()
            context.Process(target=_serve, args=(there, recipe, rank, port), daemon=True).start()
            self._ends.append(here)

    def step(self) -> float:
        for end in self._ends:
            end.send("step")
        losses = [float(end.recv()) for end in self._ends]
        return losses[0]


def _serve(end: Connection, recipe: RecipeConfig, rank: int, port: str) -> None:
    torch.set_num_threads(1)
    environment = {
        "RANK": str(rank), "WORLD_SIZE": str(RANKS), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }  # fmt: skip
    with join_world(environment=environment) as world:
        steps = Steps(recipe, world)
        while True:
            try:
                end.recv()
            except EOFError:
                return
            end.send(steps.step())


def ranks(recipe: RecipeConfig) -> Workload:
    """Return the workload of case ``ranks``; not for GPUs."""
    alone = World(rank=0, size=1, device=torch.device("cpu"))
    one, two = Steps(recipe, alone), Processes(recipe)

    def check() -> None:
        for step in range(CHECKED_STEPS):
            ours, theirs = one.step(), two.step()
            require(
                abs(ours - theirs) < 0.01 * ours,
                f"ranks: at step {step} the loss is {ours} on one rank and {theirs} on {RANKS}; nothing was timed",
            )

    return Workload(
        case="ranks", dtype="bfloat16", shape=_shape(recipe),
        contenders={NATIVE: lambda _: one.step(), f"{RANKS} ranks, 1 thread each": lambda _: two.step()}, check=check,
    )  # fmt: skip


def checkpoint(recipe: RecipeConfig) -> Workload:
    """Return the workload of case ``checkpoint``: the time that a checkpoint adds to the steps while it is written."""
    steps = Steps(recipe, World(rank=0, size=1, device=torch.device("cpu")))
    folder = tempfile.TemporaryDirectory()  # ends with the workload
    writer = CheckpointWriter(Path(folder.name))

    def run(save: Callable[[], None] | None) -> float:
        if save is not None:
            save()
        loss = [steps.step() for _ in range(CHECKPOINT_STEPS)][-1]
        writer.wait()
        return loss

    def save() -> None:
        state = steps.model.state_dict()
        writer.submit({"module": state, "weights": state, "optimizers": steps.optimizers.state_dict()})

    def check() -> None:
        run(save)
        require(
            (Path(folder.name) / CHECKPOINT).is_file(), f"checkpoint: no file ({writer.failure()}); nothing was timed"
        )

    return Workload(
        case="checkpoint", dtype="bfloat16", shape=f"{CHECKPOINT_STEPS} steps of {_shape(recipe)}",
        contenders={NATIVE: lambda _: run(None), "with a checkpoint": lambda _: run(save)}, check=check,
    )  # fmt: skip


def _shape(recipe: RecipeConfig) -> str:
    train = recipe.train
    return f"{recipe.name}: {train.batch_tokens // train.seq_len}x{train.seq_len} tokens"
