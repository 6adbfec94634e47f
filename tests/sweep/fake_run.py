"""Stands in for ``golfcore run``: leaves the same files, sooner, and tells on whoever runs it wrongly.

    fake_run.py run RECIPE --set K=V ... --runs DIR --run-id NAME [--text T] | run --resume DIR

``toy.loss`` sets the score, ``toy.steps`` its length, ``toy.fail`` makes it end with an error, ``toy.die`` kills it at
that step, but not once it goes on from a checkpoint. It ends with the exit code ``toy.machine``, or the one in a file
``trouble`` beside the runs. A second process of the same run at the same time leaves DIR/overlap.txt, a run that is
scored twice DIR/twice.txt.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from pathlib import Path

STEP_S = 0.01


def append(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def main(words: list[str]) -> int:
    assert words[0] == "run"
    if words[1] == "--resume":
        run_dir = Path(words[2])
        toy = json.loads((run_dir / "config.toml").read_text())
        first = int((run_dir / "checkpoint.pt").read_text())
    else:
        run_dir = Path(words[words.index("--runs") + 1]) / words[words.index("--run-id") + 1]
        assert not run_dir.exists()
        toy = dict(words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "--set")
        run_dir.mkdir()
        (run_dir / "config.toml").write_text(json.dumps(toy))
        first = 0
    folder = run_dir.parent
    own = os.open(folder / f"{run_dir.name}.toy", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        append(folder / "overlap.txt", run_dir.name)
        return 1
    append(folder / "started.txt", f"{run_dir.name} {first} {os.environ.get('OMP_NUM_THREADS', '')}")
    trouble = folder / "trouble"
    code, _, words = (trouble.read_text() if trouble.exists() else toy.get("toy.machine", "0")).partition(" ")
    if int(code):
        print(f"golfcore: {words or 'trouble'}", file=sys.stderr)
        return int(code)
    if "toy.fail" in toy:
        print(f"golfcore: {toy['toy.fail']}", file=sys.stderr)
        return 1
    return train(run_dir, toy, first)


def train(run_dir: Path, toy: dict[str, str], first: int) -> int:
    steps, loss = int(toy.get("toy.steps", 20)), float(toy.get("toy.loss", 2.0))
    for step in range(first + 1, steps + 1):
        time.sleep(STEP_S)
        row = {"kind": "train", "step": step, "train_loss": loss * (1 + 1 / step), "train_s": step / steps, "tokens": 1}
        append(run_dir / "metrics.jsonl", json.dumps(row))
        if step == steps // 2:
            temporary = run_dir / "checkpoint.tmp"
            temporary.write_text(str(step))
            temporary.rename(run_dir / "checkpoint.pt")
        if step == int(toy.get("toy.die", 0)) and not first:
            os.kill(os.getpid(), 9)
    temporary = run_dir / "score.tmp"
    temporary.write_text(json.dumps({"val_bpb": loss + int(toy["train.seed"]) * 1e-3, "artifact_bytes": 1000}))
    try:
        os.link(temporary, run_dir / "score.json")
    except FileExistsError:
        append(run_dir.parent / "twice.txt", run_dir.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
