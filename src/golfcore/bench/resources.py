"""List the resources that every kernel needs and how many of its blocks fit: ``golfcore kernels list --resources``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from golfcore.bench.launch_shapes import Launches, launches, served
from golfcore.bench.step_work import shape_of
from golfcore.errors import BuildError
from golfcore.gpu_specs import GPUS, Gpu, Occupancy, occupancy
from golfcore.ops.cubin import Kernel, built_kernels
from golfcore.ops.launches import Launch
from golfcore.recipes import load_recipe

RECIPE = "frontier_8xh100"  # whose shapes say how a kernel is launched


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources of one kernel on one GPU.

    Attributes:
        gpu: the GPU.
        kernel: the kernel as the compiler built it.
        launch: how the frontier's recipe launches it; None if it does not.
        fits: occupancy with the launch's block, or the largest that its bounds allow; None if neither is known.
    """

    gpu: Gpu
    kernel: Kernel
    launch: Launch | None
    fits: Occupancy | None


def resources(images: Sequence[Gpu] = GPUS) -> list[Resources]:
    """Return every kernel of the compiled core, for each of ``images`` that it holds.

    How a kernel is launched is known only if ``golfcore._simt`` is built (`make simt`), which runs its launcher.

    Raises:
        BuildError: the core is built without CUDA or for none of the images, or a tool is missing.
    """
    found, failed = [], None
    how: Launches = {}
    with contextlib.suppress(BuildError):
        how = launches(shape_of(load_recipe(RECIPE, environment={}).config))
    for gpu in images:
        try:
            kernels = built_kernels(gpu.image)
        except BuildError as error:
            failed = error
            continue
        found += rows_of(gpu, kernels, how)
    if not found and failed is not None:
        raise failed
    return found


def rows_of(gpu: Gpu, kernels: Sequence[Kernel], how: Launches) -> list[Resources]:
    """Return one row per kernel; of its launches the one with most shared memory counts."""
    launched: dict[Kernel, Launch] = {}
    for kernel, found in (pair for pairs in served(how, kernels).values() for pair in pairs):
        known = launched.get(kernel)
        if known is None or found.dynamic_shared > known.dynamic_shared:
            launched[kernel] = found
    rows = []
    for kernel in kernels:
        launch = launched.get(kernel)
        threads = launch.block if launch else kernel.threads
        shared = kernel.shared + (launch.dynamic_shared if launch else 0)
        fits = occupancy(gpu, threads, kernel.registers, shared) if threads else None
        rows.append(Resources(gpu=gpu, kernel=kernel, launch=launch, fits=fits))
    return rows


def document(rows: Sequence[Resources]) -> list[dict[str, Any]]:
    """Return the rows as JSON values; ``dynamic_shared`` is null if the frontier's recipe has no such launch."""
    return [
        {
            "op": row.kernel.op, "kernel": row.kernel.name, "gpu": row.gpu.name, "image": row.kernel.image,
            "max_threads": row.kernel.threads, "threads": row.launch.block if row.launch else None,
            "registers": row.kernel.registers, "shared": row.kernel.shared,
            "dynamic_shared": row.launch.dynamic_shared if row.launch else None, "stack": row.kernel.stack,
            "occupancy": asdict(row.fits) if row.fits else None,
            "code": asdict(row.kernel.counts) | {"local_in_loops": row.kernel.local_in_loops},
        }
        for row in rows
    ]  # fmt: skip
