"""Steps against a reference, an all-reduce over ranks, and the whole command, as far as a machine without GPUs can."""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from many_ranks import run_ranks

from golfcore.boxcheck import steps as steps_module
from golfcore.boxcheck.cut import cut_recipe
from golfcore.boxcheck.findings import Failed, Finding, Found, NotHere
from golfcore.boxcheck.steps import check_links, check_steps, predicted, reference
from golfcore.boxcheck.whole import Report
from golfcore.cli import main
from golfcore.config import RecipeConfig, to_toml, to_tree
from golfcore.model import get_family
from golfcore.plan.outline import make_plan
from golfcore.ranks.rendezvous import Place
from golfcore.ranks.world import World
from golfcore.recipes import load_recipe, recipe_names

CPU = World(rank=0, size=1, device=torch.device("cpu"))


def shipped(name: str) -> RecipeConfig:
    return load_recipe(name, environment={}).config


@pytest.mark.parametrize("name", ["baseline_8xh100", "frontier_8xh100"])
def test_the_prediction_is_the_plans_by_the_shares_of_the_phases(name: str) -> None:
    config = dataclasses.replace(shipped(name), track=dataclasses.replace(shipped(name).track, train_s=0.0))
    found = predicted(config, 8, config.data.vocab_size, fa3=True)
    plan = make_plan(config, gpus=8, attention="fa3")["run"]
    assert found is not None
    assert found.ms == pytest.approx(plan["ms_a_step"], rel=0.01)
    assert found.limit_ms == pytest.approx(plan["ms_high"], rel=0.01)
    assert predicted(config, 7, config.data.vocab_size, fa3=True) is None  # rows that do not divide


def test_only_the_gpus_of_the_plan_have_a_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    config, name = shipped("baseline_8xh100"), "NVIDIA H100 80GB HBM3"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    eight = dataclasses.replace(CPU, size=8, device=torch.device("cuda", 0))
    found = reference(config, eight, 1024, 0.0)
    assert found is not None and "predicted for 8 H100s" in found.source
    assert reference(config, CPU, 1024, 0.0) is None
    given = reference(config, CPU, 1024, 50.0)
    assert given is not None and (given.ms, given.source) == (50.0, "given")
    assert given.limit_ms == pytest.approx(55.0)
    name = "NVIDIA L40S"
    assert reference(config, eight, 1024, 0.0) is None


@pytest.mark.parametrize("name", recipe_names())
def test_a_cut_recipe_keeps_the_kinds_of_layers(name: str) -> None:
    whole = shipped(name)
    cut = cut_recipe(whole, rows=16)
    assert bool(cut.model.loop_layers) == bool(whole.model.loop_layers)
    assert bool(cut.model.lanes_from) == bool(whole.model.lanes_from)
    assert cut.model.loop_starts == whole.model.loop_starts
    assert cut.train.batch_tokens == 16 * cut.train.seq_len
    assert cut.train.require_gpu == whole.train.require_gpu
    model = get_family("gpt").build(cut.model, 300, 0)
    assert sum(p.numel() for p in model.parameters()) < 2_000_000


def test_steps_without_a_reference_are_timed_and_not_judged(boxed: RecipeConfig) -> None:
    found = check_steps(boxed, CPU, 260, 3, 0.0)
    assert found.missing == "the time, for which there is no reference here"
    assert "3 steps of a cut recipe on 1 CPU rank, " in found.detail
    assert found.values["ms"] > 0


def test_steps_against_a_reference(boxed: RecipeConfig) -> None:
    found = check_steps(boxed, CPU, 260, 3, 1e6)
    assert found.missing == ""
    assert "1,000,000.0 given, 1,100,000.0 at most" in found.detail
    with pytest.raises(Failed, match="a step of the warm-up took") as caught:
        check_steps(boxed, CPU, 260, 3, 1e-6)
    assert caught.value.remedy == "take another machine"


def test_steps_that_are_slower_after_the_warm_up_fail_too(boxed: RecipeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps_module, "FAR_TOO_LONG", 1e12)
    with pytest.raises(Failed, match="3 steps of a cut recipe on 1 CPU rank took"):
        check_steps(boxed, CPU, 260, 3, 1e-6)


def test_a_loss_that_does_not_compile_fails(boxed: RecipeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(steps_module, "cut_recipe", lambda recipe, rows, **train: cut_recipe(recipe, compile=True))
    monkeypatch.setattr("golfcore.training.compiled.torch.compile", lambda loss, **options: broken)
    with pytest.raises(Failed, match=r"loss: eager .torch.compile failed: RuntimeError: no compiler"):
        check_steps(boxed, CPU, 260, 3, 0.0)


def linked(world: World) -> tuple[Found, Found]:
    place = Place(world.rank, world.size, world.rank, local_size=world.size)
    config = load_recipe("baseline_8xh100", environment={}).config
    return check_links(world, place), check_steps(config, world, 300, 3, 0.0)


def test_two_ranks_are_timed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for links, steps in run_ranks(2, linked):
        assert links.detail.startswith("8 MiB over 2 ranks in ")
        assert links.missing == "NCCL"
        assert "on 2 CPU ranks" in steps.detail
    with pytest.raises(NotHere, match="start this under torchrun"):
        check_links(CPU, Place())


class Linked:
    """Eight ranks with GPUs whose sum takes ``seconds``."""

    size, device = 8, types.SimpleNamespace(type="cuda")

    def __init__(self, seconds: float, monkeypatch: pytest.MonkeyPatch, sums: float = 8.0) -> None:
        buffer = torch.full((REDUCED // 4,), sums)
        monkeypatch.setattr(steps_module.torch, "ones", lambda *size, device: buffer)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
        monkeypatch.setitem(steps_module.REDUCED_BYTES, "cuda", REDUCED)
        self.seconds = seconds

    def all_reduce(self, buffer: torch.Tensor) -> Any:
        return lambda: None

    def synchronize(self) -> None:
        pass

    def largest(self, value: float) -> tuple[float, ...]:
        return (self.seconds,)


REDUCED = 1 << 20


@pytest.mark.parametrize(("rate", "local", "ok"), [(300e9, 8, True), (40e9, 8, False), (40e9, 4, True)])
def test_a_machine_without_fast_links_fails(rate: float, local: int, ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    world: Any = Linked(2 * 7 / 8 * REDUCED / rate, monkeypatch)
    place = Place(0, 8, 0, local_size=local)
    if ok:
        found = check_links(world, place)
        assert found.values["bytes_s"] == pytest.approx(rate)
        assert bool(found.missing) == (local < 8)  # between machines there is no reference
        return
    with pytest.raises(Failed, match=r"40\.0 GB/s, expected 180 at least") as caught:
        check_links(world, place)
    assert "NVLink" in caught.value.remedy


def test_a_sum_that_is_wrong_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    world: Any = Linked(1.0, monkeypatch, sums=7.0)
    with pytest.raises(Failed, match="a sum of ones over 8 ranks is 7"):
        check_links(world, Place(0, 8, 0, local_size=8))


@pytest.mark.parametrize(
    ("device", "states", "said"),
    [
        ("cuda", ["ok", "ok"], "ready for tiny on 8 GPUs"),
        ("cuda", ["ok", "in part"], "ready for tiny on 8 GPUs; not checked or only in part: b"),
        ("cuda", ["failed", "not reached"], "not ready for tiny: a failed; not checked or only in part: b"),
        ("cpu", ["not checked", "ok"], "nothing wrong, but no GPU computes here, so this is no word on tiny's speed; "),
    ],
)
def test_the_verdict_says_what_nobody_checked(device: str, states: list[Any], said: str) -> None:
    findings = tuple(Finding(name, state, "") for name, state in zip("ab", states, strict=True))
    report = Report("tiny", 8, device, findings, True)
    assert report.verdict().startswith(said)
    tree = report.document()
    assert (tree["ok"], tree["complete"]) == ("failed" not in states, states == ["ok", "ok"])


def test_the_command_on_a_machine_without_gpus(
    boxed: RecipeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "boxed.toml"
    path.write_text(to_toml(to_tree(boxed)))
    words = ["preflight", str(path), "--steps", "3", "--set", "train.compile=false"]
    assert main([*words, "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    found = {row["name"]: row["state"] for row in tree["checks"]}
    assert found == {
        "gpu": "not checked", "disk": "ok", "tokens": "in part", "clocks": "not checked",
        "flash attention": "not checked", "compiler": "not checked", "links": "not checked", "steps": "in part",
    }  # fmt: skip
    assert (tree["ok"], tree["complete"], tree["device"]) == (True, False, "cpu")
    assert main([*words, "--reference-ms", "1e-6"]) == 1
    shown = capsys.readouterr().out
    assert "not ready for tiny: steps failed; not checked or only in part: gpu, tokens, clocks" in shown
    assert "-> take another machine" in shown
    assert "golfcore doctor" in shown
    assert main([*words, "--data", str(tmp_path / "absent")]) == 1
    shown = capsys.readouterr().out
    assert "no such folder" in shown
    assert "left out after tokens failed" in shown
    assert not (tmp_path / "runs").exists()
