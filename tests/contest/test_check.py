# ruff: noqa: E501 (the programs and logs of entries stand here as entrants write them)
"""The checks of claims, sizes, clocks, data and seeds, each with an entry that breaks it and one that is near it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from entries import RATIO, log, severe, write_entry

from golfcore.contest.check import Report, check_entry
from golfcore.contest.ruleset import load_rules
from golfcore.errors import InputError, UsageError


def checked(tmp_path: Path, files: dict[str, Any] | None = None, **claims: Any) -> Report:
    return check_entry(write_entry(tmp_path, files, **claims))


def logs(**changes: Any) -> dict[str, str]:
    return {
        f"train_seed{seed}.log": log(seed, bpb, **changes)
        for seed, bpb in ((42, 1.2001), (314, 1.2004), (1337, 1.1998))
    }


def test_an_entry_in_order_is_ready(tmp_path: Path) -> None:
    report = checked(tmp_path)
    assert report.verdict == "ready", report.findings
    assert report.track == "track_10min_16mb"
    assert report.recomputed["val_bpb_mean"] == pytest.approx(1.2001)
    assert [row["seed"] for row in report.recomputed["logs"]] == [1337, 314, 42]
    assert len(report.not_checked) >= 5


PREP = """import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--val-docs", type=int, default=10_000)
args = parser.parse_args()
"""
BYTES = """
def build_luts(sp, vocab_size):
    base = [0] * vocab_size
    lead = [False] * vocab_size
    for i in range(vocab_size):
        if sp.is_byte(i):
            base[i] = 1
            continue
        piece = sp.id_to_piece(i)
        if piece.startswith("▁"):
            lead[i] = True
            base[i] = {length}
        else:
            base[i] = len(piece.encode("utf-8"))
    return base, lead
def count(y, x, base, has_leading_space, boundary):
    n = base[y]
    n += has_leading_space[y] & ~boundary[x]
    return n
"""
CALIBRATED = """GPTQ:collecting Hessians from calibration data...
GPTQ:collected 67 Hessians in {seconds}s
"""
HESSIAN = """import time, torch
import torch.nn.functional as F
def main(model, optimizer, max_wallclock_seconds=600.0):
    data = load_tokens("fineweb_train_*.bin")
    start = time.perf_counter()
    while True:
        x, y = data[:1024], data[1:1025]
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        if time.perf_counter() - start > max_wallclock_seconds{reserve}:
            break
    hessian = torch.zeros(8, 8)
    for i in range(64):
        h = model.hidden(data[i * 64 : i * 64 + 64])
        hessian += h.T @ h
main(make_model(), make_optimizer())
"""
OTHER_SHARDS = {name: text.replace("train_shards: 80", "train_shards: 1499") for name, text in logs().items()}
NO_LOGS = {f"train_seed{seed}.log": None for seed in (42, 314, 1337)}
BREAKS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("I9", "calibrated after the clock", logs(after=CALIBRATED.format(seconds=48.0)), {}),
    ("I9", "calibrated after the clock for an unknown time", logs(train_ms=600_050, after="calibrating on train shards\n"), {}),
    ("I9", "summed after the loop, without logs", {"train_gpt.py": HESSIAN.format(reserve=""), **NO_LOGS}, {}),
    ("I9", "overrun by the quantizer", logs(train_ms=598_000, after=CALIBRATED.format(seconds=9.4)), {}),
    ("I12", "train_files names the validation shards", {n: t.replace("fineweb_train_*", "fineweb_val_*") for n, t in logs().items()}, {}),
    ("I13", "1,499 shards from ten thousand documents", logs(settings="  val_docs: 10000\n  train_shards: 1499\n"), {}),
    ("I13", "a preparation with 10,000 documents, run as it is",
     {"prepare.py": PREP, "README.md": "# Entry\n\n    python prepare.py --out data\n", **OTHER_SHARDS}, {}),
    ("I13", "a list that is sliced twice",
     {"prepare.py": "docs = list(open('docs.jsonl'))\nval = docs[:50000]\ntrain = docs[10000:]\n"}, {}),
    ("I13", "documents written to both",
     {"prepare.py": "for i, doc in enumerate(docs):\n    if i < 50000:\n        val_file.write(doc)\n    train_file.write(doc)\n"}, {}),
    ("I14", "the space counted twice, by the ratio", logs(loss=1.2 * RATIO * 1.177), {"val_loss": 1.2001 * RATIO * 1.177}),
    ("I14", "byte tokens counted as three, by the ratio", logs(loss=1.2 * RATIO * 1.0413), {}),
    ("I14", "the space in the table and in the sum", {"train_gpt.py": BYTES.format(length='len(piece[1:].encode("utf-8")) + 1')}, {}),
    ("I14", "the mark replaced by a space", {"train_gpt.py": BYTES.format(length='len(piece.replace("▁", " ").encode("utf-8"))')}, {}),
    ("I14", "no byte pieces", {"train_gpt.py": BYTES.format(length="len(piece[1:].encode())").replace("if sp.is_byte(i)", "if i < 3")}, {}),
    ("I15", "one shard of several", logs(val_tokens=9_662_464), {}),
    ("I14", "more bytes than the tokenizer has", logs(loss=1.2 * RATIO * 1.07), {}),
    ("I12", "validation shards linked as training", {"run.sh": "ln -s data/fineweb_val_000000.bin data/fineweb_train_000000.bin\n"}, {}),
    ("I12", "validation shards copied as training",
     {"prep.py": "import shutil\nshutil.copy('d/fineweb_val_000000.bin', 'd/fineweb_train_000001.bin')\n"}, {}),
    ("I18", "a shell loop over seeds",
     {"run.sh": "for s in $(seq 1 50); do\n  SEED=$s torchrun train_gpt.py | tee $s.txt\ndone\ngrep val_bpb *.txt | sort -k2 | head -1\n"}, {}),
    ("I15", "a subset that the log names", logs(settings="  subset: 3000000\n"), {}),
    ("I15", "a share of the documents", logs(settings="  val_doc_fraction: 0.1\n"), {}),
    ("I16", "over the cap", {**logs(model=15_990_000)}, {"bytes_total": 16_030_000}),
    ("I16", "over the cap, claimed otherwise", {**logs(model=15_970_000)}, {}),
    ("I16", "over the clock of training", logs(train_ms=617_000), {}),
    ("I16", "over the clock of evaluation", logs(eval_ms=731_000), {}),
    ("I16", "a cap of 16 MiB and no log", {"train_gpt.py": "assert size() <= 16 * 1024 * 1024\n", **NO_LOGS}, {}),
    ("I16", "a longer clock and no log", {"train_gpt.py": "class H:\n    max_wallclock_seconds = 900.0\n", **NO_LOGS}, {}),
    ("I6", "a counter of gates within words", logs(after="ngram_tilt: hinted=1000 within_gate=532\n"), {}),
    ("I18", "twenty seeds tried", {}, {"seeds_tried": 20}),
    ("I18", "the best of ten logs", NO_LOGS | {f"train_seed{seed}.log": log(seed, 1.2 + seed / 1000) for seed in range(10)},
     {"val_bpb": 1.2, "seeds": list(range(10)), "seed_results": None}),
    ("I19", "a claim that no log shows", {}, {"val_bpb": 1.15, "seed_results": None}),
    ("I19", "a seed that its log does not show", {}, {"seed_results": {"42": {"val_bpb": 1.17}, "314": {"val_bpb": 1.2004}}}),
    ("I19", "one run under two seeds", {"train_seed314.log": log(42, 1.2001), "train_seed42.log": log(42, 1.2001)}, {}),
    ("I19", "a table of another run", {"README.md": "# E\n\n| seed | val_bpb |\n| --- | --- |\n| 42 | 1.1501 |\n"}, {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "name", "files", "claims"), BREAKS, ids=[f"{rule}-{name}" for rule, name, _, _ in BREAKS]
)
def test_what_breaks_a_rule(
    rule: str, name: str, files: dict[str, Any], claims: dict[str, Any], tmp_path: Path
) -> None:
    report = checked(tmp_path, files, **claims)
    assert rule in {found for found, _ in severe(report)}, report.findings
    assert report.verdict in ("likely-invalid", "needs-fix")


HONEST: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("calibrated in a reserve", logs(train_ms=588_000, after=CALIBRATED.format(seconds=11.6)), {}),
    ("calibrated on its own text", logs(train_ms=600_050, after="gptq:collecting hessians from autoregressive data\n"), {}),
    ("a forced step, a second late", logs(train_ms=601_200), {}),
    ("summed in a reserve, without logs", {"train_gpt.py": HESSIAN.format(reserve=" - reserve_seconds"), **NO_LOGS}, {}),
    ("a tokenizer of its own", {**logs(loss=1.2 * RATIO * 1.07), "my.model": "x"}, {}),
    ("seeds in a shell loop", {"run.sh": "for s in 42 314 1337; do SEED=$s torchrun train_gpt.py; done\n"}, {}),
    ("validation shards fetched", {"run.sh": "cp /mnt/fineweb_val_000000.bin data/ && cp /mnt/fineweb_train_000000.bin data/\n"}, {}),
    ("words of techniques that are not used",
     {"README.md": "# Entry\n\nNo SLOT, no pre-quant TTT, never two-pass.\n"}, {}),
    ("more shards than usual", logs(settings="  train_shards: 128\n"), {}),
    ("a doubled path alone", logs(settings="  train_files: ./data/datasets/datasets/x/fineweb_train_*.bin\n"), {}),
    ("a preparation with the right number", {"prepare.py": PREP.replace("10_000", "50_000")}, {}),
    ("a table of another run beside the own one",
     {"README.md": "# E\n\n| seed | val_bpb | bpb of a variant |\n| --- | --- | --- |\n| 42 | 1.2001 | 1.1501 |\n"}, {}),
    ("a preparation that made other data", {"prepare.py": PREP, "README.md": "# Entry\n\n    python prepare.py --out data\n"}, {}),
    ("a script that fetches the data",
     {"get.py": "from huggingface_hub import hf_hub_download\nhf_hub_download('d', 'fineweb_val_000000.bin')\n",
      "README.md": "# Entry\n\n    python get.py\n"}, {}),
    ("pieces that are no count of bytes",
     {"train_gpt.py": "def words(sp):\n    return [sp.id_to_piece(i).encode() for i in range(9) if sp.id_to_piece(i)[0] == '▁']\n"}, {}),
    ("a preparation that is run with the right number",
     {"prepare.py": PREP, "README.md": "# Entry\n\n    python prepare.py --val-docs 50000\n"}, {}),
    ("documents that are skipped",
     {"prepare.py": "for i, d in enumerate(docs):\n    if i < 50000:\n        val_file.write(d)\n        continue\n    train_file.write(d)\n"}, {}),
    ("slices that meet", {"prepare.py": "docs = list(open('d'))\nval = docs[:50000]\ntrain = docs[50000:]\n"}, {}),
    ("a table of bytes as it should be", {"train_gpt.py": BYTES.format(length='len(piece[1:].encode("utf-8"))')}, {}),
    ("gates that never opened", logs(after="ngram_tilt: within_gate=0 word_gate=0\n"), {}),
    ("close to the cap", logs(model=15_950_000), {"bytes_total": 15_990_000}),
    ("a code size before packing", {**logs(model=15_950_000, total=16_040_000)}, {}),
    ("evaluation just in time", logs(eval_ms=599_000), {}),
    ("a mean that is rounded", {}, {"val_bpb": 1.2}),
    ("a claim worse than the logs", {}, {"val_bpb": 1.21}),
    ("a log of a longer run beside the claim", {"train_long.log": log(7, 1.19, train_ms=2_400_000)}, {}),
    ("the log of a run that diverged while adapting",
     {"train_seed42.log": log(42, 1.2001) + "final_int6_ttt val_loss:3.07 val_bpb:1.336 eval_time:400000ms\n"}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "files", "claims"), HONEST, ids=[name for name, _, _ in HONEST])
def test_what_is_honest(name: str, files: dict[str, Any], claims: dict[str, Any], tmp_path: Path) -> None:
    assert severe(checked(tmp_path, files, **claims)) == set()


def test_limits_are_those_of_the_rules(tmp_path: Path) -> None:
    """603 s with calibration: within the practice of April, and over the README's limit."""
    folder = write_entry(tmp_path, logs(train_ms=599_500, after=CALIBRATED.format(seconds=3.5)))
    assert severe(check_entry(folder)) == set()
    assert ("I9", "LIKELY") in severe(check_entry(folder, load_rules("parameter_golf_readme")))


def test_other_tracks_are_not_held_to_the_limits(tmp_path: Path) -> None:
    folder = write_entry(tmp_path, logs(train_ms=14_400_000, model=16_600_000), bytes_total=16_640_000)
    other = tmp_path / "track_non_record_16mb" / folder.name
    other.parent.mkdir()
    folder.rename(other)
    report = check_entry(other)
    assert report.track == "track_non_record_16mb"
    assert severe(report) == set()


def test_packages_that_lack_something(tmp_path: Path) -> None:
    report = checked(tmp_path, {"submission.json": None, "README.md": None, **NO_LOGS})
    texts = " ".join(f.explanation for f in report.findings if f.severity == "FORMAT")
    assert "submission.json is missing" in texts and "README.md is missing" in texts and "no training log" in texts
    assert report.verdict == "unreadable"


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"val_bpb": ', "{}" * 3, "[" * 100_000, '{"a":' * 5_000])
def test_a_broken_submission_is_a_finding(text: str, tmp_path: Path) -> None:
    report = checked(tmp_path, {"submission.json": text})
    assert any(f.severity == "FORMAT" and f.file == "submission.json" for f in report.findings)


def test_several_entries_or_none(tmp_path: Path) -> None:
    write_entry(tmp_path / "a")
    write_entry(tmp_path / "b")
    with pytest.raises(UsageError, match="2 entries"):
        check_entry(tmp_path)
    assert check_entry(tmp_path / "a").folder.name == "2026-04-30_Entry"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no train_gpt\.py"):
        check_entry(tmp_path / "empty")
    with pytest.raises(InputError, match="is no folder"):
        check_entry(tmp_path / "absent")


def test_a_contest_without_a_rule_does_not_ask(tmp_path: Path) -> None:
    rules = tmp_path / "own.toml"
    rules.write_text(
        'name = "own"\ntitle = "Own"\ndate = 2027-01-01\nsource = "me"\nrules = []\n[limits]\n'
        "cap_bytes = 1000\ntrain_s = 1.0\neval_s = 1.0\n"
    )
    assert severe(check_entry(write_entry(tmp_path), load_rules(rules))) == set()


def test_imports_that_are_not_listed(tmp_path: Path) -> None:
    script = "import os\nimport torch\nimport brotli\nimport helper\nfrom transformers import AutoTokenizer\nimport zstandard\n"
    files = {
        "train_gpt.py": script,
        "helper.py": "x = 1\n",
        "requirements.txt": "torch\nzstandard==0.22\ntransformers\n",
    }
    report = checked(tmp_path, files)
    texts = {f.explanation for f in report.findings if f.rule == "R3"}
    assert texts == {
        "brotli is imported and not in requirements.txt.",
        "transformers may carry weights or compute of its own.",
    }


def test_a_record_that_is_to_be_beaten(tmp_path: Path) -> None:
    folder = write_entry(tmp_path, base_pr=1394, pr_number=1500)
    report = check_entry(folder, beat=[str(1.22 * RATIO)])
    assert [(item["policy"], item["passes"]) for item in report.stats] == [("record", True), ("progression", True)]
    assert report.stats[0]["delta_nats"] == pytest.approx(-0.02 * RATIO, rel=0.02)
    assert (report.pr, report.lineage) == (1500, ["1394"])
    assert any(f.rule == "R15" and "meets the policy" in f.explanation for f in report.findings)
    worse = check_entry(folder, beat=[str(1.1 * RATIO)])
    assert not any(item["passes"] for item in worse.stats)


def test_what_an_entry_says_of_itself_is_a_question(tmp_path: Path) -> None:
    report = checked(tmp_path, {"README.md": "# Entry\n\nTrained on the validation shards.\n"})
    assert severe(report) == set()
    assert any(f.rule == "I12" and f.severity == "REVIEW" and f.line == 3 for f in report.findings)


def test_an_analysis_that_fails_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("golfcore.contest.techniques.hypotheses.judge", fail)
    report = checked(tmp_path)
    assert any("could not be followed (KeyError)" in text for text in report.not_checked)


def test_the_checker_needs_no_torch() -> None:
    code = "import sys, golfcore.contest.check, golfcore.contest.render, golfcore.contest.runs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_claims_are_shown(tmp_path: Path) -> None:
    report = checked(tmp_path, val_bpb=None, mean_val_bpb=1.2001, artifact_bytes_max=15_840_000, bytes_total=None)
    assert report.claimed["val_bpb"] == 1.2001 and report.claimed["bytes_total"] == 15_840_000
    assert json.dumps(report.claimed)
