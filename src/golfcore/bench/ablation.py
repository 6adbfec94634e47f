"""Measure the effect of each part of a recipe by runs without it, over seeds, on a held-out part of the training text.

A trial is a whole run: trained, quantized, packed and scored from the packed bytes. Only its text differs: documents at
the end of the training split are held out and scored instead of the validation text, which no trial ever sees.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from golfcore.artifact.model_io import load_model, save_model
from golfcore.bench import store
from golfcore.config import RecipeConfig, build_recipe, set_key, to_tree
from golfcore.data.contracts import BOS, TokenSource
from golfcore.errors import FormatError, InputError, UsageError
from golfcore.evaluate.scorer import ScoredText, score
from golfcore.machine import environment
from golfcore.model import family_configs, get_family
from golfcore.pipeline.setup import build_trainer, token_loader
from golfcore.progress import Tick, silent
from golfcore.quant import quantize_state
from golfcore.ranges import BYTES, COUNT, FACTOR, SECONDS, SEED
from golfcore.ranks.world import World
from golfcore.stats import mean_interval
from golfcore.suggest import nearest
from golfcore.training.runlog import RunLog

WHOLE = "(whole)"

# What a recipe is without each part: ``section.key -> value``. A recipe has a part where one of its values differs.
PARTS: Mapping[str, Mapping[str, Any]] = {
    "bigram": {"model.bigram_slots": 0, "model.bigram_dim": 0},
    "smear": {"model.smear": "none"},
    "factored embedding": {"model.embed_dim": 0},
    "value embeddings": {"model.value_embed_layers": ""},
    "XSA": {"model.xsa_layers": ""},
    "attention gate": {"model.attn_gate": "none"},
    "partial RoPE": {"model.rope_dims": 0},
    "packed documents": {"model.packed_documents": False, "model.max_segment": 0},
    "leaky ReLU or SwiGLU": {"model.activation": "relu2"},
    "resid_mix": {"model.resid_mix": "none"},
    "U-Net skips": {"model.skips": "none"},
    "gates of the skips": {"model.skips": "weighted"},
    "layer scale": {"model.layer_scale": False},
    "parallel residuals": {"model.lanes_from": 0},
    "depth recurrence": {"model.loop_layers": "", "model.loop_starts": ()},
    "polynomial soft-cap": {"model.softcap": "tanh"},
    "Z-loss": {"model.z_loss": 0.0},
    "orthogonal start": {"model.init": "uniform"},
    "Polar Express": {"optim.muon_coefficients": "quintic"},
    "row norm of Muon": {"optim.muon_row_norm": False},
    "rate by depth": {"optim.matrix_lr_late": 0.0},
    "weight decay of matrices": {"optim.muon_weight_decay": 0.0},
    "weight decay of tables": {"optim.embed_weight_decay": 0.0},
    "clipping": {"optim.grad_clip_norm": 0.0},
    "EMA": {"train.ema_decay": 0.0},
    "SWA": {"train.swa_start": 0.0},
    "floor of the rate": {"train.lr_floor": 0.0},
    "batch ramp": {"train.batch_ramp": (), "train.batch_ramp_until": ()},
    "length ramp": {"train.seq_ramp": (), "train.seq_ramp_until": ()},
    "sliding evaluation": {"eval.stride": 0},
}


def parts_of(recipe: RecipeConfig) -> list[str]:
    """Return the parts that ``recipe`` has, in the order of ``PARTS``."""
    tree = to_tree(recipe)

    def differs(dotted: str, value: Any) -> bool:
        section, key = dotted.split(".")
        return bool(tree[section].get(key, value) != value)

    return [part for part, keys in PARTS.items() if any(differs(key, value) for key, value in keys.items())]


def without(recipe: RecipeConfig, part: str) -> RecipeConfig:
    """Return ``recipe`` without one of its parts; ``WHOLE`` leaves it unchanged.

    Raises:
        UsageError: an unknown part, or one that another part of the recipe needs.
    """
    if part == WHOLE:
        return recipe
    if part not in PARTS:
        raise UsageError(f"unknown part {part!r}{nearest(part, PARTS)}; known: {', '.join(PARTS)}")
    tree = to_tree(recipe)
    for key, value in PARTS[part].items():
        set_key(tree, key, value)
    return build_recipe(tree, family_configs(), f"{recipe.name} without {part}")


class TokenView:
    """The first ``stop`` tokens of a source."""

    def __init__(self, source: TokenSource, stop: int) -> None:
        self._source, self._stop = source, stop

    def __len__(self) -> int:
        return self._stop

    def __getitem__(self, where: slice) -> Any:
        start, stop, _ = where.indices(self._stop)
        return self._source[start:stop]


def hold_out(source: TokenSource, token_bytes: np.ndarray, tokens: int) -> tuple[TokenView, ScoredText]:
    """Split off the documents that begin among the last ``tokens`` tokens; return the rest and them.

    Args:
        source: the training split.
        token_bytes: bytes of text by id.
        tokens: about how many tokens to hold out; documents stay whole.

    Raises:
        InputError: fewer than two documents, or nothing would be left to train on.
    """
    tail = np.asarray(source[max(0, len(source) - tokens) : len(source)])
    marks = np.flatnonzero(tail == BOS)
    cut = len(source) - len(tail) + int(marks[0]) if len(marks) else 0
    if cut == 0:
        raise InputError(f"{len(source):,} tokens of training text: too few to hold out {tokens:,}; give more text")
    ids = np.ascontiguousarray(source[cut : len(source)])
    sizes = token_bytes[ids].astype(np.int64)
    digest = hashlib.sha256(ids.astype("<u2").tobytes()).hexdigest()
    return TokenView(source, cut), ScoredText(ids, sizes, int(sizes[1:].sum()), digest)


@dataclass(frozen=True)
class Trial:
    """One run and its results; ``limit`` is its training time in seconds or its number of steps, as text."""

    recipe: str
    config: str  # hash of every key, seed and limit apart
    data: str  # hash of the held-out tokens
    limit: str
    part: str
    seed: int
    steps: int
    step_ms: float
    bytes: int
    bpb: float


def identity(recipe: RecipeConfig) -> str:
    """Return 12 digits of a hash of the recipe, without its seed and the paths of its data."""
    tree = to_tree(recipe)
    tree["train"]["seed"] = tree["data"]["path"] = tree["data"]["tokenizer"] = None
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Bench:
    """The text and the tokenizer that all trials of a recipe share."""

    recipe: RecipeConfig
    vocab_size: int
    tokenizer: bytes  # counted in the artifact; empty where the contest does not count it
    source: TokenSource
    text: ScoredText

    def limit(self) -> str:
        seconds = self.recipe.track.train_s
        return f"{seconds:g} s" if seconds else f"{self.recipe.train.iterations} steps"

    def trial(self, part: str, seed: int, tick: Tick = silent) -> Trial:
        """Train, pack and score the recipe without ``part``."""
        recipe = without(self.recipe, part)
        recipe = dataclasses.replace(
            recipe, train=dataclasses.replace(recipe.train, seed=seed, val_every=0, checkpoint_every_s=0.0)
        )
        family = get_family(recipe.model_family)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        world = World(rank=0, size=1, device=device)
        with tempfile.TemporaryDirectory() as folder, token_loader(recipe, self.source, world) as loader:
            log = RunLog(Path(folder), primary=True)
            with build_trainer(
                recipe, self.vocab_size, loader, world, log, on_progress=lambda share, note: tick(share, 1.0, note)
            ) as trainer:
                trainer.warm_up()
                state = trainer.run()
            module = trainer.module
            # Rounded, not searched: a search would fill the cap whatever a part costs, and so hide its bytes.
            rounding = dataclasses.replace(recipe.quant, method="rtn", fit=False)
            stored = quantize_state(module.state_dict(), module.parameter_roles(), rounding)
            path = Path(folder) / "trial.golf"
            save_model(path, family, recipe.model, self.vocab_size, stored, self.tokenizer, {})
            loaded, size = load_model(path).module.to(device), path.stat().st_size
        loaded.activation_dtype = module.activation_dtype
        context = recipe.eval.context or recipe.train.seq_len
        result = score(
            loaded, self.text, context=context, stride=recipe.eval.fixed_stride(context),
            batch_tokens=recipe.eval.batch_tokens,
        )  # fmt: skip
        return Trial(
            recipe=self.recipe.name, config=identity(self.recipe), data=self.text.sha256[:12], limit=self.limit(),
            part=part, seed=seed, steps=state.step, step_ms=round(1000 * state.train_s / state.step, 1), bytes=size,
            bpb=round(result.val_bpb, 6),
        )  # fmt: skip


# --- results ----------------------------------------------------------------------------------------------------------

ABOUT = ("date", "commit", "cpu", "cores", "threads", "isa", "torch")
COLUMNS = (*ABOUT, *(f.name for f in fields(Trial)))


def append(path: Path, trial: Trial) -> None:
    """Append a trial to a CSV file, with date, commit and machine; earlier rows stay as they are."""
    now = environment()
    about = {name: now.get(name, "") for name in ABOUT}
    about |= {"date": now["started"], "commit": now["commit"] + ("+" if now["dirty"] else "")}
    if path.exists():
        read(path)
    store.append(path, about, [trial])


def read(path: Path) -> list[Trial]:
    """Read the trials of a file that ``append`` wrote, oldest first.

    Raises:
        FormatError: the columns or numbers are not those of trials.
    """
    numbers = {"seed": SEED, "steps": COUNT, "bytes": BYTES, "step_ms": SECONDS, "bpb": FACTOR}
    try:
        with path.open(newline="", encoding="utf-8") as f:
            reader = csv.DictReader(f)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise FormatError(
                    f"{path}: its columns are not those of trials; move it away or save under another name"
                )
            trials = []
            for row in reader:
                values: dict[str, Any] = {field.name: row[field.name] for field in fields(Trial)}
                for name, allowed in numbers.items():
                    values[name] = (int if allowed.whole else float)(values[name])
                    allowed.check(f"{path}, line {reader.line_num}: {name}", values[name], FormatError)
                trials.append(Trial(**values))
            return trials
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: a row is not a trial's ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Worth:
    """The effect of a part: score without it less score of the whole, by seed; positive if the part helps.

    ``half`` is the half-width of the 95 % interval of ``loss`` (Student's t over the seeds), None with one seed.
    """

    part: str
    seeds: int
    bpb: float
    loss: float
    half: float | None
    bytes: float
    step_ms: float


def worths(trials: Sequence[Trial]) -> list[Worth]:
    """Return one row per part, the whole first, then by effect; seeds that the whole lacks do not count."""
    by_part: dict[str, dict[int, Trial]] = {}
    for trial in trials:
        by_part.setdefault(trial.part, {})[trial.seed] = trial  # a later row of a seed replaces the earlier
    whole = by_part.get(WHOLE, {})
    rows = []
    for part, by_seed in by_part.items():
        seeds = sorted(by_seed.keys() & whole.keys())
        if not seeds:
            continue
        losses = [by_seed[s].bpb - whole[s].bpb for s in seeds]
        spread = [by_seed[s].bpb for s in seeds] if part == WHOLE else losses
        rows.append(
            Worth(
                part, len(seeds), statistics.fmean(by_seed[s].bpb for s in seeds), statistics.fmean(losses),
                mean_interval(spread)[1], statistics.fmean(by_seed[s].bytes for s in seeds),
                statistics.fmean(by_seed[s].step_ms for s in seeds),
            )
        )  # fmt: skip
    return sorted(rows, key=lambda row: (row.part != WHOLE, -row.loss))
