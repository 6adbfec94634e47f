"""Register model families and find them by name.

A family is one descriptor, and all that trainer, quantizer, packer and scorer know of a model. To add a family, write
its module and its config, and ``register`` it. Importing this does not import
torch; ``Family.build`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from golfcore.errors import UsageError
from golfcore.model.roles import Kind
from golfcore.model.work import Work
from golfcore.suggest import nearest

if TYPE_CHECKING:
    from golfcore.model.interface import LanguageModel


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        name: value of ``family`` in the ``[model]`` section of a recipe.
        config: a frozen dataclass with the other keys of ``[model]``; ``__post_init__`` raises and names a wrong key.
        build: ``(config, vocab_size, seed) -> module`` with every random number drawn from ``seed``.
        counts: ``(config, vocab_size) -> parameters by group``; arithmetic without torch. Groups are those of
            ``parameter_roles``; each comes with its kind and its number of rows (row scales are stored per row).
        work: ``(config, vocab_size, seq_len) -> work per token`` in each phase of the run, in order; without torch.
        sources: files of the package that are the model's code and are packed with it. Of the operations they are the
            references in plain torch, which are all that a stand-alone entry needs.
    """

    name: str
    config: type
    build: Callable[[Any, int, int], LanguageModel]
    counts: Callable[[Any, int], dict[str, tuple[Kind, int, int]]]
    work: Callable[[Any, int, int], tuple[Work, ...]]
    sources: tuple[str, ...]


_FAMILIES: dict[str, Family] = {}


def register(family: Family) -> None:
    """Register ``family`` under its name; a second family of that name replaces the first."""
    _FAMILIES[family.name] = family


def get_family(name: str) -> Family:
    """Return the family called ``name``.

    Raises:
        UsageError: no such family; the message has the nearest name.
    """
    if name not in _FAMILIES:
        raise UsageError(f"unknown model family {name!r}{nearest(name, _FAMILIES)}")
    return _FAMILIES[name]


def family_configs() -> Mapping[str, type]:
    """Return the config class of each family, for ``config.build_recipe``."""
    return {name: family.config for name, family in _FAMILIES.items()}
