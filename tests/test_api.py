"""What ``import golfcore`` offers, used as a stranger would."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import golfcore
from golfcore.errors import UsageError

TINY = {
    "track.train_s": 0, "track.cap_bytes": 200_000, "data.vocab_size": 320, "model.num_layers": 2,
    "model.model_dim": 64, "model.num_heads": 2, "model.num_kv_heads": 1, "train.batch_tokens": 512,
    "train.micro_batch_tokens": 512, "train.seq_len": 64, "train.iterations": 6, "train.warmup_steps": 0,
    "train.log_every": 2, "quant.method": "rtn", "quant.fit": False,
}  # fmt: skip


def in_new_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_import_is_light() -> None:
    heavy = "('torch', 'numpy', 'cyclopts', 'rich')"
    assert in_new_process(f"import sys, golfcore; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_every_public_name_is_there_and_documented() -> None:
    for name in golfcore.__all__:
        value = getattr(golfcore, name)
        assert inspect.getdoc(value), name
        if inspect.isfunction(value):
            text = inspect.getdoc(value) or ""
            parameters = inspect.signature(value).parameters
            arguments = text.partition("Args:")[2]
            shared = "Arguments and errors as for ``run``" in text
            assert all(f"{parameter}" in arguments or shared for parameter in parameters), name
            assert shared or "Raises:" in text, name
    assert set(golfcore.__all__) <= set(dir(golfcore))
    with pytest.raises(AttributeError, match="no attribute 'tain'"):
        _ = golfcore.tain


def test_stages_one_by_one(text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path / "cache"))
    recipe = golfcore.load_recipe("pocket", TINY)
    folder = golfcore.train(recipe, text=[text_file], runs=tmp_path / "runs", run_id="a")
    assert folder == tmp_path / "runs" / "a"
    errors = golfcore.quantize(folder, changes={"quant.matrix_bits": 5})
    assert errors["total"]["bpb"] > 0
    packed = golfcore.pack(folder)
    score = golfcore.score(folder / "model.golf", text=[text_file])
    assert 0 < score["val_bpb"] < 8.5
    assert score["artifact_bytes"] == packed["bytes"]["file"] == (folder / "model.golf").stat().st_size
    model = golfcore.load_model(folder / "model.golf")
    assert model.tokenizer is not None
    assert model.tokenizer.decode(model.tokenizer.encode("some text")) == b"some text"
    assert model.manifest["recipe"] == "pocket"
    told: list[str] = []
    writer = golfcore.load_model(folder / "model.golf", packed=True)
    written = golfcore.generate(writer, "Some text", tokens=9, seed=3, tell=told.append)
    assert written["text"] == "".join(told)
    for other in (folder / "model.golf", model):
        again = golfcore.generate(other, b"Some text", tokens=9, seed=3)
        assert {**again, "seconds": 0} == {**written, "seconds": 0}
    with golfcore.Container.open(folder / "model.golf") as container:
        assert "@tokenizer" in container.tensors


def test_a_whole_run_and_its_result(text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path / "cache"))
    result = golfcore.run("pocket", changes=TINY, text=text_file, runs=tmp_path / "runs", run_id="a")
    assert result is not None
    assert not result.broken_limit()
    assert result.artifact.is_file() and result.report.is_file()
    assert result.summary()["val_bpb"] == result.score["val_bpb"]


def test_wrong_names_say_what_is_near() -> None:
    with pytest.raises(UsageError, match="did you mean 'pocket'"):
        golfcore.load_recipe("pokcet")
    with pytest.raises(UsageError, match="did you mean 'seed'"):
        golfcore.load_recipe("pocket", {"train.sed": 1})
