"""Numbers from recipes, the environment, files and callers pass one check of range."""

from __future__ import annotations

import csv
import json
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from tiny import TINY, VOCAB

import golfcore
from golfcore.artifact.model_io import load_model, save_model
from golfcore.bench import ablation, store
from golfcore.bench.harness import Row
from golfcore.config import CONTEST_ENV, SECTIONS, EvalConfig, TrackConfig, TrainConfig, from_mapping
from golfcore.container import write
from golfcore.data.manifest import Manifest
from golfcore.data.prepare import prepare
from golfcore.data.shards import header, read_header
from golfcore.errors import FormatError, GolfError, UsageError
from golfcore.model import family_configs, get_family
from golfcore.pipeline.score import windows_of
from golfcore.ranges import COUNT, PART, SHARE, SOME_PART, Range, field_types, numbers_in, range_of, shown
from golfcore.ranks.rendezvous import Place
from golfcore.recipes import load_recipe
from golfcore.report import build_report
from golfcore.tokenizer import Tokenizer
from golfcore.training.checkpoint import load_checkpoint, save_checkpoint
from golfcore.training.runlog import read_ledger, read_metrics

HUGE = 10**30
FLOATS = (math.nan, math.inf, -math.inf)


# --- the check itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "inside", "outside"),
    [
        (COUNT, [0, 5, 10**12, np.int64(7)], [-1, 10**12 + 1, HUGE, 1.0, 1.5, True, "1", None, *FLOATS]),
        (SHARE, [0, 1, 0.5, np.float32(0.25)], [-1e-9, 1.0000001, HUGE, False, "0.5", *FLOATS]),
        (PART, [0, 0.999], [1, 1.0, *FLOATS]),
        (SOME_PART, [1e-300, 0.5], [0, 0.0, 1, *FLOATS]),
    ],
)
def test_a_range_holds_its_numbers_alone(allowed: Range, inside: list[Any], outside: list[Any]) -> None:
    for value in inside:
        allowed.check("x", value)
    for value in outside:
        with pytest.raises(UsageError, match=f"x = .*: expected {allowed}"):
            allowed.check("x", value)


def test_an_error_is_one_line_however_large_the_number() -> None:
    assert shown(1 << 20_000) == "an integer of 20,001 bits"
    assert len(shown("x\n" * 5000)) == 200 and "\n" not in shown("x\n" * 5000)
    with pytest.raises(FormatError, match=r"^f: n = an integer of 20,001 bits: expected a whole number, 0 to 1,000"):
        COUNT.check("f: n", 1 << 20_000, FormatError)


# --- recipes ----------------------------------------------------------------------------------------------------------

CONFIGS = {**SECTIONS, "model": family_configs()["gpt"]}


def ranges(kind: Any) -> tuple[list[Range], bool]:
    """The ranges within a type, and whether a number in it has none."""
    if typing.get_origin(kind) is Annotated:
        return ([found], False) if (found := range_of(kind)) else ranges(typing.get_args(kind)[0])
    if kind in (int, float):
        return [], True
    inner = [] if typing.get_origin(kind) is Literal else [ranges(part) for part in typing.get_args(kind)]
    return [found for part, _ in inner for found in part], any(bare for _, bare in inner)


KEYS = [(f"{section}.{name}", kind) for section, cls in CONFIGS.items() for name, kind in field_types(cls).items()]
NUMERIC = [(key, ranges(kind)[0][0], kind) for key, kind in KEYS if ranges(kind)[0]]


def test_every_numeric_key_of_a_recipe_declares_its_range() -> None:
    assert [key for key, kind in KEYS if ranges(kind)[1]] == []
    assert len(NUMERIC) > 80


@pytest.mark.parametrize(("key", "allowed", "kind"), NUMERIC, ids=[key for key, _, _ in NUMERIC])
def test_a_key_refuses_what_is_out_of_range(key: str, allowed: Range, kind: Any) -> None:
    listed = typing.get_origin(kind) is tuple
    for text in (
        "-1",
        "-5",
        "nan",
        "inf",
        "-inf",
        str(HUGE),
        "1e400",
        "0x" + "f" * 5000,
        *(["0"] if 0 not in allowed else []),
    ):
        with pytest.raises(UsageError) as caught:
            load_recipe("pocket", environment={}, sets=[f"{key}={f'[{text}]' if listed else text}"])
        assert str(caught.value).startswith(f"{key} = ") and "expected" in str(caught.value), caught.value
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("variable", [name for name, key in CONTEST_ENV.items() if key in {k for k, _, _ in NUMERIC}])
def test_a_variable_refuses_what_is_out_of_range(variable: str) -> None:
    for text in ("-1", "nan", "inf", str(HUGE)):
        with pytest.raises(UsageError, match=f"{CONTEST_ENV[variable]} = .*: expected"):
            load_recipe("pocket", environment={variable: text})


def test_a_config_made_in_python_is_checked_too() -> None:
    for make, name in (
        (lambda: TrackConfig(train_s=math.nan), "track.train_s = nan"),
        (lambda: TrainConfig(seed=-1), "train.seed = -1"),
        (lambda: EvalConfig(stride=-1), "eval.stride = -1"),
        (lambda: replace(TINY, logit_softcap=math.inf), "model.logit_softcap = inf"),
        (lambda: replace(TINY, num_layers=HUGE), f"model.num_layers = {HUGE}"),
        (lambda: TrainConfig(batch_ramp=(0,), batch_ramp_until=(0.5,)), "train.batch_ramp = 0"),
    ):
        with pytest.raises(UsageError, match=name):
            make()


@dataclass(frozen=True)
class Strange:
    """The config of a family of somebody else, which declares no ranges."""

    rate: float = 0.1
    width: int = 1


def test_a_family_without_ranges_gets_finite_numbers() -> None:
    assert from_mapping(Strange, {"rate": -2.5, "width": -3}, "model") == Strange(-2.5, -3)
    for values in ({"rate": math.nan}, {"rate": -math.inf}, {"width": HUGE}):
        with pytest.raises(UsageError, match=r"model\.(rate|width) = "):
            from_mapping(Strange, values, "model")
    assert [name for _, name, _ in numbers_in(tuple[int, ...], (1, 2), "x")] == ["x", "x"]


# --- callers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda v: golfcore.score("m.golf", text="t.txt", context=v), "context"),
        (lambda v: golfcore.score("m.golf", text="t.txt", stride=v), "stride"),
        (lambda v: golfcore.score("m.golf", text="t.txt", budget_s=v), "budget_s"),
        (lambda v: golfcore.score("m.golf", text="t.txt", batch_tokens=v), "batch_tokens"),
        (lambda v: golfcore.quantize("run", fit=v), "fit"),
        (lambda v: golfcore.quantize("run", margin=v), "margin"),
        (lambda v: Tokenizer.train([b"text"], v), "vocab_size"),
        (lambda v: Tokenizer.train([b"text"], 260, threads=v), "threads"),
        (lambda v: prepare([Path("t.txt")], Path("out"), vocab_size=v), "vocab_size"),
        (lambda v: prepare([Path("t.txt")], Path("out"), val_fraction=v), "val_fraction"),
        (lambda v: prepare([Path("t.txt")], Path("out"), threads=v), "threads"),
        (lambda v: golfcore.load_recipe("pocket", {"eval.context": v}), "eval.context"),
    ],
)
def test_a_caller_is_told_the_range(call: Callable[[Any], object], name: str) -> None:
    for value in (-1, -5, HUGE, *FLOATS):
        with pytest.raises(UsageError, match=f"{name} = .*: expected"):
            call(value)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"])
@pytest.mark.parametrize("text", ["-1", "nan", str(HUGE), "9" * 5000, "1.5", "٣", "²", "", " 1", "65537"])
def test_the_variables_of_torchrun_are_checked(name: str, text: str) -> None:
    fine = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}
    assert Place.from_environment(fine).size == 2
    with pytest.raises(UsageError, match=f"{name} = .*: expected"):
        Place.from_environment({**fine, name: text})


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("ranges") / "prepared"
    prepare([text_file], folder, vocab_size=260)
    return folder


MANIFEST_NUMBERS = [
    ("format",), ("duplicates",), ("val_fraction",), ("vocab_size",), *((split, name) for split in ("train", "val")
    for name in ("docs", "tokens", "bytes")), ("train", "shards", 0, "tokens"),
]  # fmt: skip


@pytest.mark.parametrize("place", MANIFEST_NUMBERS, ids=str)
@pytest.mark.parametrize("value", [-1, HUGE, math.nan, math.inf, True, "1", None, 1.5, [], {}], ids=str)
def test_the_manifest_of_tokens(prepared: Path, tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    tree = json.loads((prepared / "manifest.json").read_text(encoding="utf-8"))
    inner = tree
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (tmp_path / "manifest.json").write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(FormatError, match=f"{place[-1]}"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("tokens", [0, -1, -(2**31), 2**31 - 1])
def test_the_header_of_a_shard(tmp_path: Path, tokens: int) -> None:
    path = tmp_path / "fineweb_train_000000.bin"
    path.write_bytes(header(tokens) + bytes(8))
    with pytest.raises(FormatError, match=r"fineweb_train_000000\.bin: "):
        read_header(path)


@pytest.mark.parametrize("name", ["step", "train_s", "tokens", "averaged"])
@pytest.mark.parametrize("value", [-1, HUGE, math.nan, math.inf, True, "1", None], ids=str)
def test_a_checkpoint(tmp_path: Path, name: str, value: Any) -> None:
    fine = {"step": 1, "train_s": 0.5, "tokens": 5, "averaged": 0}
    path = save_checkpoint(tmp_path, fine)
    assert load_checkpoint(path)["step"] == 1
    save_checkpoint(tmp_path, fine | {name: value})
    with pytest.raises(FormatError, match=rf"checkpoint\.pt: {name} = .*: expected"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["context", "stride", "finest_stride", "budget_s"])
@pytest.mark.parametrize("value", [-1, -5, 2**62, math.nan, math.inf, True, "1", None, [], 1e300], ids=str)
def test_the_windows_in_a_model_file(name: str, value: Any) -> None:
    with pytest.raises(FormatError, match=rf"the manifest's eval\.{name} = .*: expected"):
        windows_of({"eval": {"context": 32, name: value}}, 0, None, None)


@pytest.mark.parametrize("value", [0, -1, 65_537, 2**62, True, 1.5, "64", 65_536], ids=str)
def test_the_vocabulary_in_a_model_file(tmp_path: Path, value: Any) -> None:
    """65,536 is a vocabulary, but more than this file has rows for: no memory is taken for it."""
    path = tmp_path / "m.golf"
    save_model(path, get_family("gpt"), TINY, value, [], b"", {})
    with pytest.raises(FormatError, match=r"vocab_size = .*: expected|a model of [\d,]+ parameters, and"):
        load_model(path)


@pytest.mark.parametrize("changes", [{"model_dim": 2**20}, {"num_layers": 10_000}], ids=str)
def test_a_model_file_that_asks_for_all_memory(tmp_path: Path, changes: dict[str, int]) -> None:
    path = tmp_path / "m.golf"
    save_model(path, get_family("gpt"), replace(TINY, **changes), VOCAB, [], b"", {})
    with pytest.raises(FormatError, match=r"a model of [\d,]+ parameters, and"):
        load_model(path)


@pytest.mark.parametrize(
    "row", ['{"phase": "train", "seconds": %s, "budget_s": 1}', '{"phase": "train", "seconds": 1, "budget_s": %s}']
)
@pytest.mark.parametrize("value", ["-1", str(HUGE), "NaN", "Infinity", "1e400", "[]", "9" * 400, '"x"'])
def test_a_ledger(tmp_path: Path, row: str, value: str) -> None:
    (tmp_path / "ledger.json").write_text(f"[{row % value}]", encoding="utf-8")
    with pytest.raises(FormatError, match=r"ledger\.json: expected phases"):
        read_ledger(tmp_path / "ledger.json")


@pytest.mark.parametrize("value", ["-1", str(HUGE), "NaN", "true", "1.5", "null", '"x"'])
def test_metrics(tmp_path: Path, value: str) -> None:
    row = '{"kind": "train", "step": %s}\n'
    (tmp_path / "metrics.jsonl").write_text(row % value + row % 2, encoding="utf-8")
    with pytest.raises(FormatError, match=r"metrics\.jsonl, line 1"):
        read_metrics(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("name", ["seed", "steps", "bytes", "step_ms", "bpb"])
@pytest.mark.parametrize("text", ["-1", str(HUGE), "nan", "inf", "x", ""])
def test_trials_of_an_ablation(tmp_path: Path, name: str, text: str) -> None:
    about = dict.fromkeys(ablation.COLUMNS, "1") | {name: text}
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, ablation.COLUMNS)
        writer.writeheader()
        writer.writerow(about)
    with pytest.raises(FormatError, match=r"t\.csv"):
        ablation.read(tmp_path / "t.csv")


@pytest.mark.parametrize("text", ["-1", "0", "nan", "inf", "x", "", None])
def test_times_of_a_bench(text: str | None) -> None:
    row = Row(**{f.name: 1.0 if "us" in f.name else "x" for f in fields(Row)})  # type: ignore[arg-type]
    before = [{f.name: "x" for f in fields(Row)} | {"p20_us": "1", "p50_us": text, "p80_us": "2"}]
    with pytest.raises(FormatError, match="a saved time"):
        store.compare(before, [row])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["-5", str(HUGE), "NaN", "Infinity", "1e400", "null", '"</td><script>"', "[]", "{}", "true"]
)
def test_a_report_of_odd_numbers(tmp_path: Path, text: str) -> None:
    """A report is made of whatever a folder holds: a number that is none is left out, and never read as HTML."""
    names = ("val_bpb", "val_loss", "tokens", "bytes", "eval_s", "context", "stride", "artifact_bytes")
    odd = "{" + ", ".join(f'"{name}": {text}' for name in names) + "}"
    (tmp_path / "score.json").write_text(odd, encoding="utf-8")
    (tmp_path / "quantised.json").write_text(f'{{"tensors": [{odd}, {text}], "total": {odd}}}', encoding="utf-8")
    (tmp_path / "env.json").write_text(f'{{"cores": {text}, "threads": {text}, "started": {text}}}', encoding="utf-8")
    (tmp_path / "ledger.json").write_text(f'[{{"phase": "train", "seconds": {text}}}]', encoding="utf-8")
    (tmp_path / "metrics.jsonl").write_text(
        f'{{"kind": "train", "step": 1, "train_loss": {text}, "train_s": {text}, "tokens": {text}}}\n', encoding="utf-8"
    )
    toml = {"NaN": "nan", "Infinity": "inf", "null": "''", "1e400": "1e400", "{}": "{}"}.get(text, text)
    (tmp_path / "config.toml").write_text(f"[track]\ncap_bytes = {toml}\ntrain_s = {toml}\n", encoding="utf-8")
    try:
        page = build_report(tmp_path)
    except GolfError:
        return
    assert "<script>" not in page.read_text(encoding="utf-8")


def test_a_container_says_no_to_huge_numbers(tmp_path: Path) -> None:
    for value in (HUGE, -HUGE, math.nan, math.inf):
        with pytest.raises(GolfError):
            write(tmp_path / "m.golf", [], {"eval": {"context": value}})
