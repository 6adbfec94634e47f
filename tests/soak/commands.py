"""The commands of the command line as a soak runs them: their inputs, their outputs, and how each is gone on with."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from golfcore.run_folder import (
    ARTIFACT,
    CHECKPOINT,
    CONFIG,
    LEDGER,
    PREVIOUS_CHECKPOINT,
    QUANTIZATION_ERRORS,
    QUANTIZED,
    REPORT,
    SCORE,
)
from golfcore.training.checkpoint import load_newest

TEXT, RECIPE = "mini.jsonl", "t.toml"
RUN = "runs/r"  # the finished run that other commands begin with
STEPS = 60

TINY = f"""
[track]
train_s = 0
eval_s = 60
cap_bytes = 200000
[data]
vocab_size = 320
[model]
num_layers = 2
model_dim = 64
num_heads = 2
num_kv_heads = 1
[train]
iterations = {STEPS}
batch_tokens = 1024
micro_batch_tokens = 1024
seq_len = 128
warmup_steps = 1
log_every = 7
checkpoint_every_s = 0.3
precision = "fp32"
attention = "own"
[quant]
method = "rtn"
"""


def write_inputs(folder: Path) -> None:
    """A text of made-up words and the tiny recipe; the same every time."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(200)]
    with (folder / TEXT).open("w") as f:
        for _ in range(60):
            f.write(json.dumps({"text": " ".join(rng.choices(words, k=120)) + "."}) + "\n")
    (folder / RECIPE).write_text(TINY)


@dataclass(frozen=True)
class Case:
    """A command.

    Attributes:
        words: its words; paths are relative to the working folder.
        outputs: the files and folders that it makes; what is in them is compared.
        inputs: makes its inputs out of those of a finished run, in a folder; by default they are there.
        resume: the words that go on with it, given the folder, none if it is done; by default the same words again.
        prints: whether standard output has the numbers that are compared, as JSON; ``ignored`` keys are left out.
        outlives: whether processes of it may go on after it was killed: a sweep's runs do, and the sweep finds them.
        once: whether it refuses to make what is there already.
    """

    words: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    inputs: Callable[[Path], None] = lambda folder: None
    resume: Callable[[Path], list[str]] | None = None
    prints: bool = False
    ignored: tuple[str, ...] = ()
    outlives: bool = False
    once: bool = False


def _resume(command: str, run_dir: str) -> Callable[[Path], list[str]]:
    """The way on that golfcore names: --resume if there is a checkpoint; else the folder is removed, and again.

    A training that has ended is not gone on with.
    """

    def words(folder: Path) -> list[str]:
        at = folder / run_dir
        if (at / CONFIG).is_file() and ((at / CHECKPOINT).is_file() or (at / PREVIOUS_CHECKPOINT).is_file()):
            ended = command == "train" and load_newest(at)[0]["final"]
            return [] if ended else [command, "--resume", run_dir]
        shutil.rmtree(at, ignore_errors=True)
        return [command, RECIPE, "--text", TEXT, "--run-id", Path(run_dir).name]

    return words


def _copy(name: str, *without: str) -> Callable[[Path], None]:
    """A copy of the finished run, without what later stages made."""

    def make(folder: Path) -> None:
        shutil.copytree(folder / RUN, folder / "runs" / name, ignore=shutil.ignore_patterns(*without))

    return make


def _half(folder: Path) -> None:
    """The finished run, as if it had been cut off before its evaluation began."""
    _copy("h", SCORE, REPORT)(folder)
    ledger = folder / "runs/h" / LEDGER
    ledger.write_text(json.dumps([row for row in json.loads(ledger.read_text()) if row["phase"] != "evaluate"]))


def _unpacked(folder: Path) -> None:
    from golfcore.artifact import folder as unpacked
    from golfcore.artifact.interchange import write_safetensors
    from golfcore.container import Container

    with Container.open(folder / RUN / ARTIFACT) as file:
        unpacked.unpack(file, folder / "unpacked")
        write_safetensors(file, folder / "model.safetensors")


def _tokens(folder: Path) -> None:
    from golfcore.tokenizer import Tokenizer

    Tokenizer().save(folder / "bytes.bpe")
    (folder / "some.ids").write_text(" ".join(map(str, range(4, 260))))


def _prepared(folder: Path) -> None:
    [cached] = (folder / "cache/prepared").iterdir()
    shutil.copytree(cached, folder / "prepared")


def _two_runs(folder: Path) -> None:
    _copy("s")(folder)


TIMES = (
    "train_s",
    "eval_s",
    "encode_s",
    "decode_s",
    "encode_mb_s",
    "decode_mb_s",
    "pace",
    "made_by",
    "report",
    "seconds",
    "ledger",
    "source",
)
MODEL = f"{RUN}/{ARTIFACT}"
CASES: Mapping[str, Case] = {
    "run": Case(("run", RECIPE, "--text", TEXT, "--run-id", "r"), (RUN,), resume=_resume("run", RUN)),
    "train": Case(
        ("train", RECIPE, "--text", TEXT, "--run-id", "t", "--json"), ("runs/t",), resume=_resume("train", "runs/t")
    ),
    "resume": Case(("run", "--resume", "runs/h"), ("runs/h",), inputs=_half),
    "quantize": Case(
        ("quantize", "runs/q", "--json"),
        ("runs/q",),
        inputs=_copy("q", QUANTIZED, QUANTIZATION_ERRORS, ARTIFACT, SCORE, REPORT),
        prints=True,
    ),
    "gptq": Case(
        ("quantize", "runs/g", "--set", "quant.method=gptq", "--set", "quant.calibration_tokens=2048", "--json"),
        ("runs/g",),
        inputs=_copy("g", QUANTIZED, QUANTIZATION_ERRORS, ARTIFACT, SCORE, REPORT),
        prints=True,
    ),
    "pack": Case(("pack", "runs/p", "--json"), ("runs/p",), inputs=_copy("p", ARTIFACT, SCORE, REPORT), prints=True),
    "eval": Case(("eval", MODEL, "--text", TEXT, "--json"), prints=True, ignored=TIMES),
    "probe": Case(("probe", MODEL, "--text", TEXT, "--tokens", "70", "--json"), prints=True, ignored=("probes",)),
    "sample": Case(
        ("sample", MODEL, "--prompt", "the", "--tokens", "300", "--seed", "1", "--json"),
        prints=True,
        ignored=("seconds",),
    ),
    "report": Case(("report", "runs/e", "--json"), ("runs/e",), inputs=_copy("e", REPORT), prints=True, ignored=TIMES),
    "compare": Case(
        ("report", "runs", "--compare", "r", "--json"),
        ("runs/compare.html",),
        inputs=_two_runs,
        prints=True,
        ignored=TIMES,
    ),
    "prepare": Case(
        ("data", "prepare", "--text", TEXT, "-o", "made", "--vocab-size", "300", "--json"),
        ("made",),
        prints=True,
        once=True,
    ),
    "data verify": Case(("data", "verify", "prepared", "--json"), inputs=_prepared, prints=True),
    "tok train": Case(
        ("tok", "train", TEXT, "-o", "made.bpe", "--vocab-size", "330", "--json"),
        ("made.bpe",),
        prints=True,
        ignored=TIMES,
    ),
    "tok encode": Case(("tok", "encode", TEXT, "-t", "bytes.bpe", "--json"), inputs=_tokens, prints=True),
    "tok decode": Case(("tok", "decode", "some.ids", "-t", "bytes.bpe", "--json"), inputs=_tokens, prints=True),
    "tok audit": Case(("tok", "audit", TEXT, "-t", "bytes.bpe", "--json"), inputs=_tokens, prints=True, ignored=TIMES),
    "export": Case(("export", RUN, "-o", "entry", "--no-try"), ("entry",)),
    "inspect": Case(("inspect", MODEL, "--json"), prints=True),
    "verify": Case(("verify", MODEL, "--json"), prints=True),
    "diff": Case(("diff", MODEL, MODEL, "--json"), prints=True),
    "unpack": Case(("unpack", MODEL, "-o", "made", "--json"), ("made",), prints=True, once=True),
    "unpack safetensors": Case(
        ("unpack", MODEL, "-o", "made.safetensors", "--to", "safetensors", "--json"), ("made.safetensors",), prints=True
    ),
    "pack folder": Case(
        ("pack", "unpacked", "-o", "made.golf", "--json"), ("made.golf",), inputs=_unpacked, prints=True
    ),
    "pack safetensors": Case(
        ("pack", "model.safetensors", "-o", "made.golf", "--json"), ("made.golf",), inputs=_unpacked, prints=True
    ),
    "plan": Case(("plan", RECIPE, "--gpus", "8", "--json"), prints=True),
    "recipes show": Case(("recipes", "show", RECIPE)),
    "recipes diff": Case(("recipes", "diff", RECIPE, "pocket")),
    "recipes explain": Case(("recipes", "explain", "model.num_layers")),
    "recipes list": Case(("recipes", "list")),
    "kernels list": Case(("kernels", "list")),
    "doctor": Case(("doctor",)),
    "sweep": Case(
        (
            "sweep",
            RECIPE,
            "--text",
            TEXT,
            "--set",
            "optim.matrix_lr=0.02,0.04",
            "--set",
            "train.iterations=12",
            "--stop-margin",
            "0",
            "--folder",
            "sweep",
            "--json",
        ),
        ("sweep/sweep.db", "sweep/recipe.toml"),
        outlives=True,
    ),
    "kernels test": Case(("kernels", "test", "norm")),
}

# Commands that a soak does not run: they measure times, fetch from the network, or only read the logs of entries.
LEFT_OUT = {"bench", "ablate", "check", "data get", "preflight", "stats"}
