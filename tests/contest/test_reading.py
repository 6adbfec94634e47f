# ruff: noqa: E501 (lines of logs stand here as they are logged)
"""What entries claim and log, read in the spellings that entrants used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from entries import log

from golfcore.contest.log_facts import read_log, seed_of
from golfcore.contest.readme import read_readme
from golfcore.contest.submission import ALIASES, as_number, parse_submission

SPELLINGS = {
    "val_bpb": ("val_bpb", "mean_val_bpb", "val_bpb_mean", "mean_bpb"),
    "bytes_total": ("bytes_total", "artifact_bytes", "artifact_bytes_max", "artifact_size_bytes", "total_bytes"),
    "bytes_code": ("bytes_code", "code_bytes"),
    "author": ("author", "github_id", "github"),
    "blurb": ("blurb", "summary", "description", "technique_summary"),
}


@pytest.mark.parametrize(("name", "spelling"), [(n, s) for n, spellings in SPELLINGS.items() for s in spellings])
def test_every_spelling_is_folded(name: str, spelling: str) -> None:
    found = parse_submission(json.dumps({spelling: "7", "other": 1}))
    assert found.values == {name: "7"} and found.keys == {name: spelling}
    assert found.problems == []
    assert spelling in ALIASES[name]


@pytest.mark.parametrize("spelling", ["Val_BPB", "val-bpb", " val_bpb", "VAL BPB"])
def test_case_and_signs_do_not_matter(spelling: str) -> None:
    assert parse_submission(json.dumps({spelling: 1.5})).number("val_bpb") == 1.5


def test_the_first_spelling_with_a_value_counts() -> None:
    found = parse_submission('{"val_bpb": null, "mean_bpb": 1.2, "artifact_bytes_max": 9, "bytes_total": 8}')
    assert found.number("val_bpb") == 1.2 and found.number("bytes_total") == 8


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0), (1.5, 1.5), ("1.0811", 1.0811), ("15,900,000 bytes", 15_900_000.0), ("15_900_000", 15_900_000.0),
        ("~1.1 to 1.2", None), ("n/a", None), (None, None), (True, None), ([83, 83, 86], 84.0),
        ({"mean": 1.2, "std": 3}, 1.2),        ({"42": 1.0, "7": 2.0}, 1.5), ([], None), (["x"], None), (float("nan"), None), (10**400, None),
    ],
)  # fmt: skip
def test_numbers_in_any_dress(value: Any, number: float | None) -> None:
    assert as_number(value) == number


@pytest.mark.parametrize(
    "claims",
    [
        {"seeds": [42, 7], "seed_results": {"42": {"val_bpb": 1.1}, "7": {"val_bpb": 1.3}}},
        {"seed_results": [{"seed": 42, "val_bpb": 1.1}, {"seed": 7, "mean_bpb": 1.3}]},
        {"seeds": {"42": {"val_bpb": 1.1}, "7": {"val_bpb": 1.3}}},
        {"seed_42": {"val_bpb": 1.1}, "seed_7": {"bpb": 1.3}},
        {"seeds": [42, 7], "seed_scores": [1.1, 1.3]},
        {"seed_results": {"seed_42": 1.1, "seed 7": 1.3}},
    ],
)
def test_seeds_in_any_form(claims: dict[str, Any]) -> None:
    found = parse_submission(json.dumps(claims))
    assert found.declared_seeds == [42, 7]
    assert {seed: values["val_bpb"] for seed, values in found.seeds.items()} == {42: 1.1, 7: 1.3}


def test_a_key_that_occurs_twice_is_said() -> None:
    found = parse_submission('{"val_bpb": 1.1, "val_bpb": 1.2}')
    assert found.number("val_bpb") == 1.2 and "occurs twice" in found.problems[0]


def test_bytes_of_models() -> None:
    found = parse_submission('{"bytes_model_int8_zlib": 100, "bytes_model_int6_zstd": null, "bytes_code": 5}')
    assert found.model_bytes == {"bytes_model_int8_zlib": 100}


# --- logs ---------------------------------------------------------------------------------------------------------------


def test_the_facts_of_a_log() -> None:
    facts = read_log("train_seed42.log", log(42, 1.2, after="GPTQ:collected 67 Hessians in 11.5s\n"))
    assert (facts.seed, facts.named_seed, facts.val_bpb, facts.final) == (42, 42, 1.2, True)
    assert (facts.bytes_total, facts.model_bytes, facts.bytes_code) == (15_840_000, 15_800_000, 40_000)
    assert (facts.steps, facts.train_s, facts.eval_s, facts.calibration_s) == (13700, 599.9, 75.0, 11.5)
    assert (facts.train_shards, facts.val_tokens) == (80, 62_021_632)
    assert facts.settings["world_size"] == "8" and not facts.self_calibrated


SECOND = """seed: 7
4500/20000 train_loss: 2.2771 train_time: 9.0m tok/s: 6589668
4550/20000 val_loss: 2.81 val_bpb: 1.0880
stopping_early: wallclock_cap train_time: 588119ms step: 4557/20000
pre-quantization post-ema val_loss:2.80977929 val_bpb:1.08775313 eval_time:7438ms
Code size (uncompressed): 131887 bytes
Code size (compressed): 28025 bytes
Serialized model quantized+brotli: 15943451 bytes
Total submission size quantized+brotli: 15971476 bytes
quantized val_loss:2.84004242 val_bpb:1.09946892 eval_time:25390ms
quantized_ttt_phased val_loss:2.79241542 val_bpb:1.08103103 eval_time:368074ms
total_eval_time:408.8s
"""


def test_the_second_dialect() -> None:
    facts = read_log("train.log", SECOND)
    assert (facts.seed, facts.val_bpb, facts.eval_s) == (7, 1.08103103, 408.8)
    assert (facts.bytes_code, facts.bytes_code_expanded, facts.bytes_total) == (28025, 131887, 15971476)
    assert (facts.steps, facts.train_s) == (4557, 588.119)


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("Total submission size: 66093460 bytes\nTotal submission size int8+zlib: 15896222 bytes", 15896222),
        ("Total submission size int8+zlib: 15896222 bytes\nTotal submission size: 66093460 bytes", 15896222),
        ("Total submission size: 111648442 bytes\nTotal submission size: 16638468 bytes", 16638468),
        ("artifact_bytes:   15540675", 15540675),
        ("INT7+zlib model: 15370972 bytes | Total submission: 15441941 bytes", 15441941),
        ("Total submission size int6: 15,985,678 bytes", 15985678),
        ("INT4+fp8+brotli: 15.67MB model + 0.077MB code = 15.75/16.00MB FITS", None),
        ("Total submission size: 15.9 MB", None),
    ],
)
def test_totals(text: str, total: int | None) -> None:
    assert read_log("x.log", text).bytes_total == total


@pytest.mark.parametrize(
    ("name", "text", "seed"),
    [
        ("train_seed42.log", "seed: 1337\n", 42), ("train.log", "seed:1337\n", 1337), ("run_s7.txt", "", 7),
        ("train_seed_2026.txt", "", 2026), ("train0.txt", "", 0), ("train_v2.txt", "", None), ("seed_42.log", "", 42),
        ("train_seed1234_rerun_gptq8s.log", "", 1234),
    ],
)  # fmt: skip
def test_seeds_of_logs(name: str, text: str, seed: int | None) -> None:
    assert seed_of(read_log(name, text)) == seed


def test_an_adaptation_that_diverged_is_not_the_score() -> None:
    text = "quantized val_loss:2.0 val_bpb:1.0894\nfinal_ttt val_loss:3.07 val_bpb:1.3360 eval_time:405410ms\n"
    assert read_log("x.log", text).val_bpb == 1.0894


def test_without_a_final_score_the_last_validation_counts() -> None:
    facts = read_log(
        "x.log", "step:1/2 val_loss:2.0 val_bpb:1.3 train_time:5ms\nstep:2/2 val_loss:2.0 val_bpb:1.2 train_time:9ms\n"
    )
    assert facts.val_bpb == 1.2 and not facts.final


# --- README -------------------------------------------------------------------------------------------------------------

README = """# Better layers: 1.0811 BPB

val_bpb: **1.08110**, and 3.14 is no score.

| Seed | Sliding BPB | **TTT val_bpb** | Steps | delta BPB |
|:---|---:|---:|---:|---:|
| 42 | 1.0829 | **1.08079** | 4550 | 0.0021 |
| 314 | 1.0827 | 1.0810 | 4557 | 0.0017 |
| Mean | 1.0828 | 1.0809 | | |

| lr | loss |
| --- | --- |
| 0.02 | 1.5 |
"""


def test_scores_of_a_readme() -> None:
    found = read_readme(README)
    assert [(s.bpb, s.title) for s in found[:2]] == [(1.0811, True), (1.0811, False)]
    assert [(s.bpb, s.seed) for s in found if s.seed == 42] == [(1.0829, 42), (1.08079, 42)]
    assert all(s.bpb < 1.09 for s in found)
    assert {s.line for s in found} == {1, 3, 7, 8, 9}


CONTEST = Path(__file__).parents[3] / "shared" / "data" / "contest" / "records"


@pytest.mark.skipif(not CONTEST.is_dir(), reason="the contest's entries are not beside this checkout")
def test_what_was_filed_is_read() -> None:
    """Of the logs that have a final score, 95 % give every fact, and none contradicts its submission.json."""
    from entries import severe

    from golfcore.contest.check import check_entry
    from golfcore.contest.log_facts import looks_like_log

    facts = []
    for path in sorted(CONTEST.rglob("*")):
        if path.suffix in (".log", ".txt"):
            read = read_log(path.name, path.read_text(errors="replace"))
            facts += [read] if looks_like_log(read) else []
    assert len(facts) > 50
    for name in ("val_bpb", "bytes_total", "steps", "train_s", "eval_s"):
        known = sum(getattr(fact, name) is not None for fact in facts)
        assert known >= 0.95 * len(facts), f"{name}: {known} of {len(facts)}"
    assert sum(seed_of(fact) is not None for fact in facts) >= 0.95 * len(facts)
    for folder in sorted(path for path in CONTEST.glob("*/*") if path.is_dir()):
        assert severe(check_entry(folder)) == set(), folder.name
