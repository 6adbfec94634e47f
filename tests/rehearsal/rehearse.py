"""``make rehearse``: the way from a clone to a score on eight GPUs, on a machine that has none.

    python tests/rehearsal/rehearse.py [--cuda ON|OFF] [--torch cuda|cpu|auto] [--folder build/rehearse]

It builds the wheel, installs it into an environment of its own, and walks the contest's journey with it: with fake
tensors on a GPU that is not there, and for real on the processor with a cut recipe. Each stage is a line; the first
that fails ends the rehearsal with exit code 1. What it cannot see is listed at its end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from standin import write_package

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
RECIPE = "smoke_1gpu"  # for the processor: every kind of layer of the frontier, and the shards of the stand-in hub
FAKED = ("frontier_8xh100", "baseline_8xh100")
RANKS = ({}, {"RANK": "0", "WORLD_SIZE": "8"}, {"RANK": "7", "WORLD_SIZE": "8"})
SHARDS, MODEL = "data/datasets/fineweb10B_sp1024", "data/tokenizers/fineweb_1024_bpe.model"
RUN, STEPS = "runs/rehearsal", 150
CUDA_GB = 20  # of disk: an environment with torch for CUDA 13 took 4.9, and pip keeps its downloads
UNSEEN = (
    "whether a kernel computes rightly on a GPU: the suite runs their source on the host (tests/simt)",
    "any time: steps, compiler, links; golfcore preflight measures them on the machine",
    "NCCL: collectives of the fake ranks return at once, those of the real ones are gloo's",
    "torch.compile and CUDA graphs on a GPU: the steps here are eager",
    "FlashAttention-3, whose trial needs a Hopper GPU",
    "memory: a recipe at its full size may not fit",
    "the driver, its match with torch's CUDA, and the clocks: golfcore preflight",
    "the real hub, its 16 GB and their hashes",
    "eight processes on one machine with eight GPUs: the real ranks here are two, on a processor",
)


class Broken(Exception):
    """A stage that failed, with the last lines of what it printed."""


class Skipped(Exception):
    """A stage that cannot be tried here, with the reason."""


@dataclass(frozen=True)
class Stage:
    name: str
    work: Callable[[], str]  # returns what was found


@dataclass(frozen=True)
class Outcome:
    name: str
    state: str  # ok, failed, skipped, not reached
    seconds: float
    detail: str


def rehearse(stages: Sequence[Stage], tell: Callable[[str], None] = print) -> int:
    """Go through the stages in order, then print a table and what a rehearsal cannot see; return the exit code."""
    outcomes: list[Outcome] = []
    for stage in stages:
        if any(outcome.state == "failed" for outcome in outcomes):
            outcomes.append(Outcome(stage.name, "not reached", 0.0, ""))
            continue
        start = time.monotonic()
        try:
            state, detail = "ok", stage.work()
        except Skipped as reason:
            state, detail = "skipped", str(reason)
        except (Broken, AssertionError) as error:
            state, detail = "failed", str(error)
        except Exception as error:  # a fault of the rehearsal's own: the table and the list come all the same
            state, detail = "failed", f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - start
        outcomes.append(Outcome(stage.name, state, seconds, detail.splitlines()[-1] if detail else ""))
        tell(f"{state:<8} {stage.name:<34} {seconds:7.1f} s  {detail}")
    tell(f"\n{'stage':<34} state             s")
    for outcome in outcomes:
        tell(f"{outcome.name:<34} {outcome.state:<12} {outcome.seconds:6.1f}")
    tell(f"{'in all':<34} {'':<12} {sum(outcome.seconds for outcome in outcomes):6.1f}")
    tell("\nWhat this rehearsal cannot see:")
    for line in UNSEEN:
        tell(f"- {line}")
    failed = [outcome.name for outcome in outcomes if outcome.state == "failed"]
    tell(f"\n{f'failed: {failed[0]}' if failed else 'every stage that could be tried went well'}")
    return 1 if failed else 0


def run(command: Sequence[str | Path], cwd: Path, environment: Mapping[str, str], log: Path) -> str:
    """Run a command to its end, add what it prints to ``log``, and return its standard output."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**environment}, capture_output=True, text=True, errors="replace",
        check=False,
    )  # fmt: skip
    with log.open("a") as f:
        f.write(f"$ {' '.join(str(word) for word in command)}\n{done.stdout}{done.stderr}\n")
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise Broken("\n".join([f"{command[0]} ended with {done.returncode}; all of it is in {log}", *last]))
    return done.stdout


class Journey:
    """The stages, in a folder: wheel, environment ``env``, stand-in hub, and the working folder ``work``."""

    def __init__(self, folder: Path, cuda: str, torch: str) -> None:
        self.folder, self.cuda = folder.absolute(), cuda
        self.work, self.log = self.folder / "work", self.folder / "log.txt"
        self.work.mkdir(parents=True, exist_ok=True)
        self.python, self.torch = self.folder / "env" / "bin" / "python", torch
        own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        self.environment = own | {
            "REHEARSAL_HUB": str(self.folder / "hub"), "PYTHONPATH": str(self.folder / "standin"),
            "GOLFCORE_CACHE": str(self.folder / "cache"), "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip

    def stages(self) -> list[Stage]:
        fake = [Stage(f"fake {name}, {ranks}", self.fake(name, place)) for name in FAKED for ranks, place in places()]
        return [
            Stage("wheel", self.wheel), Stage("environment", self.install), Stage("import", self.imports),
            Stage("kernels", self.kernels), Stage("doctor", self.doctor), Stage("hub", self.hub),
            Stage("get data", self.get), *fake, Stage("cut recipe", self.cut), Stage("preflight", self.preflight),
            Stage("train, killed", self.train), Stage("resume", self.resume), Stage("quantize", self.quantize),
            Stage("pack", self.pack), Stage("evaluate", self.evaluate), Stage("export", self.export),
            Stage("train_gpt.py, 2 ranks", self.ranks),
        ]  # fmt: skip

    def golfcore(self, *words: str) -> str:
        return run([self.python, "-m", "golfcore", *words], self.work, self.environment, self.log)

    # --- from a clone to an environment -------------------------------------------------------------------------------

    def wheel(self) -> str:
        target = self.folder / "wheel"
        shutil.rmtree(target, ignore_errors=True)
        where = ["-w", target, f"-Cbuild-dir={self.folder / 'core'}"]
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", *where, ROOT]
        run(command, self.folder, {**os.environ, "GOLF_CUDA": self.cuda}, self.log)
        (wheel,) = target.glob("*.whl")
        return f"{wheel.name}, {wheel.stat().st_size / 1e6:,.1f} MB, GOLF_CUDA={self.cuda}"

    def install(self) -> str:
        (wheel,) = (self.folder / "wheel").glob("*.whl")
        shutil.rmtree(self.folder / "env", ignore_errors=True)
        free = shutil.disk_usage(self.folder).free / 1e9
        kind = self.torch if self.torch != "auto" else "cuda" if free > CUDA_GB else "cpu"
        pins = (ROOT / "constraints.txt").read_text().splitlines()
        (pinned,) = (line for line in pins if line.startswith("torch=="))
        # The index's own build for Linux is the one with CUDA; three equal signs let no other build of it pass.
        wanted = pinned.replace("==", "===") if kind == "cuda" else pinned
        run([sys.executable, "-m", "venv", self.folder / "env"], self.folder, os.environ, self.log)
        pip = [self.python, "-m", "pip", "install", "-c", ROOT / "constraints.txt"]
        run([*pip, wanted], self.folder, os.environ, self.log)
        extras = f"golfcore[hub,sentencepiece,kernels] @ {wheel.as_uri()}"
        run([*pip, extras, "pytest"], self.folder, os.environ, self.log)
        why = "" if self.torch != "auto" else f", as {free:.0f} GB of disk were free"
        return f"{wanted} ({kind} build{why}), with hub, sentencepiece, kernels, and pytest for the fake GPU"

    def imports(self) -> str:
        code = (
            "import golfcore, torch; from golfcore.machine import version_text; print(golfcore.__file__); "
            "print(version_text(), 'torch', torch.__version__)"
        )
        where, text = run([self.python, "-c", code], self.work, self.environment, self.log).splitlines()
        assert Path(where).is_relative_to(self.folder), f"golfcore was imported from {where}"
        return text

    def kernels(self) -> str:
        rows = self.golfcore("kernels", "list").splitlines()
        if self.cuda != "ON":
            return f"{len(rows) - 1} operations, for the CPU alone"
        found = json.loads(self.golfcore("kernels", "list", "--resources", "--json"))
        assert found, "the wheel holds no kernel"
        assert not any(row["stack"] for row in found), "a kernel spills"
        return f"{len(rows) - 1} operations; {len(found)} kernels in the wheel, none with a stack frame"

    def doctor(self) -> str:
        report = json.loads(self.golfcore("doctor", "--json"))
        odd = [row["name"] for row in report["rows"] if row["status"] != "ok"]
        assert report["healthy"], f"doctor: {odd}"
        return f"healthy; not ok: {', '.join(odd) or 'nothing'}"

    # --- data, and the GPU that is not there --------------------------------------------------------------------------

    def hub(self) -> str:
        for name in ("hub", "standin"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        made = run([self.python, HERE / "standin.py", self.folder / "hub"], self.work, self.environment, self.log)
        write_package(self.folder / "standin")
        return made.strip()

    def get(self) -> str:
        return self.golfcore("data", "get", "fineweb", "--variant", "sp1024", "--shards", "2").strip()

    def fake(self, name: str, place: Mapping[str, str]) -> Callable[[], str]:
        def work() -> str:
            command = [self.python, HERE / "fake_step.py", name, SHARDS, MODEL]
            return run(command, self.work, self.environment | place, self.log).strip()

        return work

    # --- the journey on the processor ---------------------------------------------------------------------------------

    def cut(self) -> str:
        code = (
            "from golfcore.boxcheck.cut import cut_recipe; from golfcore.config import to_toml, to_tree; "
            "from golfcore.recipes import load_recipe; import pathlib; "
            f"config = cut_recipe(load_recipe({RECIPE!r}, environment={{}}).config, require_gpu=False, "
            f"iterations={STEPS}, log_every=50, warmup_steps=1, checkpoint_every_s=0.3); "
            "pathlib.Path('cut.toml').write_text(to_toml(to_tree(config)))"
        )
        run([self.python, "-c", code], self.work, self.environment, self.log)
        return f"{RECIPE}: four layers of width 128, steps of 256 tokens, the kinds of layers and phases that it has"

    def preflight(self) -> str:
        report = json.loads(self.golfcore("preflight", "cut.toml", "--steps", "5", "--json"))
        return str(report["verdict"])

    def train(self) -> str:
        command = [self.python, "-m", "golfcore", "train", "cut.toml", "--run-id", "rehearsal"]
        with self.log.open("a") as log:
            process = subprocess.Popen(command, cwd=self.work, env=self.environment, stdout=log, stderr=log)
        try:
            for _ in range(3000):
                if (self.work / RUN / "checkpoint.pt").exists() or process.poll() is not None:
                    break
                time.sleep(0.1)
        finally:
            process.kill()
            ended = process.wait()
        if ended != -signal.SIGKILL:
            raise Broken(f"the training ended with {ended} before it could be killed at its checkpoint; see {self.log}")
        return "killed as soon as it had a checkpoint"

    def resume(self) -> str:
        self.golfcore("train", "--resume", RUN)
        text = (self.work / RUN / "log.txt").read_text()
        (line,) = (line for line in text.splitlines() if line.startswith("resumed step:"))
        assert 0 < int(line.partition(":")[2]) < STEPS, line
        last = [line for line in text.splitlines() if "train_loss" in line][-1]
        assert last.startswith(f"step:{STEPS}/{STEPS}"), last
        return f"{line}, to {last.split(' train_time')[0]}"

    def quantize(self) -> str:
        total = json.loads(self.golfcore("quantize", RUN, "--json"))["total"]
        return f"{total['params']:,} parameters"

    def pack(self) -> str:
        size = json.loads(self.golfcore("pack", RUN, "--json"))["bytes"]
        assert 0 < size["file"] <= size["cap"], size
        self.golfcore("verify", f"{RUN}/model.golf")
        return f"{size['file']:,} bytes of {size['cap']:,}, verified"

    def evaluate(self) -> str:
        words = ("eval", f"{RUN}/model.golf", "--data", SHARDS, "--tokenizer", MODEL, "--json")
        score = json.loads(self.golfcore(*words))
        assert 0 < score["val_bpb"] < 8, score["val_bpb"]  # 8 bits per byte are no model at all
        return f"{score['val_bpb']:.4f} bits per byte of made-up text over {score['tokens']:,} tokens"

    def export(self) -> str:
        if "export" not in self.golfcore("--help").split():
            raise Skipped("this golfcore has no command export")
        self.golfcore("export", RUN, "-o", "exported")
        assert (self.work / "exported").exists()
        return "exported"

    def ranks(self) -> str:
        script = [ROOT / "python" / "train_gpt.py", "--recipe", "cut.toml", "--run-id", "ranks"]
        command = [self.python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *script]
        text = run(command, self.work, self.environment | {"ITERATIONS": "12", "OMP_NUM_THREADS": "1"}, self.log)
        (final,) = (line for line in text.splitlines() if line.startswith("final_"))
        return final


def places() -> list[tuple[str, dict[str, str]]]:
    """The environments that torchrun would give, with a name for each: a GPU alone, and the ends of eight."""
    found = []
    for place in RANKS:
        if not place:
            found.append(("1 rank", {}))
            continue
        meeting = {"LOCAL_RANK": place["RANK"], "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
        found.append((f"rank {place['RANK']} of {place['WORLD_SIZE']}", {**place, **meeting}))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda", choices=("ON", "OFF"), default="ON", help="whether the wheel has kernels for GPUs")
    parser.add_argument("--torch", choices=("auto", "cuda", "cpu"), default="auto", help="auto: as the disk allows")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "rehearse")
    options = parser.parse_args()
    journey = Journey(options.folder, options.cuda, options.torch)
    journey.log.write_text("")
    return rehearse(journey.stages(), lambda line: print(line, flush=True))


if __name__ == "__main__":
    sys.exit(main())
