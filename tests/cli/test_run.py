"""The command line as a user meets it: whole runs, stage by stage, killed and resumed, on two ranks, on bad input."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiny import recipe

from golfcore.artifact.inspect import summary
from golfcore.config import QuantConfig, to_toml, to_tree
from golfcore.contest.logs import parse_log
from golfcore.data.shards import ShardWriter, header
from golfcore.run_folder import METRICS, PREVIOUS_CHECKPOINT
from golfcore.training.checkpoint import load_checkpoint, save_checkpoint
from golfcore.training.runlog import read_metrics

ROOT = Path(__file__).parent.parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def tiny_toml(home: Path) -> Path:
    path = home / "tiny.toml"
    path.write_text(to_toml(to_tree(recipe(iterations=30))))
    return path


def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ, "GOLFCORE_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "100",
        "NO_COLOR": "1",
    }  # fmt: skip


def golfcore(home: Path, *arguments: object, expect: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "golfcore", *map(str, arguments)],
        cwd=home, env={**environment(home), **env}, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == expect, done.stderr + done.stdout
    return done


@pytest.fixture(scope="module")
def finished(home: Path, tiny_toml: Path, text_file: Path) -> dict[str, object]:
    """The last line of a whole run."""
    done = golfcore(home, "run", tiny_toml, "--text", text_file, "--run-id", "whole")
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "stdout": done.stdout}


def test_a_run_ends_with_a_panel_and_one_json_line(home: Path, finished: dict[str, object]) -> None:
    assert list(finished)[:9] == [
        "run", "val_bpb", "val_loss", "bytes_total", "bytes_cap", "train_s", "eval_s", "artifact", "report",
    ]  # fmt: skip
    assert 1 < float(str(finished["val_bpb"])) < 8
    artifact = home / str(finished["artifact"])
    assert artifact.stat().st_size == finished["bytes_total"]
    for words in ("bits per byte", "free", "model.golf", "golfcore inspect"):
        assert words in str(finished["stdout"])
    names = {path.name for path in (home / "runs" / "whole").iterdir()}
    assert names >= {"config.toml", "log.txt", "metrics.jsonl", "env.json", "ledger.json", "model.golf", "score.json",
                     "report.html"}  # fmt: skip
    assert not [name for name in names if name.endswith(".tmp")]


def test_the_log_is_in_the_contests_form(home: Path, finished: dict[str, object]) -> None:
    text = (home / "runs" / "whole" / "log.txt").read_text()
    rows = parse_log(text)
    assert sum(row["kind"] == "train" for row in rows) == 30
    weights: Counter[str] = Counter()
    for row in summary(home / str(finished["artifact"]))["chunks"]:
        if row["kind"] in ("int6", "int8"):
            weights[row["codec"]] += row["weights"]
    codec = weights.most_common(1)[0][0]
    assert f"Total submission size int6+{codec}: {finished['bytes_total']} bytes" in text
    assert f"val_bpb:{finished['val_bpb']:.8f}" in text.splitlines()[-1]


def test_stage_by_stage_gives_the_same_bytes_and_score(
    home: Path, tiny_toml: Path, text_file: Path, finished: dict[str, object]
) -> None:
    golfcore(home, "train", tiny_toml, "--text", text_file, "--run-id", "staged", "--json")
    golfcore(home, "quantize", "runs/staged", "--json")
    golfcore(home, "pack", "runs/staged", "-o", "staged.golf")
    assert (home / "staged.golf").read_bytes() == (home / str(finished["artifact"])).read_bytes()

    data = str(json.loads((home / "runs/whole/score.json").read_text())["data_sha256"])
    folder = next((home / "cache" / "prepared").iterdir())
    scored = json.loads(golfcore(home, "eval", "staged.golf", "--data", folder, "--json").stdout)
    assert scored["val_bpb"] == finished["val_bpb"]
    assert (scored["data_sha256"], scored["code_matches"]) == (data, True)

    golfcore(home, "pack", "runs/staged", "-o", "smallest.golf", "--coder", "smallest")
    chunks = json.loads(golfcore(home, "inspect", "smallest.golf", "--json").stdout)["chunks"]
    assert "binary" in {chunk["codec"] for chunk in chunks}
    again = json.loads(golfcore(home, "eval", "smallest.golf", "--data", folder, "--json").stdout)
    assert (again["val_bpb"], again["code_matches"]) == (finished["val_bpb"], True)

    report = golfcore(home, "report", "runs/staged")
    assert "report.html" in report.stdout


def test_any_text_is_scored_with_the_models_own_tokenizer(
    home: Path, finished: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "other.txt").write_text("the of and to in a is that for it was on with as be at by this")
    scored = json.loads(golfcore(home, "eval", finished["artifact"], "--text", tmp_path / "other.txt", "--json").stdout)
    assert scored["bytes"] == (tmp_path / "other.txt").stat().st_size


def test_the_clock_is_in_score_and_log(home: Path, finished: dict[str, object], tmp_path: Path) -> None:
    score = json.loads((home / "runs/whole/score.json").read_text())
    assert score["pace"]["asked"] == score["context"] == 32
    assert (score["pace"]["budget_s"], score["pace"]["strides"]) == (120.0, [[1, 32]])
    assert 0 < score["pace"]["before_s"] < 120 and score["pace"]["tokens_per_s"] > 0
    log = (home / "runs/whole/log.txt").read_text()
    assert "eval_stride:32 (as asked) tokens_per_s:" in log

    evaluate = ["eval", finished["artifact"], "--data", _prepared(home), "--json"]
    auto = json.loads(golfcore(home, *evaluate, "--stride", "auto", "--context", "200", "--budget", "500").stdout)
    assert (auto["pace"]["asked"], auto["stride"]) == ("auto", 100)  # half of it is below the finest
    by_hand = json.loads(golfcore(home, *evaluate, "--stride", "100", "--context", "200", "--budget", "0").stdout)
    assert (by_hand["pace"], by_hand["ledger_sha256"]) == (None, auto["ledger_sha256"])

    # What golfcore run spent before this process began is on the clock.
    late = golfcore(home, *evaluate, "--stride", "8", "--budget", "100", f"--began={time.monotonic() - 1000}")
    assert "warning: eval.stride = 8 needs about 1" in late.stderr
    assert json.loads(late.stdout)["pace"]["warnings"]
    done = golfcore(home, *evaluate, "--stride", "33", expect=2)
    assert "at most the context of 32 tokens" in one_line(done)
    done = golfcore(home, *evaluate, "--stride", "auto", "--budget", "0", expect=2)
    assert "give --budget SECONDS" in one_line(done)


def test_unpack_and_pack_are_inverse(home: Path, finished: dict[str, object]) -> None:
    golfcore(home, "verify", finished["artifact"])
    golfcore(home, "unpack", finished["artifact"], "-o", "taken_apart")
    golfcore(home, "pack", "taken_apart", "-o", "again.golf")
    assert (home / "again.golf").read_bytes() == (home / str(finished["artifact"])).read_bytes()


def losses(run_dir: Path) -> dict[int, float]:
    return {row["step"]: row["train_loss"] for row in read_metrics(run_dir / METRICS) if row["kind"] == "train"}


def test_killed_at_any_moment_and_resumed_the_curve_goes_on(
    home: Path, tiny_toml: Path, text_file: Path, finished: dict[str, object]
) -> None:
    """kill -9 at random moments of a run that saves after every step, until it has ended."""
    rng = random.Random(0)
    start = [sys.executable, "-m", "golfcore", "train"]
    arguments = [
        str(tiny_toml),
        "--text",
        str(text_file),
        "--run-id",
        "killed",
        "--set",
        "train.checkpoint_every_s=1e-9",
    ]
    run_dir = home / "runs" / "killed"
    kills = 0
    while True:
        with subprocess.Popen(
            start + arguments, cwd=home, env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            before = (run_dir / "checkpoint.pt").stat().st_mtime_ns if (run_dir / "checkpoint.pt").exists() else 0
            while process.poll() is None and kills < 3:
                if (run_dir / "checkpoint.pt").exists() and (run_dir / "checkpoint.pt").stat().st_mtime_ns > before:
                    time.sleep(rng.uniform(0, 0.1))
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.002)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        assert kills <= 3
        arguments = ["--resume", str(run_dir)]
    assert kills == 3
    assert losses(run_dir) == losses(home / "runs" / "whole")


def test_a_resumed_run_keeps_what_a_trial_settled(home: Path, tiny_toml: Path, text_file: Path) -> None:
    """Another attention rounds otherwise: the curve goes on only with the one that it began with."""
    golfcore(
        home, "train", tiny_toml, "--text", text_file, "--run-id", "settled", "--set", "train.attention=auto",
        "--set", "train.checkpoint_every_s=1e-9",
    )  # fmt: skip
    run_dir = home / "runs" / "settled"
    saved = load_checkpoint(run_dir / PREVIOUS_CHECKPOINT)
    assert not saved["final"]
    chosen = saved["choices"]["attention"]
    assert f"attention:{chosen} (measured; " in (run_dir / "log.txt").read_text()
    other = {"own": "sdpa", "sdpa": "own"}[chosen]
    save_checkpoint(run_dir, saved | {"choices": saved["choices"] | {"attention": other}})
    golfcore(home, "train", "--resume", run_dir)
    assert f"attention:{other} (as the run began)" in (run_dir / "log.txt").read_text()


def test_two_ranks_are_one_rank_to_rounding(
    home: Path, tiny_toml: Path, text_file: Path, finished: dict[str, object]
) -> None:
    command = [
        *TORCHRUN, "--nproc_per_node=2", str(ROOT / "python" / "train_gpt.py"), "--recipe", str(tiny_toml),
        "--text", str(text_file), "--run-id", "ranks",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=home, env=environment(home), capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    one, two = losses(home / "runs" / "whole"), losses(home / "runs" / "ranks")
    np.testing.assert_allclose(list(one.values())[:10], list(two.values())[:10], atol=2e-3)
    score = json.loads((home / "runs" / "ranks" / "score.json").read_text())
    assert score["world_size"] == 2
    assert score["val_bpb"] == pytest.approx(float(str(finished["val_bpb"])), abs=0.02)
    alone = golfcore(home, "eval", "runs/ranks/model.golf", "--data", _prepared(home), "--json")
    assert json.loads(alone.stdout)["ledger_sha256"] == score["ledger_sha256"]  # each token's loss to the last bit
    lines = done.stdout.splitlines()
    assert any(line.startswith("step:30/30 train_loss:") for line in lines)
    assert any(re.match("final_int6_[a-z0-9]+_roundtrip_exact val_loss:", line) for line in lines)


def test_golfcore_run_on_two_ranks_is_one_run(home: Path, text_file: Path) -> None:
    """One folder, named by rank 0; the score of both ranks' new processes; one result."""
    path = home / "short.toml"
    path.write_text(to_toml(to_tree(recipe(iterations=3))))
    command = [*TORCHRUN, "--nproc_per_node=2", "-m", "golfcore", "run", str(path), "--text", str(text_file)]
    command += ["--runs", "together", "--set", "optim.matrix_lr=0.01"]
    done = subprocess.run(command, cwd=home, env=environment(home), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    folders = list((home / "together").iterdir())
    assert [result["run"] for result in results] == [folder.name for folder in folders]
    score = json.loads((folders[0] / "score.json").read_text())
    assert (score["world_size"], score["val_bpb"]) == (2, results[0]["val_bpb"])
    assert "matrix_lr = 0.01" in (folders[0] / "config.toml").read_text()


def _prepared(home: Path) -> Path:
    return next((home / "cache" / "prepared").iterdir())


def test_contest_shards_and_environment_names(home: Path, tiny_toml: Path, tmp_path: Path) -> None:
    """Shards without text, a tokenizer from a file, settings under the contest's names."""
    from golfcore.tokenizer import Tokenizer

    rng = np.random.default_rng(0)
    folder = tmp_path / "shards"
    folder.mkdir()
    for split, n in (("train", 4000), ("val", 333)):
        with ShardWriter(folder, split) as writer:
            writer.append(np.concatenate(([1], 4 + rng.integers(97, 103, n - 1))).astype(np.uint16))
    Tokenizer.train([], 260).save(tmp_path / "bytes.bpe")
    done = golfcore(
        home, "run", tiny_toml, "--run-id", "contest",
        DATA_PATH=str(folder), TOKENIZER_PATH=str(tmp_path / "bytes.bpe"), NUM_LAYERS="2", MATRIX_LR="0.01",
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1])["val_bpb"] < 8
    config = (home / "runs" / "contest" / "config.toml").read_text()
    assert "num_layers = 2" in config
    assert "matrix_lr = 0.01" in config
    score = json.loads((home / "runs" / "contest" / "score.json").read_text())
    assert score["tokens"] == 332 // 32 * 32  # cut to whole rows, as the contest does


# --- bad input --------------------------------------------------------------------------------------------------------


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error, which must be one line and no stack trace."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("golfcore: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["run", "pockt"], 2, "did you mean 'pocket'"),
        (["run", "pocket", "--set", "train.sed=1"], 2, "did you mean 'seed'"),
        (["run", "pocket", "--set", "seed"], 2, "section.key=value"),
        (["run", "pocket", "--set", "model.num_heads=5"], 2, "model.num_heads = 5"),
        (["run", "pocket", "--set", "train.order=sideways"], 2, "sequential or shuffled"),
        (["run", "pocket", "--text", "nowhere.txt"], 1, "no such file"),
        (["run", "pocket", "--text", "empty.txt"], 1, "holds no text"),
        (["run", "pocket", "--text", "binary.txt"], 1, "binary.txt"),
        (["run", "pocket", "--data", "nowhere"], 1, "no such folder"),
        (["run", "pocket", "--resume", "nowhere"], 1, "not a run folder"),
        (["eval", "nowhere.golf", "--data", "."], 1, ""),
        (["eval", "tiny.toml"], 2, "--data FOLDER"),
        (["quantize", "."], 1, "not a run folder"),
        (["inspect", "tiny.toml"], 1, "not a model container"),
        (["train", "pocket", "--run-id", "a/b"], 2, "plain name"),
    ],
)
def test_mistakes_get_one_line(home: Path, tiny_toml: Path, arguments: list[str], code: int, named: str) -> None:
    (home / "empty.txt").write_bytes(b"")
    (home / "binary.txt").write_bytes(bytes(range(256)) * 4)
    assert named in one_line(golfcore(home, *arguments, expect=code))


def test_unknown_options_and_commands_are_wrong_usage(home: Path) -> None:
    assert "--sed" in golfcore(home, "run", "pocket", "--sed", "1", expect=2).stderr
    golfcore(home, "rnu", expect=2)


def test_a_cap_that_is_too_small_is_said_before_training(home: Path, tiny_toml: Path, text_file: Path) -> None:
    done = golfcore(home, "run", tiny_toml, "--text", text_file, "--set", "track.cap_bytes=2000", expect=1)
    assert "will not fit" in one_line(done)
    assert not list((home / "runs").glob("tiny-*"))


def test_an_artifact_over_its_cap_does_not_count(
    home: Path, tiny_toml: Path, text_file: Path, finished: dict[str, object]
) -> None:
    cap = int(str(finished["bytes_total"])) - 1
    done = golfcore(
        home, "run", tiny_toml, "--text", text_file, "--run-id", "over", "--set", f"track.cap_bytes={cap}", expect=1
    )
    assert "its score does not count" in one_line(done)
    assert json.loads(done.stdout.splitlines()[-1])["bytes_total"] == cap + 1


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"x" * 2000, "magic"),
        (header(900)[:500], "shorter than the header"),
        (header(900) + bytes(1000), "expected 2824 for 900 tokens"),
        (b"", "0 bytes"),
    ],
)
def test_broken_shards_are_named(home: Path, tmp_path: Path, content: bytes, named: str) -> None:
    from golfcore.tokenizer import Tokenizer

    for split in ("train", "val"):
        (tmp_path / f"fineweb_{split}_000000.bin").write_bytes(content)
    Tokenizer.train([], 260).save(tmp_path / "bytes.bpe")
    done = golfcore(
        home, "run", "pocket", "--data", tmp_path, "--set", f"data.tokenizer={tmp_path / 'bytes.bpe'}", expect=1
    )
    assert named in one_line(done)


def test_another_tokenizers_tokens_are_refused(home: Path, finished: dict[str, object], tmp_path: Path) -> None:
    from golfcore.data.prepare import prepare

    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": f"number {i} of many"}) + "\n" for i in range(60)))
    prepare([tmp_path / "t.jsonl"], tmp_path / "other", vocab_size=265)
    done = golfcore(home, "eval", finished["artifact"], "--data", tmp_path / "other", expect=1)
    assert "another tokenizer" in one_line(done)


def test_an_interrupt_is_one_line_and_leaves_nothing_half_written(home: Path, tiny_toml: Path, text_file: Path) -> None:
    command = [
        sys.executable, "-m", "golfcore", "run", str(tiny_toml), "--text", str(text_file), "--run-id", "stopped",
        "--set", "train.iterations=1000000", "--set", "train.checkpoint_every_s=1e-9",
    ]  # fmt: skip
    run_dir = home / "runs" / "stopped"
    with subprocess.Popen(
        command,
        cwd=home,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it
    ) as process:
        while not (run_dir / "checkpoint.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert "interrupted; go on with: golfcore run --resume" in stderr
    assert "Traceback" not in stderr
    assert not (run_dir / "model.golf").exists()
    assert not list(run_dir.glob("*.tmp"))


def test_a_full_disk_is_one_line(home: Path, tiny_toml: Path, text_file: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk: the first file above the limit fails to be written."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        "from golfcore.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["run", str(tiny_toml), "--text", str(text_file), "--run-id", "full"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=home, env=environment(home), capture_output=True, text=True,
        check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 75, done.stderr
    assert "cannot write" in one_line(done)
    assert not list((home / "runs" / "full").glob("*.tmp")) + list((home / "runs" / "full").glob(".*.tmp"))


def test_debug_shows_where(home: Path) -> None:
    assert "Traceback" in golfcore(home, "run", "pockt", "--debug", expect=2).stderr


def test_help_and_version_start_without_torch(home: Path) -> None:
    assert "inspect" in golfcore(home, "--help").stdout
    assert golfcore(home, "--version").stdout.startswith("golfcore ")
    code = (
        "import sys; from golfcore.cli import main; main(['run', '--help']);"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_run_with_gptq_fills_its_cap_on_two_ranks(home: Path, text_file: Path) -> None:
    """Hessians of both ranks on the training clock, the search on rank 0, and a file just below the cap."""
    config = recipe(iterations=10)
    config = dataclasses.replace(
        config, track=dataclasses.replace(config.track, cap_bytes=36_000, train_s=60.0),
        quant=QuantConfig(method="gptq", fit=True, states=8, calibration_tokens=512, margin=200, reserve_s=1.0),
    )  # fmt: skip
    path = home / "fit.toml"
    path.write_text(to_toml(to_tree(config)))
    command = [*TORCHRUN, "--nproc_per_node=2", str(ROOT / "python/train_gpt.py"), "--recipe", str(path)]
    command += ["--text", str(text_file), "--run-id", "fitted"]
    done = subprocess.run(command, cwd=home, env=environment(home), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr + done.stdout
    run = home / "runs" / "fitted"
    errors = json.loads((run / "quantised.json").read_text())
    assert errors["total"]["calibration_tokens"] == 512 and errors["total"]["kl"] > 0
    size = (run / "model.golf").stat().st_size
    assert size == errors["plan"]["bytes"] and 0.998 * 35_800 <= size <= 35_800
    assert "KL x 1000" in (run / "report.html").read_text()
    assert "quantised kl:" in (run / "log.txt").read_text()
