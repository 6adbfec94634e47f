"""golfcore bench quant: its rows are right on a small run; nothing here depends on speed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import recipe

from golfcore.artifact.model_io import StoredTensor
from golfcore.bench import quant
from golfcore.cli import main
from golfcore.data.tokens import open_tokens, prepare_data
from golfcore.errors import InputError, RuleError
from golfcore.model import get_family
from golfcore.pipeline.config import write_config
from golfcore.training.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def run_dir(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("brotli")
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOLFCORE_CACHE", str(folder / "cache"))
        config = prepare_data(recipe(), [text_file])
    run = folder / "run"
    run.mkdir()
    write_config(run, config)
    module = get_family("gpt").build(config.model, open_tokens(config.data.path).vocab_size, 0)
    generator = torch.Generator().manual_seed(0)
    weights = {n: p.detach() + 0.05 * torch.randn(p.shape, generator=generator) for n, p in module.named_parameters()}
    save_checkpoint(run, {"weights": weights})
    return run


def test_rows_of_both_pipelines(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "quant", "--weights", f"tiny={run_dir}", "--tokens", "512", "--calibration-tokens", "512"]
    words += ["--save", "q", "--results", str(tmp_path)]
    assert main([*words, "--methods", "contest,curve,states", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = {row["method"]: row for row in document["rows"]}
    ks = [rows[f"contest k={k:g}"] for k in quant.CURVE]
    assert [row["bytes"] for row in ks] == sorted((row["bytes"] for row in ks), reverse=True)
    assert [row["hessian_error_db"] for row in ks] == sorted(row["hessian_error_db"] for row in ks)
    assert rows["gptq"]["hessian_error_db"] < rows["rtn"]["hessian_error_db"]
    gains = document["summary"]["tiny"]["gains_db"]
    assert gains["gptq, 8 states"] > 0.6 and gains["gptq, 256 states"] > gains["gptq, 8 states"]
    assert document["summary"]["tiny"]["equal_kl"] is None  # nothing was fitted
    with (tmp_path / "q.csv").open(newline="") as f:
        saved = list(csv.DictReader(f))
    assert [row["method"] for row in saved] == list(rows) and saved[0]["checkpoint"] == "tiny"


def test_wall_clock_rows_agree_first(run_dir: Path) -> None:
    subject = quant.Subject("tiny", run_dir, tokens=256, calibration_tokens=1024)
    rows = quant.timed_rows(subject, repeats=1)
    assert [row.method for row in rows] == ["wall: gptq", "wall: gptq in plain torch", "wall: gptq, 8 states"]
    assert all(row.seconds and row.bytes is None for row in rows)
    name = "blocks.0.attn.q.weight"
    symbols = torch.zeros(32, 32, dtype=torch.int8)
    with pytest.raises(RuleError, match="plain torch agrees"):
        quant._require_alike(subject, {name: symbols}, {name: symbols + 1}, {name: torch.ones(32)})


def test_bytes_at_equal_divergence_are_read_off_between_rows() -> None:
    def row(method: str, size: int, kl: float) -> quant.QuantRow:
        return quant.QuantRow(
            method=method, checkpoint="", seed=0, bytes=size, bits_per_weight=None, entropy=None, hessian_error_db=None,
            kl=kl, val_bpb=None, tokens=0, seconds=None,
        )  # fmt: skip

    rows = [row("contest k=12.85", 1000, 0.04), row("fit to 2 bits, lqer 1", 600, 0.16)]
    rows += [row("fit to 2.4 bits, lqer 4", 650, 0.01), row("fit to 3 bits, lqer 1", 800, 0.01)]
    found = quant.equal_kl(rows)
    assert found is not None and found["golfcore_bytes"] == pytest.approx(700)
    assert found["saved"] == pytest.approx(0.3)
    assert quant.equal_kl(rows[:2]) is None


def test_entropy_of_trellis_symbols_is_taken_for_each_parity() -> None:
    rng = np.random.default_rng(0)
    symbols = torch.from_numpy(rng.integers(-4, 4, (64, 50)).astype(np.int8))
    for trellis in (0, 3):
        item = StoredTensor("w", "up", symbols, torch.ones(64).half(), 4, trellis)
        assert quant.symbol_entropy(item) == pytest.approx(3.0, abs=0.02)


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "quant", "--weights", f"x={tmp_path}"]) == 1
    assert "is not a run folder" in capsys.readouterr().err
    assert main(["bench", "quant"]) == 2
    assert main(["bench", "quant", "--weights", f"x={tmp_path}", "--methods", "magic"]) == 2
    with pytest.raises(InputError):
        quant.Subject("x", tmp_path / "none", tokens=1, calibration_tokens=1)
