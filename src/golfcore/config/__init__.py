"""The sections and keys of a recipe: frozen dataclasses, read from TOML, the environment and the command line.

Later sources win: command line > environment (the contest's names, ``MATRIX_LR=0.03``) > recipe file > default. An
unknown key is an error that names the nearest known one. Nothing below the command line reads the environment.
"""

from golfcore.config.env import CONTEST_ENV
from golfcore.config.learning import OptimConfig, TrainConfig
from golfcore.config.quantization import QuantConfig, parse_group_k
from golfcore.config.recipe import build_recipe, to_tree
from golfcore.config.sections import DATA_HASHES, SECTIONS, DataConfig, EvalConfig, RecipeConfig, TrackConfig
from golfcore.config.toml import decode_toml, from_toml, to_toml
from golfcore.config.values import GivenText, describe, from_mapping, parse_set, parse_value, require, set_key

__all__ = [
    "CONTEST_ENV",
    "DATA_HASHES",
    "SECTIONS",
    "DataConfig",
    "EvalConfig",
    "GivenText",
    "OptimConfig",
    "QuantConfig",
    "RecipeConfig",
    "TrackConfig",
    "TrainConfig",
    "build_recipe",
    "decode_toml",
    "describe",
    "from_mapping",
    "from_toml",
    "parse_group_k",
    "parse_set",
    "parse_value",
    "require",
    "set_key",
    "to_toml",
    "to_tree",
]
