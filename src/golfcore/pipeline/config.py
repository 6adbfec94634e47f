"""Write and read the resolved recipe in a run's folder, and check that its model can fit the byte cap."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from golfcore.config import RecipeConfig, build_recipe, decode_toml, from_toml, set_key, to_toml, to_tree
from golfcore.errors import FormatError, InputError, RuleError
from golfcore.model import family_configs, get_family
from golfcore.paths import atomic_write
from golfcore.run_folder import CONFIG
from golfcore.training.next_step import next_step


def write_config(run_dir: Path, recipe: RecipeConfig) -> None:
    """Write every resolved key into the run's folder, as a recipe file that gives the same run."""
    with atomic_write(run_dir / CONFIG, "w") as f:
        f.write(to_toml(to_tree(recipe)))


def read_config(run_dir: Path) -> RecipeConfig:
    """Read the recipe of a run's folder.

    Raises:
        InputError: ``run_dir`` is not the folder of a run.
        FormatError: its recipe is not TOML.
    """
    path = run_dir / CONFIG
    try:
        tree = from_toml(decode_toml(path.read_bytes(), str(path)))
    except OSError as error:
        raise InputError(
            f"{run_dir} is not a run folder: {CONFIG} cannot be read ({error.strerror}); {next_step(run_dir)}"
        ) from error
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from error
    return build_recipe(tree, family_configs(), str(path))


def changed(recipe: RecipeConfig, changes: Mapping[str, Any]) -> RecipeConfig:
    """Return ``recipe`` with the given keys (``section.key``) set to other values.

    Raises:
        UsageError: an unknown key, or a value out of range.
    """
    tree = to_tree(recipe)
    for key, value in changes.items():
        set_key(tree, key, value)
    return build_recipe(tree, family_configs(), recipe.name)


def check_fits(recipe: RecipeConfig, vocab_size: int) -> int:
    """Predict the bytes of the packed weights before any training, and raise if they cannot fit.

    Raises:
        RuleError: the prediction is more than a tenth above the track's cap.
    """
    from golfcore.quant import predict_bytes

    predicted = predict_bytes(get_family(recipe.model_family), recipe.model, vocab_size, recipe.quant)
    if predicted > 1.1 * recipe.track.cap_bytes:
        raise RuleError(
            f"the model will not fit: about {predicted:,} bytes of weights, the cap of track {recipe.track.name} is "
            f"{recipe.track.cap_bytes:,}; lower model.model_dim or model.num_layers, or raise quant.matrix_k"
        )
    return predicted
