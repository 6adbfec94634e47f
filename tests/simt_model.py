"""Runs the small kernels of csrc/simt/examples."""

from __future__ import annotations

import torch

from golfcore import _simt

SEEDS = range(8)


def run(name: str, *buffers: torch.Tensor, n: int = 0, seed: int = 0, threads: int = 2) -> None:
    """Runs the example; kernels may touch ``buffers`` and nothing else.

    Raises:
        RuntimeError: what the model found.
    """
    for buffer in buffers:
        _simt.map_buffer(buffer.data_ptr(), buffer.numel() * buffer.element_size())
    _simt.set_schedule(seed, threads)
    try:
        _simt.run_example(name, [buffer.data_ptr() for buffer in buffers], n)
    finally:
        _simt.unmap_buffers()
