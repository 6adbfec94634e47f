"""Choose optimizer, learning rate and weight decay of each parameter; without torch, so that ``plan`` can print it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from golfcore.config import OptimConfig
from golfcore.model import Role


class Route(NamedTuple):
    """Optimizer, learning rate and weight decay of a parameter, before the schedule's factors."""

    optimizer: Literal["muon", "adamw"]
    lr: float
    weight_decay: float


def route(role: Role, config: OptimConfig, *, tied: bool) -> Route:
    """Return the route of a parameter: Muon for matrices, AdamW for all others, each kind at its own rate.

    Args:
        role: role of the parameter; ``depth`` chooses between ``matrix_lr`` and ``matrix_lr_late``.
        config: learning rates and weight decays.
        tied: whether the embedding is also the head; it then has its own rate.
    """
    if role.kind == "matrix":
        late = config.matrix_lr_late > 0 and role.depth >= 0.5
        return Route("muon", config.matrix_lr_late if late else config.matrix_lr, config.muon_weight_decay)
    if role.kind == "embedding":
        return Route("adamw", config.tied_embed_lr if tied else config.embed_lr, config.embed_weight_decay)
    if role.kind == "head":
        return Route("adamw", config.head_lr, config.embed_weight_decay)
    return Route("adamw", config.scalar_lr, config.scalar_weight_decay)
