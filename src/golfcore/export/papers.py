"""Write the papers of an entry: README.md, submission.json and requirements.txt."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from golfcore.config import RecipeConfig, to_tree
from golfcore.recipes.explain import explain

SCHEMA = "submission.schema.json"
PLAIN = ("name", "data", "track")  # sections of a recipe that are no part of the method
UNKNOWN = "TODO"
STANDS_FOR = {
    "states": "the script rounds to the nearest integer where golfcore searched a trellis of {} states, so the file "
    "that it makes is a little worse for its bytes than the model.golf beside it",
    "cuda_graphs": "the script does not replay CUDA graphs",
    "val_every": "the script does not validate during training",
}


def schema() -> dict[str, Any]:
    """Return the JSON Schema of submission.json."""
    found: dict[str, Any] = json.loads(files("golfcore.export").joinpath(SCHEMA).read_text(encoding="utf-8"))
    return found


def submission(recipe: RecipeConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of submission.json; ``facts`` is from ``golfcore.export.folder``."""
    return {
        "author": facts["author"] or UNKNOWN,
        "github_id": facts["github_id"] or UNKNOWN,
        "name": facts["title"] or recipe.name,
        "date": datetime.date.today().isoformat(),
        "track": recipe.track.name,
        "blurb": ", ".join(f"{key} {value}" for key, value, _ in _parts(recipe)[:8]),
        "val_loss": facts["val_loss"],
        "val_bpb": facts["val_bpb"],
        "bytes_total": facts["bytes_code"] + facts["bytes_model"],
        "bytes_code": facts["bytes_code"],
        "bytes_model": facts["bytes_model"],
        "seeds": [recipe.train.seed],
        "seed_results": {
            str(recipe.train.seed): {
                "val_bpb": facts["val_bpb"], "val_loss": facts["val_loss"], "bytes_model": facts["bytes_model"],
                "training_time_seconds": facts["train_s"], "eval_time_seconds": facts["eval_s"],
            }
        },
        "step_stop": facts["steps"],
        "training_time_seconds": facts["train_s"],
        "eval_time_seconds": facts["eval_s"],
        "hardware": facts["hardware"],
        "pytorch_version": facts["torch"],
        "artifact_sha256": facts["artifact_sha256"],
    }  # fmt: skip


def readme(recipe: RecipeConfig, facts: Mapping[str, Any]) -> str:
    """Return the README.md of an entry, drafted from the run."""
    total, cap = facts["bytes_code"] + facts["bytes_model"], recipe.track.cap_bytes
    room = f"{cap - total:,} below the cap" if total <= cap else f"{total - cap:,} above the cap"
    rows = [
        ("seed", recipe.train.seed), ("val_loss, nats per token", f"{facts['val_loss']:.8f}"),
        ("val_bpb, bits per byte", f"{facts['val_bpb']:.8f}"), ("steps", facts["steps"]),
        ("training, s", f"{facts['train_s']:.1f} of {recipe.track.train_s:g}"),
        ("evaluation, s", f"{facts['eval_s']:.1f} of {recipe.track.eval_s:g}"),
        ("train_gpt.py, bytes", f"{facts['bytes_code']:,}"), ("model.golf, bytes", f"{facts['bytes_model']:,}"),
        ("together", f"{total:,} of {cap:,}: {room}"), ("hardware", facts["hardware"]),
    ]  # fmt: skip
    parts = [f"- `{key} = {value}`: {text}" for key, value, text in _parts(recipe)] or ["- Every key has its default."]
    limits = [text.format(value) for name, text in STANDS_FOR.items() if (value := _set(recipe, name))]
    limits.append("it writes no checkpoints, and a run that is cut off begins again")
    return "\n".join([
        f"# {facts['title'] or recipe.name}: {facts['val_bpb']:.4f} bits per byte", "",
        "Drafted by `golfcore export` from one run; say in your own words what is new before you file it.", "",
        "| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows), "",
        "## Method", "", *parts, "",
        "## Reproduce", "",
        "```", "pip install -r requirements.txt",
        f"DATA_PATH={facts['data_path']} {_tokenizer(facts)}python train_gpt.py --eval model.golf   # the score above",
        f"DATA_PATH={facts['data_path']} {_tokenizer(facts)}SEED={recipe.train.seed} torchrun --standalone "
        "--nproc_per_node=8 train_gpt.py   # trains final_model.golf, and scores it", "```", "",
        "`train_gpt.py` needs nothing of golfcore. Its modules are golfcore's own, without comments and annotations; "
        "operations are plain torch. It trains, quantizes, packs and scores. What it does otherwise than golfcore:", "",
        *(f"- {text}." for text in limits), "",
        "## Evaluation", "",
        f"Windows of {facts['context']} tokens; [first token, stride]: {facts['strides']}. Each target is scored once, "
        "in the order of the text, from the tokens before it."
        + (" Counts of the tokens that were already scored are mixed into each distribution." if facts["mix"] else ""),
        facts["trial"], "",
    ])  # fmt: skip


def requirements(recipe: RecipeConfig, facts: Mapping[str, Any]) -> str:
    """Return the content of requirements.txt."""
    lines = [f"torch=={str(facts['torch']).partition('+')[0]}", "numpy", "zstandard"]
    return "\n".join([*lines, *(["sentencepiece"] if facts["tokenizer"] else [])]) + "\n"


def _tokenizer(facts: Mapping[str, Any]) -> str:
    return f"TOKENIZER_PATH={facts['tokenizer']} " if facts["tokenizer"] else ""


def _set(recipe: RecipeConfig, name: str) -> Any:
    """Return the value of a key that the script does not follow, or 0 if the run did not use it."""
    if name == "states":
        return recipe.quant.states if recipe.quant.method == "gptq" else 0
    return getattr(recipe.train, name)


def _parts(recipe: RecipeConfig) -> list[tuple[str, str, str]]:
    """Return (key, value, meaning) of every key that differs from its default."""
    found = []
    for section, table in to_tree(recipe).items():
        if section in PLAIN or not isinstance(table, dict):
            continue
        for name, value in table.items():
            if name == "family":
                continue
            about = explain(f"{section}.{name}")
            plain = list(value) if isinstance(value, tuple) else value
            default = list(about.default) if isinstance(about.default, tuple) else about.default
            if plain != default:
                found.append((f"{section}.{name}", json.dumps(plain), about.summary))
    return found
