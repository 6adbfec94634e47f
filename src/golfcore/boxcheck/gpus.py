"""Check the GPU of a rank: that it is whole and free, its clocks under load, FlashAttention-3, and the compiler."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from golfcore import machine
from golfcore.boxcheck import smi
from golfcore.boxcheck.findings import Failed, Found, NotHere
from golfcore.config import RecipeConfig
from golfcore.ops.attention_backends import fa3_is_installed, unavailable, using_attention
from golfcore.ops.attention_backends import serve as other_attention
from golfcore.ops.registry import why_not
from golfcore.ranks.device import is_slice, why_no_gpu

LOAD_S = 2.0  # seconds of products before the clocks are read
WIDTH = 8192  # of the matrices that are multiplied meanwhile
LEAST_FREE = 0.9  # of a GPU's memory
FA3_ERROR = 0.02  # largest difference of a value from torch's attention, in bf16


def require_gpu(device: torch.device) -> None:
    """Raise NotHere if the device is no GPU."""
    if device.type != "cuda":
        raise NotHere(f"this machine computes on its processor: {why_no_gpu()}")


def check_gpu(device: torch.device) -> Found:
    """Check that the GPU is whole, that golfcore's kernels run on it, and that nobody else uses it."""
    require_gpu(device)
    name = torch.cuda.get_device_name(device)
    if is_slice(device):
        raise Failed(f"{name} is a slice of a GPU", "nvidia-smi -mig 0 as root, then begin again")
    if reason := why_not(device.index or 0):
        raise Failed(f"golfcore's kernels cannot run on {name}: {reason}", "see golfcore doctor")
    free, total = torch.cuda.mem_get_info(device)
    if free < LEAST_FREE * total:
        raise Failed(
            f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are free on {name}", "end what nvidia-smi shows there"
        )
    core = machine.core_info()
    versions = f"torch {torch.__version__} for CUDA {torch.version.cuda}, kernels: {core.cuda_reason}"
    return Found(f"{name}, {free / 2**30:.0f} GiB free; {versions}", {"memory_bytes": float(total)})


def compare_gpus(found: Sequence[Found]) -> None:
    """Raise Failed unless all ranks have GPUs of the same size."""
    sizes = [one.values["memory_bytes"] for one in found]
    if min(sizes) < 0.99 * max(sizes):
        odd = sizes.index(min(sizes))
        raise Failed(
            f"the GPU of rank {odd} has {sizes[odd] / 2**30:.0f} GiB, others have {max(sizes) / 2**30:.0f}",
            "take a machine with equal GPUs",
        )


def check_clocks(device: torch.device) -> Found:
    """Multiply matrices for two seconds and read clocks, limits and faults meanwhile."""
    require_gpu(device)
    a = torch.randn(WIDTH, WIDTH, device=device, dtype=torch.bfloat16)
    out = torch.empty_like(a)
    started, products = time.monotonic(), 0
    while time.monotonic() - started < LOAD_S:
        for _ in range(8):
            torch.mm(a, a, out=out)
        products += 8
        torch.cuda.synchronize(device)
    tflops = 2 * WIDTH**3 * products / (time.monotonic() - started) / 1e12
    for _ in range(200):  # queued: the GPU is busy while it is asked
        torch.mm(a, a, out=out)
    fields = smi.ask(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    torch.cuda.synchronize(device)
    return Found(smi.judge(fields, tflops), {"tflops": tflops})


def compare_clocks(found: Sequence[Found]) -> None:
    """Raise Failed if the products of a rank's GPU are clearly slower than those of the others."""
    rates = [one.values["tflops"] for one in found]
    slowest = min(rates)
    if slowest < smi.LEAST_RATE * median(rates):
        raise Failed(
            f"the GPU of rank {rates.index(slowest)} multiplies at {slowest:,.0f} TFLOP/s, the median at "
            f"{median(rates):,.0f}: every step waits for it",
            "take another machine",
        )


def check_flash_attention(recipe: RecipeConfig, device: torch.device) -> Found:
    """Check that FlashAttention-3, where it is installed, fits this torch and computes what torch's attention does."""
    require_gpu(device)
    wish = recipe.train.attention
    if wish not in ("auto", "fa3"):
        raise NotHere(f"train.attention = {wish!r} does not use it")
    if not fa3_is_installed():
        if wish == "fa3":
            raise Failed("FlashAttention-3 is not installed", "install it, or set train.attention=auto")
        return Found("not installed: train.attention = 'auto' will take golfcore's kernel or torch's")
    remedy = f"install its build for torch {torch.__version__} and CUDA {torch.version.cuda}, or remove it"
    if reason := unavailable("fa3"):
        raise Failed(reason, remedy)
    q, k, v = (torch.randn(1, 256, heads, 64, device=device, dtype=torch.bfloat16) for heads in (8, 4, 4))
    try:
        with using_attention("fa3"):
            ours = other_attention(q, k, v, None, 0, None)
        wide_q, wide_k, wide_v = (x.transpose(1, 2).float() for x in (q, k, v))
        theirs = F.scaled_dot_product_attention(wide_q, wide_k, wide_v, is_causal=True, enable_gqa=True)
        error = float((ours.float() - theirs.transpose(1, 2)).abs().max()) if ours is not None else float("nan")
    except Exception as failure:  # whatever a package for another torch, device or interface raises
        raise Failed(f"FlashAttention-3 fails: {machine.one_line(failure):.200}", remedy) from failure
    if not error < FA3_ERROR:
        raise Failed(f"FlashAttention-3 is off by {error:.3g} from torch's attention", remedy)
    return Found(f"it runs, and differs by {error:.2g} from torch's attention", {"error": error})


def check_compile(recipe: RecipeConfig, device: torch.device) -> Found:
    """Compile a small function and its gradient, and compare their results with those of the uncompiled function."""
    if not recipe.train.compile:
        raise NotHere("train.compile = false")
    start = time.monotonic()

    def function(x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (64,)).relu().square().sum()

    gradients: list[torch.Tensor] = []
    compiled: Any = torch.compile(function, fullgraph=True, dynamic=False)
    for run in (function, compiled):
        x = torch.linspace(-1, 1, 64 * 64, device=device).view(64, 64).requires_grad_()
        try:
            gradients += torch.autograd.grad(run(x), x)
        except Exception as error:  # whatever a compiler raises
            raise Failed(
                f"torch.compile fails: {type(error).__name__}: {machine.one_line(error):.200}",
                "install a C compiler and Python's headers (apt-get install g++ python3-dev), or set "
                "train.compile=false",
            ) from error
    eager, traced = gradients
    if not torch.allclose(eager, traced, rtol=1e-3, atol=1e-4):
        raise Failed("torch.compile gives other gradients than torch", "install another torch, or train.compile=false")
    return Found(f"a function compiled in {time.monotonic() - start:.1f} s, with the gradients of torch")
