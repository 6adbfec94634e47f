"""Find the device of a rank: a GPU of its own, or the processor of a machine without GPUs.

A machine whose GPUs torch cannot use is an error, not a slow run: a CUDA build of torch on an older driver still counts
the GPUs and then computes on the processor.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import torch

from golfcore.machine import one_line
from golfcore.ranks.rendezvous import Place

DRIVER = Path("/proc/driver/nvidia")  # there while the driver is loaded, in containers too
DEVICES = Path("/dev")  # has nvidia0, nvidia1, ... where a container may use them
SLICES = "NCCL joins no MIG slices: run one process alone, or join them again with nvidia-smi -mig 0"
HIDDEN = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES by which a user asks for the processor


def own_device(
    place: Place, gpus: int, environment: Mapping[str, str], driver: Path = DRIVER, devices: Path = DEVICES
) -> tuple[torch.device, str]:
    """Return the device of a rank, and why the rank cannot take part; '' if it can.

    Args:
        place: the rank; number ``local_rank`` of its machine gets the GPU of that number.
        gpus: number of GPUs that torch sees here.
        environment: ``CUDA_VISIBLE_DEVICES`` is looked up in it.
        driver, devices: folders that tell whether this machine has NVIDIA GPUs.
    """
    cpu = torch.device("cpu")
    if gpus and place.local_rank >= gpus:
        more = f"; {SLICES}" if torch.cuda.is_available() and is_slice(torch.device("cuda", 0)) else ""
        return cpu, (
            f"it is number {place.local_rank + 1} on {socket.gethostname()}, which has {gpus} GPU{'s' * (gpus > 1)}: "
            f"use --nproc_per_node={gpus}{more}"
        )
    if gpus and torch.cuda.is_available():
        device = torch.device("cuda", place.local_rank)
        try:
            torch.cuda.set_device(device)
            torch.zeros(1, device=device)
        except RuntimeError as error:
            return cpu, f"{device} on {socket.gethostname()} does not work ({one_line(error):.200}): see nvidia-smi"
        if place.size > 1 and is_slice(device):
            name = torch.cuda.get_device_name(device)
            return cpu, f"{device} on {socket.gethostname()} is {name}, a slice of a GPU: {SLICES}"
        return device, ""
    hidden = environment.get("CUDA_VISIBLE_DEVICES") in HIDDEN
    if hidden or torch.version.cuda is None or not driver.exists() or not any(devices.glob("nvidia[0-9]*")):
        return cpu, ""
    return cpu, (
        f"{socket.gethostname()} has NVIDIA GPUs that torch cannot use ({why_no_gpu(environment)}): install a torch "
        "that fits the driver or a newer driver, or set CUDA_VISIBLE_DEVICES= (empty) to compute on the processor"
    )


def is_slice(device: torch.device) -> bool:
    """Return whether a GPU is a MIG slice, as its name says: NVIDIA H100 80GB HBM3 MIG 1g.10gb."""
    return " MIG " in torch.cuda.get_device_name(device)


def why_no_gpu(environment: Mapping[str, str] = os.environ) -> str:
    """Return why torch computes on no GPU here, in torch's words where it has any."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build for processors alone"
    if (hidden := environment.get("CUDA_VISIBLE_DEVICES")) in HIDDEN:
        return f"CUDA_VISIBLE_DEVICES = {hidden!r} hides them"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return f"torch {torch.__version__}: {one_line(error):.300}"
    return f"torch {torch.__version__} finds none"
