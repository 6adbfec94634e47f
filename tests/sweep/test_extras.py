"""What needs the extra: Optuna's search, submitit's executor, and the SkyPilot file."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from golfcore.errors import UsageError
from golfcore.sweep.launch import LocalLauncher, SubmititLauncher
from golfcore.sweep.queue import Queue
from golfcore.sweep.runner import JOURNAL
from golfcore.sweep.search import OptunaSearch
from golfcore.sweep.skypilot import sky_task
from golfcore.sweep.spec import parse_axis
from golfcore.sweep.worker import is_running

sys.path.insert(0, str(Path(__file__).parent))
from toy_sweep import silent, toy_sweep

AXES = [parse_axis("toy.loss=1.0..5.0"), parse_axis("toy.steps=1,2")]


def study(folder: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))
    return optuna.load_study(study_name="sweep", storage=storage)


def searched(folder: Path, trials: int, seeds: int = 1) -> list[tuple[str, int | None, str]]:
    queue = Queue(folder / JOURNAL)
    search = OptunaSearch(folder, queue, AXES, range(seeds), trials)
    entries = toy_sweep(folder, "", seeds, 2, queue=queue, search=search).run(silent)
    return [(entry.job.variant, entry.trial, entry.state) for entry in entries]


def test_a_search_tells_every_trial_its_mean(tmp_path: Path) -> None:
    found = searched(tmp_path, 4, seeds=2)
    assert len(found) == 8
    assert {trial for _, trial, _ in found} == {0, 1, 2, 3}
    assert {state for _, _, state in found} == {"done"}
    trials = study(tmp_path).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    for trial in trials:
        assert trial.value == pytest.approx(float(f"{trial.params['toy.loss']:.4g}") + 0.0005)
        assert 1.0 <= trial.params["toy.loss"] <= 5.0
        assert trial.params["toy.steps"] in ("1", "2")


def test_a_search_goes_on_after_a_death_between_the_two_journals(tmp_path: Path) -> None:
    queue = Queue(tmp_path / JOURNAL)
    search = OptunaSearch(tmp_path, queue, AXES, [0], 3)
    queue.begin("{}", [])
    assert search.more(queue.entries())  # trial 0: has jobs
    study(tmp_path).ask()  # trial 1: its process died before it wrote jobs
    queue.close()
    found = searched(tmp_path, 3)
    assert [trial for _, trial, _ in found] == [0, 2, 3]
    assert [trial.state.name for trial in study(tmp_path).trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert searched(tmp_path, 3) == found


def test_a_search_that_has_ended_and_was_not_told_is_told(tmp_path: Path) -> None:
    queue = Queue(tmp_path / JOURNAL)
    search = OptunaSearch(tmp_path, queue, AXES, [0], 1)
    queue.begin("{}", [])
    search.more(queue.entries())
    (entry,) = queue.entries()
    queue.start(entry.id, 0)
    queue.end(entry.id, "done", {"val_bpb": 1.25})
    assert study(tmp_path).trials[0].state.name == "RUNNING"
    searched(tmp_path, 1)
    assert study(tmp_path).trials[0].value == 1.25


def test_a_trial_without_a_score_has_failed(tmp_path: Path) -> None:
    queue = Queue(tmp_path / JOURNAL)
    search = OptunaSearch(tmp_path, queue, [parse_axis("toy.fail=no,never")], [0], 1)
    toy_sweep(tmp_path, "", 1, 1, queue=queue, search=search).run(silent)
    assert [trial.state.name for trial in study(tmp_path).trials] == ["FAIL"]


def test_submitits_local_executor(tmp_path: Path) -> None:
    launcher = SubmititLauncher(tmp_path, "local", {"timeout_min": 5}, jobs=2)
    entries = toy_sweep(tmp_path, "toy.loss=2,3;toy.steps=4", 1, 0, launcher=launcher).run(silent)
    assert [(e.state, e.attempts) for e in entries] == [("done", 1), ("done", 1)]
    assert not (tmp_path / "twice.txt").exists()
    assert list((tmp_path / "submitit").iterdir())


def test_a_submitted_run_is_adopted(tmp_path: Path) -> None:
    launcher = SubmititLauncher(tmp_path, "local", {}, jobs=1)
    sweep = toy_sweep(tmp_path, "toy.steps=120", 1, 0, launcher=launcher)
    (entry,) = sweep.look()
    assert entry.remote
    until = time.monotonic() + 60
    while is_running(tmp_path, entry.job.name) is None and time.monotonic() < until:
        time.sleep(0.05)
    launcher = SubmititLauncher(tmp_path, "local", {}, jobs=1)
    (entry,) = toy_sweep(tmp_path, "", 1, 0, launcher=launcher).run(silent)
    assert (entry.state, entry.attempts) == ("done", 1)
    assert len((tmp_path / "started.txt").read_text().splitlines()) == 1


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--cluster slurm"):
        SubmititLauncher(tmp_path, "slurm", {}, jobs=1)
    with pytest.raises(UsageError, match=r"timeout_mim.*did you mean 'timeout_min'"):
        SubmititLauncher(tmp_path, "local", {"timeout_mim": 5}, jobs=1)


def test_more_jobs_than_the_machine_has() -> None:
    with pytest.raises(UsageError, match="--jobs 9"):
        LocalLauncher(8, 9)
    assert LocalLauncher(8, 0).slots == 8
    assert LocalLauncher(0, 0).slots == 1


def test_a_sky_task_is_yaml_and_no_word_becomes_syntax() -> None:
    words = ["pocket", "--set", "model.smear=none,token", "--seeds", "3", "--set", "x.y='a: b # c'\n- d"]
    task = yaml.safe_load(sky_task("n: [x", words, accelerators="H100:8", hours=1.5))
    assert task["name"] == "n: [x"
    assert task["resources"]["accelerators"] == "H100:8"
    assert task["run"].startswith("timeout 5400 golfcore sweep pocket --set")
    assert shlex.split(task["run"])[4:] == words
    assert "pip install" in task["setup"]
