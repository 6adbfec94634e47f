"""golfcore bench pack: its rows are right; nothing here depends on speed."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from golfcore.bench import pack, store
from golfcore.cli import main
from golfcore.errors import FormatError, InputError, UsageError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = torch.Generator().manual_seed(0)
    columns = torch.exp(0.3 * torch.randn(96, generator=generator))
    tensors = {
        f"model.layers.{layer}.{part}.weight": torch.randn(rows, 96, generator=generator) * columns
        for layer in range(2)
        for part, rows in (("q_proj", 96), ("up", 256))
    }
    tensors |= {"embed.weight": torch.randn(300, 96), "model.layers.0.norm.weight": torch.ones(96)}
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_file(tensors, path)
    return path


def test_rows(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "pack", "--weights", f"m={model}", "--vs", "brotli,zstd", "--script", __file__, "--save", "p"]
    assert main([*arguments, "--results", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    by_key = {(row["checkpoint"], row["what"], row["pipeline"]): row for row in rows}
    assert by_key["100 tensors", "framing", "golfcore"]["bytes"] <= 1250
    for width, (bits, _) in pack.WIDTHS.items():
        ours = by_key["m", width, "golfcore"]
        assert ours["weights"] == 2 * (96 + 256) * 96
        assert ours["bits_per_weight"] == pytest.approx(8 * ours["bytes"] / ours["weights"])
        assert ours["bytes"] < by_key["m", width, "brotli -11"]["bytes"] < ours["weights"] * bits / 8
        assert by_key["m", width, "golfcore, numpy decoder"]["bytes"] == ours["bytes"]
    assert by_key["m", "row scales", "golfcore log2/8 grid"]["weights"] == 2 * (96 + 256)
    assert by_key[Path(__file__).name, "code", "golfcore"]["bytes"] < by_key[
        Path(__file__).name, "code", "LZMA, base85"]["bytes"]  # fmt: skip
    with (tmp_path / "p.csv").open() as f:
        saved = list(csv.DictReader(f))
    assert [row["pipeline"] for row in saved] == [row["pipeline"] for row in rows]
    assert main(["bench", "pack", "--vs", "", "--save", "p", "--results", str(tmp_path)]) == 0
    assert "framing" in capsys.readouterr().out
    assert len((tmp_path / "p.csv").read_text().splitlines()) == len(rows) + 2


@pytest.mark.skipif(shutil.which("lrzip") is None, reason="lrzip is not installed (apt install lrzip)")
def test_lrzip(model: Path) -> None:
    rows = {row.pipeline: row for row in pack.rows({"m": model}, widths=("ternary",), rivals=("lrzip",))}
    theirs = rows["lrzip -z -L9, transposed"].bytes
    assert theirs is not None and 0.5 < theirs / rows["order-0 entropy by tensor"].weights * 4 < 1


def test_an_absent_program_is_a_row(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    rows = pack.rows({"m": model}, widths=("ternary",), rivals=("lrzip",))
    assert [row.bytes for row in rows if row.pipeline.startswith("lrzip")] == [None]


def test_what_cannot_be_measured_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected NAME=FILE"):
        pack.parse_weights(["runs/1"])
    with pytest.raises(UsageError, match="--widths int5: expected some of int4, int6"):
        pack.parse_choice("widths", "int5", list(pack.WIDTHS))
    save_file({"embed.weight": torch.ones(300, 96)}, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="no matrix with a layer's number"):
        pack.load_matrices(tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="cannot read"):
        pack.code_rows(tmp_path / "none.py")
    (tmp_path / "other.csv").write_text("a,b\n")
    with pytest.raises(FormatError, match="columns are not those of this bench"):
        store.append(tmp_path / "other.csv", {"date": "x"}, [pack.framing_row()])
