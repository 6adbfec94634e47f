"""Occupancy against known values, and which image a device runs."""

from __future__ import annotations

import pytest

from golfcore.gpu_specs import A100, H100, Gpu, image_for, occupancy


@pytest.mark.parametrize(
    ("gpu", "threads", "registers", "shared", "blocks", "share", "limit"),
    [
        # 64 warps, none short of anything.
        (H100, 256, 32, 0, 8, 1.0, "warps"),
        (A100, 1024, 32, 0, 2, 1.0, "warps"),
        # 65,536 registers: 64 a thread for 128 threads are 8,192 a block.
        (A100, 128, 64, 0, 8, 0.5, "registers"),
        # 168 a thread are 5,376 a warp; a quarter of the registers, 16,384, holds three warps, so twelve in all.
        (H100, 128, 168, 4096, 3, 0.1875, "registers"),
        # 33 a thread are 1,056 a warp, given out as 1,280: 12 warps a quarter, 48 in all.
        (H100, 256, 33, 0, 6, 0.75, "registers"),
        # 32 blocks at most, of one warp each.
        (H100, 32, 16, 0, 16, 0.25, "warps"),
        # 228 KB: a block with 113 KB and the system's 1 KB twice.
        (H100, 128, 32, 113 << 10, 2, 0.125, "shared"),
        (H100, 128, 32, 227 << 10, 1, 0.0625, "shared"),
        (H100, 128, 32, (227 << 10) + 1, 0, 0.0, "shared"),
        (A100, 128, 32, 163 << 10, 1, 0.0625, "shared"),
    ],
)
def test_occupancy(gpu: Gpu, threads: int, registers: int, shared: int, blocks: int, share: float, limit: str) -> None:
    found = occupancy(gpu, threads, registers, shared)
    assert (found.blocks, found.share, found.limit) == (blocks, share, limit)


def test_clocks_are_those_of_the_data_sheets() -> None:
    assert H100.clock == pytest.approx(1.83e9, rel=1e-3)
    assert A100.clock == pytest.approx(1.41e9, rel=1e-3)
    assert A100.fp32_flops == pytest.approx(19.5e12, rel=1e-2)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((9, 0), "sm_90a"),
        ((8, 0), "sm_80"),
        ((8, 9), "sm_80"),
        ((7, 5), ""),
        ((10, 0), "compute_90"),
        ((12, 0), "compute_90"),
    ],
)
def test_image_of_a_device(capability: tuple[int, int], expected: str) -> None:
    assert image_for("80-real 90a-real 90-virtual", capability) == expected


def test_images_without_a_suffix_are_both() -> None:
    assert image_for("80", (8, 6)) == "sm_80"
    assert image_for("80", (9, 0)) == "compute_80"
    assert image_for("90a", (10, 0)) == ""
    assert image_for("", (9, 0)) == ""
