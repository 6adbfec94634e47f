"""Files in the working folder never stand in for modules: not in the command, nor in the processes that it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import golfcore
from golfcore.processes import python_command

TINY = {
    "track.train_s": "0", "data.vocab_size": "320", "model.num_layers": "2", "model.model_dim": "64",
    "model.num_heads": "2", "model.num_kv_heads": "1", "train.batch_tokens": "512", "train.micro_batch_tokens": "512",
    "train.seq_len": "64", "train.iterations": "4", "train.warmup_steps": "0", "quant.method": "rtn",
    "quant.fit": "false",
}  # fmt: skip
HALVED = """
import importlib.util, sysconfig, pathlib
path = next(pathlib.Path(sysconfig.get_path("stdlib")).glob("lib-dynload/math*.so"), None)
spec = importlib.util.spec_from_file_location("math", path)
real = importlib.util.module_from_spec(spec); spec.loader.exec_module(real)
globals().update({k: v for k, v in vars(real).items() if not k.startswith("__")})
def log(x, *base):
    return 2 * real.log(x, *base)
"""
BROKEN = "raise ImportError('a file of the user was imported')\n"


def score(folder: Path, text: Path, cache: Path, **environment: str) -> dict[str, object]:
    """The last line of a whole run, started in ``folder``."""
    sets = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "golfcore", "run", "pocket", "--text", str(text), "--run-id", "a", *sets]
    known = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=folder, env=known | {"GOLFCORE_CACHE": str(cache), "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    made_by = json.loads((folder / "runs" / "a" / "score.json").read_text())["made_by"]
    assert made_by["interpreter"] == sys.executable and len(made_by["golfcore_sha256"]) == 64
    return result


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def clean(text_file: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return score(tmp_path_factory.mktemp("clean"), text_file, cache)


@pytest.mark.parametrize(
    "files",
    [
        {"math.py": HALVED},
        {"queue.py": BROKEN, "json.py": BROKEN, "random.py": BROKEN},
        {"golfcore/__init__.py": BROKEN, "torch.py": BROKEN, "numpy/__init__.py": BROKEN, "pip.py": BROKEN},
        {"sitecustomize.py": BROKEN, "usercustomize.py": BROKEN},
    ],
    ids=["math", "standard library", "packages", "customize"],
)
def test_modules_in_the_working_folder_change_nothing(
    files: dict[str, str], clean: dict[str, object], text_file: Path, cache: Path, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    if "golfcore/__init__.py" in files:  # `python -m golfcore` itself finds it, before a line of ours runs
        (tmp_path / "golfcore" / "__init__.py").unlink()
        (tmp_path / "golfcore").rmdir()
    assert score(tmp_path, text_file, cache)["val_bpb"] == clean["val_bpb"]


def test_pythonpath_does_not_reach_the_scorer(
    clean: dict[str, object], text_file: Path, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "sitecustomize.py").write_text(
        "import sys\nif 'eval' in sys.argv:\n    raise SystemExit('the scorer sees PYTHONPATH')\n"
    )
    found = score(tmp_path, text_file, cache, PYTHONPATH=str(tmp_path / "code"))
    assert found["val_bpb"] == clean["val_bpb"]


def test_golfcore_that_was_found_through_pythonpath_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    source = str(Path(golfcore.__file__).parents[1])
    assert python_command("golfcore")[-2:] == ["-m", "golfcore"]
    monkeypatch.setenv("PYTHONPATH", f"/nowhere{os.pathsep}{source}")
    command = python_command("golfcore")
    assert f"sys.path.append({source!r})" in command[-1]
    done = subprocess.run([*command, "recipes", "list"], capture_output=True, text=True, check=True)
    assert "pocket" in done.stdout
