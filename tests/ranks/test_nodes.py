"""Two hosts under torchrun: network namespaces with a cable between them, which is then cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from many_ranks import free_port
from ranked_training import ALONE, losses, make_recipe, train, write_tokens

from golfcore.run_folder import CHECKPOINT
from golfcore.training.checkpoint import load_newest

HERE = Path(__file__).parent
NAMES = ("golf-a", "golf-b")
ADDRESSES = ("10.213.7.1", "10.213.7.2")


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two namespaces joined by a veth pair; skips the test where this user or kernel may not make them."""
    if shutil.which("ip") is None:
        pytest.skip("there is no ip command: install iproute2")
    names = tuple(f"{name}-{os.getpid()}" for name in NAMES)
    made = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
            ip("link", "add", "golf0", "netns", names[0], "type", "veth", "peer", "name", "golf0", "netns", names[1])
            for name, address in zip(names, ADDRESSES, strict=True):
                ip("-n", name, "addr", "add", f"{address}/24", "dev", "golf0")
                for device in ("golf0", "lo"):
                    ip("-n", name, "link", "set", device, "up")
        except OSError as error:
            pytest.skip(f"network namespaces are not allowed here: {error}")
        yield names[0], names[1]
    finally:
        for name in made:
            ip("netns", "del", name)


# The rendezvous is at an address that the machines' own names do not resolve to, as where /etc/hosts says 127.0.1.1:
# c10d has to be told who serves it, and which address each machine has.
RENDEZVOUS = {
    "static": ["--node_rank={node}", "--master-addr={first}", "--master-port={port}"],
    "c10d": [
        "--rdzv-backend=c10d", "--rdzv-endpoint={first}:{port}", "--rdzv-id=golf", "--rdzv-conf=is_host={is_host}",
    ],
}  # fmt: skip


class Torchrun:
    """``torchrun`` on two nodes of one rank each; agents that are left are killed at the end."""

    def __init__(self, hosts: tuple[str, str], rendezvous: str, folder: Path, *words: object) -> None:
        port = free_port()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE}:{HERE.parent}"}
        self.stderr = [folder / f"stderr-{i}.txt" for i in range(2)]
        self.agents = []
        for i, host in enumerate(hosts):
            meeting = [
                word.format(node=i, first=ADDRESSES[0], port=port, is_host=int(i == 0))
                for word in RENDEZVOUS[rendezvous]
            ]
            command = [
                "ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run", "--nnodes=2",
                "--nproc_per_node=1", *meeting, f"--local-addr={ADDRESSES[i]}", str(HERE / "node.py"),
                *map(str, words),
            ]  # fmt: skip
            with self.stderr[i].open("w") as err:
                self.agents.append(subprocess.Popen(command, env=environment, stderr=err, start_new_session=True))

    def __enter__(self) -> Torchrun:
        return self

    def __exit__(self, *_: object) -> None:
        for agent in self.agents:
            if agent.poll() is None:
                os.killpg(agent.pid, 9)
            agent.wait(20)

    def wait(self, seconds: float) -> None:
        """Until both agents have ended, in short waits: a pause of the whole machine does not use them up."""
        for _ in range(int(seconds / 0.1)):
            if all(agent.poll() is not None for agent in self.agents):
                return
            time.sleep(0.1)

    def told(self) -> list[str]:
        return [path.read_text() for path in self.stderr]

    def wait_for(self, texts: tuple[str, str], seconds: float) -> None:
        """Until each node has told its text."""
        for _ in range(int(seconds / 0.1)):
            if all(text in told for text, told in zip(texts, self.told(), strict=True)):
                return
            time.sleep(0.1)


def train_until_cut(hosts: tuple[str, str], folder: Path, tokens: Path) -> dict[int, float]:
    """Trains on two hosts, cuts the cable some steps after the first checkpoint; every step's loss."""
    run_dir = folder / "cut"
    with Torchrun(hosts, "c10d", folder, tokens, run_dir, 10**6) as run:
        until = 10**6
        for _ in range(1500):
            if until == 10**6 and (run_dir / CHECKPOINT).exists():
                until = load_newest(run_dir)[0]["step"] + 10
            if max(losses(run_dir), default=0) >= until or any(a.poll() is not None for a in run.agents):
                break
            time.sleep(0.02)
        ip("-n", hosts[1], "link", "set", "golf0", "down")
        run.wait_for(("rank 1 of 2", "rank 0 of 2"), 60)
        told = run.told()
        assert "gives no sign of life" in told[0], told
        assert "gives no sign of life" in told[1], told
    assert "rank 1 of 2" in (run_dir / "log.txt").read_text()
    return losses(run_dir)


def test_two_hosts_train_as_one_end_when_the_link_is_cut_and_go_on(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens")
    with two_hosts() as hosts:
        with Torchrun(hosts, "static", tmp_path, tokens, tmp_path / "two", 12) as run:
            run.wait(150)
            assert [agent.returncode for agent in run.agents] == [0, 0], run.told()

        whole = train_until_cut(hosts, tmp_path, tokens)
        shutil.copytree(tmp_path / "cut", tmp_path / "alone")
        saved, last = load_newest(tmp_path / "cut")[0]["step"], max(whole)
        assert last >= saved + 10
        ip("-n", hosts[1], "link", "set", "golf0", "up")
        with Torchrun(hosts, "c10d", tmp_path, tokens, tmp_path / "cut", last) as run:
            run.wait(150)
            assert [agent.returncode for agent in run.agents] == [0, 0], run.told()

    train(ALONE, make_recipe(iterations=12, warmdown_iters=0), tokens, tmp_path / "one")
    found, expected = losses(tmp_path / "two"), losses(tmp_path / "one")
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=1e-2)

    train(ALONE, make_recipe(iterations=last, warmdown_iters=0), tokens, tmp_path / "alone")
    for folder, atol in (("cut", 1e-6), ("alone", 2e-2)):  # the cut run's own steps after its checkpoint come again
        found = losses(tmp_path / folder)
        assert list(found) == list(whole)
        np.testing.assert_allclose(list(found.values()), list(whole.values()), atol=atol)
        assert f"resumed step:{saved}" in (tmp_path / folder / "log.txt").read_text()
