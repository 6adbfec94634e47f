"""The device of a rank: a GPU of its own, the processor where there is none, and an error where one lies idle."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from many_ranks import QUICK, run_ranks

from golfcore.errors import GolfError, RankError, UsageError
from golfcore.ranks import world as world_module
from golfcore.ranks.device import own_device, why_no_gpu
from golfcore.ranks.monitor import Monitor
from golfcore.ranks.rendezvous import Place, _join_group
from golfcore.ranks.world import World, join_world

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A machine with an NVIDIA driver and two GPUs that a CUDA build of torch counts and cannot use."""
    driver, devices = tmp_path / "driver", tmp_path / "dev"
    driver.mkdir()
    devices.mkdir()
    (devices / "nvidia0").touch()
    (devices / "nvidia1").touch()

    def too_old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12040).\nPlease update it.")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", too_old)
    found = {"driver": driver, "devices": devices}
    monkeypatch.setattr(world_module, "own_device", partial(own_device, **found))
    return found


def test_gpus_that_torch_cannot_use_are_an_error(machine: dict[str, Path]) -> None:
    device, trouble = own_device(Place(), 2, {}, **machine)
    assert device == CPU
    assert "has NVIDIA GPUs that torch cannot use (torch" in trouble
    assert "The NVIDIA driver on your system is too old (found version 12040). Please update it." in trouble
    assert "CUDA_VISIBLE_DEVICES= (empty)" in trouble
    assert "\n" not in trouble
    with pytest.raises(UsageError, match="that torch cannot use"), join_world(environment={}, gpus=2):
        pass


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_are_a_wish_for_the_processor(machine: dict[str, Path], hidden: str) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": hidden}
    assert own_device(Place(), 0, environment, **machine) == (CPU, "")
    assert why_no_gpu(environment) == f"CUDA_VISIBLE_DEVICES = {hidden!r} hides them"
    with join_world(environment=environment, gpus=0) as world:
        assert world.device == CPU


def test_a_machine_without_gpus_computes_on_its_processor(
    machine: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    none = {**machine, "driver": machine["driver"] / "absent"}
    assert own_device(Place(), 0, {}, **none) == (CPU, "")
    for node in machine["devices"].iterdir():  # a container that was given none
        node.unlink()
    assert own_device(Place(), 0, {}, **machine) == (CPU, "")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is a build for processors alone" in why_no_gpu({})


def test_a_build_of_torch_for_processors_is_a_wish_for_them(
    machine: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert own_device(Place(), 0, {}, **machine) == (CPU, "")


def test_each_rank_has_its_own_gpu_and_one_that_fails_is_named(
    machine: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[Any] = []

    def set_device(device: torch.device) -> None:
        chosen.append(device)
        if device.index == 1:
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be ...")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch, "zeros", lambda *sizes, device: chosen.append(("touched", device)))
    zero = torch.device("cuda", 0)
    assert own_device(Place(0, 2, 0), 2, {}, **machine) == (zero, "")
    assert chosen == [zero, ("touched", zero)]
    device, trouble = own_device(Place(1, 2, 1), 2, {}, **machine)
    assert device == CPU
    assert trouble.startswith("cuda:1 on ")
    assert "uncorrectable ECC error encountered CUDA kernel" in trouble
    more = own_device(Place(2, 3, 2), 2, {}, **machine)[1]
    assert "number 3 on" in more
    assert "MIG" not in more


@pytest.mark.parametrize(("ranks", "gpus"), [(1, 1), (2, 2), (7, 1)])
def test_slices_of_a_gpu_serve_one_process_alone(
    machine: dict[str, Path], monkeypatch: pytest.MonkeyPatch, ranks: int, gpus: int
) -> None:
    """Of seven slices torch sees the first alone; a user may also name one slice for each rank."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3 MIG 1g.10gb")
    monkeypatch.setattr(torch, "zeros", lambda *sizes, device: None)
    device, trouble = own_device(Place(ranks - 1, ranks, ranks - 1), gpus, {}, **machine)
    if ranks == 1:
        assert (device, trouble) == (torch.device("cuda", 0), "")
        return
    assert device == CPU
    assert ("MIG 1g.10gb, a slice of a GPU" if gpus > 1 else "which has 1 GPU: use --nproc_per_node=1") in trouble
    assert trouble.endswith(
        "NCCL joins no MIG slices: run one process alone, or join them again with nvidia-smi -mig 0"
    )


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "0"}, "RANK is set and WORLD_SIZE is not"),
        ({"LOCAL_RANK": "3"}, "LOCAL_RANK is set and WORLD_SIZE is not"),
        ({"OMPI_COMM_WORLD_SIZE": "8"}, "OMPI_COMM_WORLD_SIZE = 8 and WORLD_SIZE is not set: start one torchrun"),
        ({"PMI_SIZE": "2"}, "PMI_SIZE = 2"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "set WORLD_SIZE=1 if each process is a run of its own"),
    ],
)
def test_processes_that_torchrun_did_not_start_do_not_train_alone(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Place.from_environment(environment)
    assert said in str(caught.value)
    if "RANK" not in environment and "LOCAL_RANK" not in environment:
        assert Place.from_environment({**environment, "WORLD_SIZE": "1"}).size == 1


@pytest.mark.parametrize("environment", [{}, {"SLURM_STEP_NUM_TASKS": "1"}, {"OMPI_COMM_WORLD_SIZE": "1"}])
def test_a_process_alone_is_a_world_of_one(environment: dict[str, str]) -> None:
    assert Place.from_environment(environment) == Place()


def test_nccl_that_cannot_begin_is_one_line_with_what_says_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(tensor: object) -> None:
        raise dist.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:77, unhandled system error\nLast error: ...")

    monkeypatch.setattr(dist, "init_process_group", lambda backend, **options: None)
    monkeypatch.setattr(dist, "all_reduce", fails)
    monkeypatch.setattr(torch, "zeros", lambda *sizes, device: None)
    limits = dataclasses.replace(QUICK, silent_s=0.1)
    monitor = Monitor(0, 1, limits, ("127.0.0.1", 0), "token", clock=time.time, period_s=0.05)
    try:
        with pytest.raises(
            RankError, match=r"the first collective of NCCL \(NCCL_DEBUG=INFO says more\) failed: NCCL er"
        ):
            _join_group(Place(), torch.device("cuda", 0), dist.HashStore(), "127.0.0.1", monitor)
    finally:
        monitor.close()


def refused(world: World) -> tuple[str, bool]:
    def refuse() -> None:
        raise UsageError("not on this machine")

    with pytest.raises(UsageError) as caught:
        world.on_primary(refuse)
    return str(caught.value), caught.value.everywhere


def test_what_rank_0_refuses_every_rank_refuses_alike() -> None:
    assert run_ranks(2, refused) == [("not on this machine", True)] * 2


def test_what_every_rank_says_is_printed_once_a_machine() -> None:
    error: GolfError = RankError("rank 3 of 8 cannot take part")
    assert error.is_printed_by({"LOCAL_RANK": "5"})  # this rank's own
    error.everywhere = True
    assert [error.is_printed_by({"LOCAL_RANK": str(rank)}) for rank in range(3)] == [True, False, False]
    assert error.is_printed_by({})
