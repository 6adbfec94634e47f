"""The page of a run: what it tells, that it stands alone, and that no state of a run or text in it breaks it."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_run import TOTAL, write_score

from golfcore.errors import FormatError, InputError
from golfcore.report import build_report, load_run, summarize

VOID = {"meta", "br", "link", "img", "input", "path", "use"}


class Page(HTMLParser):
    """Tags, attributes and visible text; fails on a tag that is closed out of turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(run: Path) -> Page:
    return Page(build_report(run).read_text(encoding="utf-8"))


def states(run: Path) -> dict[str, str]:
    return {verdict["key"]: verdict["state"] for verdict in summarize(load_run(run))["verdicts"]}


def test_a_whole_run_is_told(run_dir: Path) -> None:
    text = page_of(run_dir).text
    for part in (
        "q1", "recipe pocket-gpt", "1.2243 6570", "985,312 of 1,000,000 bytes", "119.5 of 120 s", "41.2 of 120 s",
        "Fits the cap 14,688 bytes free", "Within time train had 0.5 s left", "Code matches", "Scored as packed",
        "matrix 2,359,296 794,654 79.5% 2.695 2.701", "code – 41,383 4.1% – –", "framing – 1,136 0.1% – –",
        "free 14,688 1.5%",
        "warm-up 6.5 none", "train 119.5 120.0 99.6%", "167.2 s in all",
        "training stopped by the clock at step 240 of 999",
        "peak memory 800 MiB", "matrix_lr 0.0321", "1,048,320 tokens", "golfcore inspect",
    ):  # fmt: skip
        assert part in text, part
    assert states(run_dir) == {"cap": "pass", "time": "pass", "code": "pass", "packed": "pass"}


def test_only_what_differs_from_the_defaults_is_marked(run_dir: Path) -> None:
    text = build_report(run_dir).read_text()
    assert re.findall(r'<div class="changed"><dt>(\w+)', text) == ["matrix_lr"]


def test_the_page_stands_alone_and_is_deterministic(run_dir: Path) -> None:
    first = build_report(run_dir).read_bytes()
    assert build_report(run_dir).read_bytes() == first
    text = first.decode()
    page = Page(text)
    assert not {"script", "link", "iframe", "img", "object", "image"} & {tag for tag, _ in page.tags}
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    targets = [attrs["href"] for _, attrs in page.tags if "href" in attrs]
    assert all(target and (target.startswith("#") or (run_dir / target).is_file()) for target in targets)
    assert any("default-src 'none'" in (attrs.get("content") or "") for tag, attrs in page.tags if tag == "meta")


def test_drawings_follow_the_pages_colors_and_share_no_id(run_dir: Path) -> None:
    page = page_of(run_dir)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    drawn = " ".join(attrs.get("style") or "" for tag, attrs in page.tags if tag in ("path", "text", "use"))
    assert "var(--accent)" in drawn
    assert "var(--blue)" in drawn
    assert "#0" not in drawn
    references = {attrs["href"][1:] for tag, attrs in page.tags if tag == "use" and attrs["href"]}
    assert references <= set(ids)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (["score.json"], ["no score yet", "not scored", "Code not compared"]),
        (["score.json", "model.golf"], ["There is no model.golf in this folder yet", "Size not known"]),
        (["metrics.jsonl"], ["No step has been logged yet", "1.2243"]),
        (["ledger.json"], ["No phase has been recorded", "Time not known"]),
        (["env.json"], ["env.json is not in this folder"]),
        (["config.toml"], ["config.toml is not in this folder", "the config names no cap"]),
        (["log.txt"], ["1.2243"]),
        (
            ["config.toml", "log.txt", "metrics.jsonl", "env.json", "ledger.json", "model.golf"],
            ["Packed bytes not here"],
        ),
    ],
)
def test_a_missing_part_is_said(run_dir: Path, missing: list[str], expected: list[str]) -> None:
    for name in missing:
        (run_dir / name).unlink()
    text = page_of(run_dir).text
    for part in expected:
        assert part in text, part


@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl", "env.json", "ledger.json", "score.json"])
def test_a_damaged_part_is_said_and_the_rest_told(run_dir: Path, name: str) -> None:
    (run_dir / name).write_bytes(b"\xff{<b>\n\n")
    text = page_of(run_dir).text
    assert f"{name}" in text.partition("Could not be read:")[2][:200]
    assert "matrix 2,359,296" in text


def test_a_damaged_model_is_said(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> dict[str, Any]:
        raise FormatError("model.golf: chunk 3 is torn")

    monkeypatch.setattr(sys.modules["golfcore.artifact.inspect"], "summary", refuse)
    text = page_of(run_dir).text
    assert "Could not be read: model.golf: chunk 3 is torn" in text
    assert "could not be read: see the note above" in text


def test_a_run_without_validation_points(run_dir: Path) -> None:
    rows = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "metrics.jsonl").write_text("".join(row for row in rows if '"train"' in row))
    assert "No validation on the way" in page_of(run_dir).text
    (run_dir / "score.json").unlink()
    assert "No validation point yet" in page_of(run_dir).text


def test_an_interrupted_run_says_where(run_dir: Path) -> None:
    for name in ("score.json", "model.golf"):
        (run_dir / name).unlink()
    ledger = json.loads((run_dir / "ledger.json").read_text())[:2]
    ledger[1] |= {"complete": False, "seconds": 31.0}
    (run_dir / "ledger.json").write_text(json.dumps(ledger))
    text = page_of(run_dir).text
    assert "the phase train has not ended" in text
    assert "Time not known" in text
    assert "golfcore run --resume" not in text  # there is nothing to go on from
    assert f"golfcore run {run_dir}/config.toml" in text
    torch.save({"final": False}, run_dir / "checkpoint.pt")
    assert f"golfcore run --resume {run_dir}" in page_of(run_dir).text
    assert summarize(load_run(run_dir))["state"] == "interrupted"


def test_a_diverged_run_says_so(run_dir: Path) -> None:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for row in rows[100:]:
        if row["kind"] == "train":
            row["train_loss"] = None
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "was not finite in" in page_of(run_dir).text


def test_verdicts_fail_when_they_should(run_dir: Path, inspector: dict[str, Any]) -> None:
    ledger = json.loads((run_dir / "ledger.json").read_text())
    ledger[1]["seconds"] = 120.5
    (run_dir / "ledger.json").write_text(json.dumps(ledger))
    write_score(run_dir, code_matches=False)
    (run_dir / "model.golf").write_bytes(bytes(1_000_001))
    inspector["bytes"]["file"] = 1_000_001
    assert states(run_dir) == {"cap": "fail", "time": "fail", "code": "fail", "packed": "fail"}
    text = page_of(run_dir).text
    for part in ("Over the cap by 1 bytes", "train: 120.5 of 120 s", "Scored other bytes", "1 over the cap", "100.4%"):
        assert part in text, part


def test_a_score_with_counts_mixed_in_says_so(run_dir: Path) -> None:
    said = "counts of scored tokens mixed in"
    assert said not in build_report(run_dir).read_text()
    write_score(run_dir, adapt="mix")
    assert said in build_report(run_dir).read_text()


def test_the_cap_and_the_clock_may_be_met_exactly(run_dir: Path) -> None:
    config = (run_dir / "config.toml").read_text()
    (run_dir / "config.toml").write_text(config.replace("cap_bytes = 1000000", f"cap_bytes = {TOTAL}"))
    ledger = json.loads((run_dir / "ledger.json").read_text())
    ledger[1]["seconds"] = 120.0
    (run_dir / "ledger.json").write_text(json.dumps(ledger))
    assert states(run_dir)["cap"] == "pass"
    assert states(run_dir)["time"] == "pass"


HOSTILE = "</style></svg><script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"


def test_hostile_text_stays_text(run_dir: Path) -> None:
    quoted = json.dumps(HOSTILE)
    (run_dir / "config.toml").write_text(f"name = {quoted}\n[track]\ncap_bytes = 9\n[{quoted}]\n{quoted} = {quoted}\n")
    (run_dir / "env.json").write_text(
        json.dumps({"cpu": HOSTILE, "commit": HOSTILE, "started": HOSTILE, "gpus": [HOSTILE]})
    )
    (run_dir / "ledger.json").write_text(json.dumps([{"phase": HOSTILE, "seconds": 1, "budget_s": 1}]))
    (run_dir / "log.txt").write_text(f"stopping_early: {HOSTILE} step:1/2\n")
    write_score(run_dir, data_sha256=HOSTILE, artifact_sha256=HOSTILE, context=HOSTILE)
    page = page_of(run_dir)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert HOSTILE in page.text


@pytest.mark.parametrize("value", [None, "x", True, [], 10**400, -1.0, 1e300])
def test_numbers_that_are_none_break_nothing(run_dir: Path, value: object) -> None:
    keys = ("val_bpb", "val_loss", "tokens", "bytes", "eval_s", "context", "stride", "artifact_sha256", "data_sha256")
    (run_dir / "score.json").write_text(json.dumps(dict.fromkeys(keys, value)))
    row = {"kind": "val", "step": 3, "val_loss": value, "val_bpb": value, "train_s": value}
    (run_dir / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (run_dir / "config.toml").write_text('track = 3\nname = 7\n[train]\nseed = "x"\n')
    page_of(run_dir)
    json.dumps(summarize(load_run(run_dir)), allow_nan=False)


def test_a_long_run_stays_a_small_page(run_dir: Path) -> None:
    with (run_dir / "metrics.jsonl").open("w") as f:
        for step in range(1, 30_001):
            f.write(
                json.dumps({"kind": "train", "step": step, "train_loss": 2 + 1 / step, "train_s": step / 50}) + "\n"
            )
    assert build_report(run_dir).stat().st_size < 300_000


def test_what_is_not_a_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        build_report(tmp_path / "absent")
    with pytest.raises(InputError, match="not a run folder"):
        build_report(tmp_path)


def test_a_folder_with_spaces_gives_commands_that_work(run_dir: Path) -> None:
    moved = run_dir.parent / "my run; rm"
    shutil.move(run_dir, moved)
    assert f"golfcore inspect '{moved}/model.golf'" in page_of(moved).text


def test_reports_need_no_torch() -> None:
    code = "import sys, golfcore.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
