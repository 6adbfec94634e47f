"""A run's folder belongs to one process: it is created, not looked for, and locked while it is written to."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from golfcore.errors import InputError, UsageError
from golfcore.pipeline.start import check_run_id, claim_run_dir
from golfcore.run_folder import CHECKPOINT, CONFIG, OWNER, create, owned


def claim(runs: Path) -> str:
    return claim_run_dir(runs, "", "tiny").name


def test_runs_that_begin_together_get_folders_of_their_own(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        names = pool.map(claim, [tmp_path / "runs"] * 24)
    assert len(set(names)) == 24
    assert {path.name for path in (tmp_path / "runs").iterdir()} == set(names)


def test_a_name_is_given_once(tmp_path: Path) -> None:
    run_dir = claim_run_dir(tmp_path, "a", "tiny")
    assert run_dir == tmp_path / "a"
    (run_dir / CONFIG).touch()
    with pytest.raises(UsageError, match=r"holds no checkpoint to go on from; .*: golfcore run .*/a/config.toml"):
        check_run_id(tmp_path, "a")
    torch.save({"final": False}, run_dir / CHECKPOINT)
    with pytest.raises(UsageError, match="golfcore run --resume"):
        claim_run_dir(tmp_path, "a", "tiny")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="exists"):
        check_run_id(tmp_path, "file")
    for name in ("../b", "b/c", "/b"):
        with pytest.raises(UsageError, match="a plain name"):
            check_run_id(tmp_path, name)


def test_paths_in_hints_can_be_pasted(tmp_path: Path) -> None:
    run_dir = tmp_path / "my runs" / "a"
    create(run_dir)
    (run_dir / CONFIG).touch()
    torch.save({"final": False}, run_dir / CHECKPOINT)
    with pytest.raises(UsageError, match=r"--resume '.*my runs/a'"):
        check_run_id(tmp_path / "my runs", "a")


def test_an_empty_folder_may_be_taken_and_leaves_nothing(tmp_path: Path) -> None:
    run_dir = claim_run_dir(tmp_path, "a", "tiny")
    assert claim_run_dir(tmp_path, "a", "tiny") == run_dir
    with pytest.raises(KeyError), owned(run_dir):
        raise KeyError
    assert not run_dir.exists()


HOLD = """
import sys, time
from pathlib import Path
from golfcore.run_folder import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_owner_is_named_and_a_dead_one_has_nothing(end: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "log.txt").touch()
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"belongs to process {process.pid} on "), owned(tmp_path):
        pass
    process.send_signal(end)
    process.wait(10)
    process.stdout.close()
    with owned(tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / OWNER).read_text()


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with owned(tmp_path / "not there", by_this_process=False):
        pass
    assert not list(tmp_path.iterdir())


def test_two_commands_with_one_name(text_file: Path, tmp_path: Path) -> None:
    sets = {
        "track.train_s": 0, "train.iterations": 400, "data.vocab_size": 320, "model.num_layers": 2,
        "model.model_dim": 64, "model.num_heads": 2, "model.num_kv_heads": 1, "train.batch_tokens": 512,
        "train.micro_batch_tokens": 512, "train.seq_len": 64, "train.warmup_steps": 0,
    }  # fmt: skip
    words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    environment = os.environ | {"GOLFCORE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "golfcore", "train", "pocket", "--text", str(text_file), *words, "--run-id", "a"]
    processes = []
    for seed in (1, 2):
        processes.append(
            subprocess.Popen(
                [*command, "--set", f"train.seed={seed}"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL, text=True,
            )
        )  # fmt: skip
        time.sleep(0.2)
    errors = [process.communicate(timeout=120)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(map(bool, codes)) == [False, True], errors
    failed = errors[codes.index(max(codes))]
    assert "exists" in failed or "belongs to process" in failed, failed
    log = (tmp_path / "runs" / "a" / "log.txt").read_text()
    assert log.count("seed:") == 1
