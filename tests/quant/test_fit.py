"""The search that fills a cap: on the toy model by itself, and from the command line on a trained run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY, recipe
from torch import Tensor
from toys import looped

from golfcore import container
from golfcore.artifact.model_io import StoredTensor
from golfcore.cli import main
from golfcore.config import QuantConfig, RecipeConfig
from golfcore.data.tokens import open_tokens, prepare_data
from golfcore.errors import InputError, RuleError
from golfcore.pipeline.config import check_fits, read_config, write_config
from golfcore.quant import error_rows, quantize_state
from golfcore.quant.fit import Fitter
from golfcore.quant.hessian import collect_hessians
from golfcore.quant.measure import Probe, replaced
from golfcore.recipes import load_recipe
from golfcore.run_folder import CONFIG, OWNER, QUANTIZED
from golfcore.training.checkpoint import save_checkpoint


def size(stored: list[StoredTensor]) -> int:
    return len(container.encode([part for item in stored for part in item.parts()], {}))


@pytest.fixture(scope="module")
def fitter() -> Fitter:
    model = looped(vocab_size=400)
    ids = torch.randint(0, 400, (12, 16), generator=torch.Generator().manual_seed(0))
    config = QuantConfig(method="gptq", states=8)
    return Fitter(model, config, collect_hessians(model, ids), Probe(model, ids), size)


def test_the_file_ends_just_below_the_cap(fitter: Fitter) -> None:
    for cap in (3600, 4800):
        plan, stored = fitter.fit(cap)
        assert cap - 40 <= size(stored) <= cap  # a byte is 0.03 % here, and steps lie on a grid
        assert plan.bytes == size(stored) and plan.cap == cap and plan.kl > 0
        planned = fitter.plan(cap)
        assert planned.bytes == pytest.approx(cap, rel=0.01)
        assert abs(plan.bytes - planned.bytes) < 0.2 * cap


def test_more_bytes_buy_less_divergence_spread_evenly(fitter: Fitter) -> None:
    small, large = (fitter.fit(cap)[0] for cap in (3600, 4800))
    assert large.kl < 0.5 * small.kl
    inside = [t.kl / t.weights for t in large.tensors if 0.031 < t.step < 1.99]
    assert len(inside) >= 2 and max(inside) == pytest.approx(min(inside), rel=1e-3)


def test_a_cap_that_cannot_be_met_says_what_can(fitter: Fitter) -> None:
    for act in (fitter.plan, fitter.fit):
        with pytest.raises(RuleError, match=r"300 bytes cannot be met.*largest tensor is 'embed\.weight'.*allow"):
            act(300)


def test_the_module_keeps_its_weights(fitter: Fitter) -> None:
    before = {n: p.detach().clone() for n, p in fitter.module.named_parameters()}
    fitter.fit(4200)
    rows = error_rows(fitter.state, fitter.fit(4200)[1], fitter.hessians, _probe(fitter), fitter.module)
    assert all(torch.equal(p, before[n]) for n, p in fitter.module.named_parameters())
    by_name = {row["name"]: row for row in rows}
    assert by_name.keys() == before.keys()
    for row in rows:
        assert float(str(row["kl"])) > 0 and float(str(row["hessian_db"])) < -3 and row["states"] == 8
    with pytest.raises(RuntimeError), replaced(fitter.module, {"core.weight": torch.zeros(16, 16)}):
        raise RuntimeError
    assert torch.equal(dict(fitter.module.named_parameters())["core.weight"], before["core.weight"])


def _probe(fitter: Fitter) -> Probe:
    return Probe(fitter.module, torch.randint(0, 400, (4, 16)), text_bytes=100)


def test_divergence_and_bits_per_byte_are_what_they_say() -> None:
    model = looped()
    ids = torch.randint(0, 40, (3, 10))
    probe = Probe(model, ids, text_bytes=77, batch_tokens=10)
    same = probe.cost(model)
    assert same.kl == pytest.approx(0, abs=1e-7)
    with torch.no_grad():
        before = torch.log_softmax(model.logits({}, ids)[0], -1)
        model.core.weight.mul_(1.3)
        after = torch.log_softmax(model.logits({}, ids)[0], -1)
    cost = probe.cost(model)
    assert cost.kl == pytest.approx(float((before.exp() * (before - after)).sum(-1).mean()), rel=1e-4)
    nats = -after[:, :-1].gather(-1, ids[:, 1:, None]).sum()
    assert cost.bpb == pytest.approx(float(nats) / np.log(2) / 77, rel=1e-5)
    assert Probe(model, ids).cost(model).bpb is None


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_dir(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose model has random weights: what the quantizer sees does not depend on training."""
    folder = tmp_path_factory.mktemp("quant")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOLFCORE_CACHE", str(folder / "cache"))
        config = prepare_data(recipe(), [text_file])
    run = folder / "run"
    run.mkdir()
    write_config(run, config)
    write_weights(run, config)
    return run


def write_weights(run: Path, config: RecipeConfig, bad: float = 0.0) -> None:
    from golfcore.model import get_family

    module = get_family("gpt").build(TINY, open_tokens(config.data.path).vocab_size, 0)
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {
        n: p.detach() + 0.05 * torch.randn(p.shape, generator=generator) for n, p in module.named_parameters()
    }
    weights["blocks.1.mlp.up.weight"][0, 0] += bad
    save_checkpoint(run, {"weights": weights})


def golf(*words: object) -> int:
    return main([str(word) for word in words])


def test_quantize_fit_pack_ends_below_the_cap(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = hashlib.sha256((run_dir / "checkpoint.pt").read_bytes()).hexdigest()
    assert golf("quantize", run_dir, "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert not (run_dir / QUANTIZED).exists() and plan["cap"] == 1_000_000
    cap = plan["fixed_bytes"] + 13_000
    assert golf("quantize", run_dir, "--fit", cap + 100, "--margin", 100, "--json", "--set", "quant.states=8") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["plan"]["cap"] == cap and result["total"]["kl"] > 0 and result["total"]["bpb"] > 0
    assert golf("pack", run_dir, "--json") == 0
    packed = json.loads(capsys.readouterr().out)
    assert 0.999 * cap <= packed["bytes"]["file"] <= cap
    assert packed["bytes"]["file"] == result["plan"]["bytes"]
    assert json.loads((run_dir / "quantised.json").read_text())["plan"] == result["plan"]
    assert golf("quantize", run_dir, "--fit", 500) == 1
    assert "cannot be met" in capsys.readouterr().err
    assert golf("quantize", run_dir, "--fit", 500, "--margin", 600) == 2
    assert golf("quantize", run_dir) == 0  # round to nearest, as the recipe says
    assert "in all" in capsys.readouterr().out
    assert hashlib.sha256((run_dir / "checkpoint.pt").read_bytes()).hexdigest() == checkpoint


def test_kill_9_leaves_the_checkpoint_and_whole_files(run_dir: Path, tmp_path: Path) -> None:
    sets = ["--set", "quant.method=gptq", "--set", "quant.states=4", "--set", "quant.calibration_tokens=256"]
    # The fifth block of columns lies within the measuring of sensitivities where there is a search.
    moments = {("columns", 5): set(), ("fsync", 1): set(), ("fsync", 2): {QUANTIZED}}
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("killed.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as parent:  # fmt: skip
        assert parent.stdin and parent.stdout
        for options in ([], ["--fit", "45000"]):
            run = tmp_path / f"run{len(options)}"
            shutil.copytree(run_dir, run, ignore=shutil.ignore_patterns("quantised*", ".*"))
            before = {path.name: path.read_bytes() for path in run.iterdir()}
            words = ["quantize", str(run), *sets, *options]
            for (moment, calls), added in moments.items():
                parent.stdin.write(json.dumps({"moment": moment, "calls": calls, "words": words}) + "\n")
                parent.stdin.flush()
                assert int(parent.stdout.readline()) == -signal.SIGKILL, moment
                left = {path.name: path.read_bytes() for path in run.iterdir() if not path.name.endswith(".tmp")}
                assert {name: left[name] for name in before} == before
                assert left.keys() - before.keys() == added | {OWNER}  # whose lock died with the process
            torn = torch.load(run / QUANTIZED, weights_only=True)
            assert main(words) == 0
            whole = torch.load(run / QUANTIZED, weights_only=True)
            assert len(torn["tensors"]) == len(whole["tensors"]) > 0
            assert json.loads((run / "quantised.json").read_text())["tensors"]
            assert not list(run.glob(".*.tmp"))
            assert main(["pack", str(run)]) == 0
        parent.stdin.close()


def test_calibration_text_may_be_the_users_or_the_models_but_not_the_validation_text(
    run_dir: Path, tmp_path: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.txt"
    own.write_text("it was that the other one is in for the day. " * 60)
    sets = ("--set", "quant.method=gptq", "--set", "quant.states=4", "--set", "quant.calibration_tokens=256")
    assert golf("quantize", run_dir, "--text", own, *sets, "--json") == 0
    assert json.loads(capsys.readouterr().out)["total"]["calibration_tokens"] > 0
    assert golf("quantize", run_dir, *sets, "--set", "quant.calibration=generated", "--json") == 0
    assert json.loads(capsys.readouterr().out)["total"]["calibration_tokens"] == 256
    assert golf("quantize", run_dir, "--text", text_file, *sets) == 1  # holds the validation documents too
    assert "overlaps the validation text" in capsys.readouterr().err
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    assert golf("quantize", run_dir, "--text", empty, *sets) == 1


def test_diverged_weights_are_named_and_nothing_is_written(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / CONFIG).write_text((run_dir / CONFIG).read_text())
    write_weights(broken, read_config(run_dir), bad=float("nan"))
    assert golf("quantize", broken) == 1
    assert "blocks.1.mlp.up.weight: holds NaN" in capsys.readouterr().err
    for words in (("--set", "quant.method=gptq"), ("--fit", 60_000), ("--dry-run",)):
        assert golf("quantize", broken, *words) == 1
        assert "blocks.1.mlp.up.weight: holds NaN" in capsys.readouterr().err
    assert not (broken / QUANTIZED).exists()


def test_a_model_trained_as_it_is_stored_loses_nothing(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The optimizer's weights, which the forward pass never saw, are not what it is held against."""
    sets = ("--set", "quant.format=ternary", "--set", "quant.group=32", "--json")
    assert golf("quantize", run_dir, *sets, "--set", "quant.qat=ste") == 0
    trained = json.loads(capsys.readouterr().out)
    assert golf("quantize", run_dir, *sets) == 0
    other = json.loads(capsys.readouterr().out)
    assert abs(trained["total"]["kl"]) < 1e-5 < other["total"]["kl"]
    assert all(abs(row["kl"]) < 1e-5 for row in trained["tensors"] if row["kl"] is not None)
    assert trained["total"]["bpb"] == pytest.approx(trained["total"]["bpb_before"], abs=1e-4)


def test_an_old_quantized_file_is_refused(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_dir / QUANTIZED
    for content in ({"version": 1, "tensors": []}, {"tensors": []}, {"version": 2, "tensors": [[1]]}):
        torch.save(content, path)
        assert golf("pack", run_dir) == 1
        assert "quantised.pt" in capsys.readouterr().err
    path.unlink()


def test_the_pocket_recipe_fills_its_cap() -> None:
    config = load_recipe("pocket", environment={}).config
    assert config.quant.method == "gptq" and config.quant.fit and 0 < config.quant.reserve_s < config.track.train_s
    predicted = check_fits(config, 1024)
    assert predicted < config.track.cap_bytes
    huge = dataclasses.replace(config, model=dataclasses.replace(config.model, num_layers=40))
    with pytest.raises(RuleError, match="will not fit"):
        check_fits(huge, 1024)


def test_rounding_needs_no_calibration() -> None:
    model = looped()
    stored = quantize_state(model.state_dict(), model.parameter_roles(), QuantConfig(method="lite"))
    assert {item.bits for item in stored} == {6, 8}
    with pytest.raises(InputError, match="needs the Hessians"):
        quantize_state(model.state_dict(), model.parameter_roles(), QuantConfig(method="gptq"))
