"""Write an entry: a folder with the script, the packed model, the log of the run and the papers."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golfcore.artifact.inspect import summary
from golfcore.config import RecipeConfig
from golfcore.container.codecs import CODECS
from golfcore.data.tokens import Tokens, open_run
from golfcore.disk import new_folder
from golfcore.errors import InputError, UsageError
from golfcore.export.papers import readme, requirements, submission
from golfcore.export.script import Script, make_script
from golfcore.export.trial import strides_of, try_script
from golfcore.hints import command
from golfcore.paths import sha256_file
from golfcore.pipeline.config import read_config
from golfcore.pipeline.pack import matrix_codec
from golfcore.run_folder import ARTIFACT, ENV, LEDGER, LOG, METRICS, SCORE
from golfcore.training.runlog import budget_use, read_json, read_ledger, read_metrics

FAMILIES = ("gpt",)
SCRIPT = "train_gpt.py"


@dataclass(frozen=True)
class Entry:
    """An entry that was written.

    Attributes:
        folder: its folder.
        facts: what its papers say.
        expanded: bytes of the script's sources without compression.
        cap: bytes that the track allows.
        trial: scores with and without golfcore, in fp32; None if it was not tried.
    """

    folder: Path
    facts: dict[str, Any]
    expanded: int
    cap: int
    trial: dict[str, Any] | None

    @property
    def total(self) -> int:
        """Return the bytes that count: those of script and model."""
        return int(self.facts["bytes_code"] + self.facts["bytes_model"])

    @property
    def advice(self) -> str:
        """Return what to change in the recipe so that the entry fits."""
        if not self.facts["fit"]:
            return "quant.fit = true, fewer bits or a smaller model"
        return f"--set quant.margin={self.facts['margin'] + self.total - self.cap + 1_000}"


def export_run(
    run_dir: Path, folder: Path, *, author: str = "", github_id: str = "", title: str = "", tried: bool = True
) -> Entry:
    """Write the entry of a finished run into a new folder.

    Args:
        run_dir: folder of a run that was scored.
        folder: folder to write, which must not exist or be empty.
        author, github_id, title: what the papers say; a name that is not given is a TODO in them.
        tried: whether to run the script without golfcore, and to compare its score with golfcore's.

    Raises:
        InputError: the run was not scored, or its tokens are gone.
        UsageError: a model family that cannot be exported.
        RuleError: the script does not give golfcore's score.
    """
    recipe = read_config(run_dir)
    if recipe.model_family not in FAMILIES:
        raise UsageError(
            f"family {recipe.model_family!r} of {run_dir} cannot be exported; expected one of {', '.join(FAMILIES)}"
        )
    score = read_json(run_dir / SCORE, dict)
    artifact = run_dir / ARTIFACT
    if not score or not artifact.is_file():
        raise InputError(f"{run_dir} was not scored: finish it with {command('run', '--resume', run_dir)}")
    digest = sha256_file(artifact)
    if score["artifact_sha256"] != digest:
        raise InputError(f"{run_dir / SCORE} is not the score of {artifact}: score it again with a resumed run")
    recipe, tokens = open_run(recipe)
    facts = _facts(run_dir, recipe, tokens, score)
    script = _script(recipe, tokens, score, facts, artifact)
    facts |= {
        "author": author, "github_id": github_id, "title": title, "bytes_code": len(script.text.encode()),
        "artifact_sha256": digest, "trial": "",
    }  # fmt: skip
    with new_folder(folder, last="README.md") as place:
        (place / SCRIPT).write_text(script.text, encoding="utf-8")
        shutil.copyfile(artifact, place / ARTIFACT)
        shutil.copyfile(run_dir / LOG, place / f"train_seed{recipe.train.seed}.log")
        trial = None
        if tried:
            trial = try_script(
                place / SCRIPT, place / ARTIFACT, tokens, recipe.data.tokenizer, score, recipe.eval.batch_tokens
            )
            facts["trial"] = (
                f"Tried by `golfcore export` in a Python without golfcore: {trial['val_bpb']:.8f} bits per byte in "
                f"fp32, golfcore {trial['golfcore_val_bpb']:.8f}."
            )
        (place / "submission.json").write_text(json.dumps(submission(recipe, facts), indent=2) + "\n", encoding="utf-8")
        (place / "requirements.txt").write_text(requirements(recipe, facts), encoding="utf-8")
        (place / "README.md").write_text(readme(recipe, facts), encoding="utf-8")
    return Entry(folder, facts, len(script.source.encode()), recipe.track.cap_bytes, trial)


def _facts(run_dir: Path, recipe: RecipeConfig, tokens: Tokens, score: dict[str, Any]) -> dict[str, Any]:
    environment = read_json(run_dir / ENV, dict)
    train_s, eval_s = budget_use(read_ledger(run_dir / LEDGER))
    steps = [row["step"] for row in read_metrics(run_dir / METRICS) if row["kind"] == "train"]
    gpus = environment.get("gpus") or []
    name = Path(recipe.data.path).name
    return {
        "val_loss": score["val_loss"], "val_bpb": score["val_bpb"], "train_s": train_s, "eval_s": eval_s,
        "steps": steps[-1] if steps else 0, "context": score["context"], "strides": strides_of(score),
        "fit": recipe.quant.fit, "margin": recipe.quant.margin,
        "mix": score.get("adapt") == "mix", "bytes_model": score["artifact_bytes"],
        "hardware": f"{len(gpus)} x {gpus[0]}" if gpus else str(environment.get("cpu", "unknown")),
        "torch": environment.get("torch", "2.6"),
        "data_path": "data" if tokens.prepared else f"data/datasets/{name}",
        "tokenizer": f"data/tokenizers/{Path(recipe.data.tokenizer).name}" if recipe.data.tokenizer else "",
    }  # fmt: skip


def _script(recipe: RecipeConfig, tokens: Tokens, score: dict[str, Any], facts: dict[str, Any], packed: Path) -> Script:
    width = recipe.quant.format if recipe.quant.format != "int" else f"int{recipe.quant.matrix_bits}"
    about = summary(packed)
    ids = {codec.name: codec.id for codec in CODECS.values()}
    return make_script(
        recipe,
        {
            "vocab_size": tokens.vocab_size, "codec": f"{width}+{matrix_codec(about)}",
            "precision": score["precision"], "strides": facts["strides"], "whole_rows": not tokens.prepared,
            "data": {"path": facts["data_path"], "tokenizer": facts["tokenizer"]},
        },
        frozenset(ids[row["codec"]] for row in about["chunks"]),
    )  # fmt: skip
