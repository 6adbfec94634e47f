"""Model families: what the rest of golfcore knows of a model, and how a new one joins.

A family is one descriptor. The trainer, the quantizer, the packer and the scorer reach a model through it alone, so
adding a family touches none of them: write the module, its config, and ``register`` it. Importing this does not import
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
        name: as in a recipe's ``[model] family``.
        config: its frozen dataclass; ``__post_init__`` raises naming the field.
        build: ``(config, vocab_size, seed) -> module`` with every random number drawn from ``seed``.
        counts: ``(config, vocab_size) -> parameters by group``; pure arithmetic, torch-free. Groups are those of
            ``parameter_roles``; each comes with its kind and its number of rows (row scales are stored per row).
        work: ``(config, vocab_size, seq_len) -> cost of a token`` in each phase of the run, in order; torch-free.
        sources: package files that make up the model's code, counted in the artifact; of the operations their
            references, which are all that a stand-alone entry needs.
    """

    name: str
    config: type
    build: Callable[[Any, int, int], LanguageModel]
    counts: Callable[[Any, int], dict[str, tuple[Kind, int, int]]]
    work: Callable[[Any, int, int], tuple[Work, ...]]
    sources: tuple[str, ...]


_FAMILIES: dict[str, Family] = {}


def register(family: Family) -> None:
    """Makes ``family`` known under its name; a second one of that name replaces the first."""
    _FAMILIES[family.name] = family


def get_family(name: str) -> Family:
    """The family called ``name``.

    Raises:
        UsageError: no such family; names the nearest.
    """
    if name not in _FAMILIES:
        raise UsageError(f"unknown model family {name!r}{nearest(name, _FAMILIES)}")
    return _FAMILIES[name]


def family_configs() -> Mapping[str, type]:
    """The config class of each family, for ``config.build_recipe``."""
    return {name: family.config for name, family in _FAMILIES.items()}
