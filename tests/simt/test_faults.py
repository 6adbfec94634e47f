"""Faults that the model must find, whatever the order of threads, and must not find in the same kernel without them."""

from __future__ import annotations

import pytest
import torch
from simt_model import SEEDS, run

from golfcore import _simt

FOUND = {
    "missing_barrier": "race: reads shared memory|reads shared memory that nobody has written",
    "missing_second_barrier": "race: ",
    "missing_syncwarp": "race: reads shared memory|nobody has written",
    "barrier_not_reached": "is reached by 255 of 256 threads: thread 77 has left the kernel",
    "barriers_mixed_up": "while others wait at another one",
    "shared_out_of_bounds": r"thread \(63, 0, 0\): reads outside of every shared array",
    "global_out_of_bounds": r"thread \(255, 0, 0\): reads 4 bytes of global memory outside of every buffer",
    "global_write_out_of_bounds": r"thread \(255, 0, 0\): writes 4 bytes of global memory outside of every buffer",
    "uninitialized_shared": r"thread \(54, 0, 0\): reads shared memory that nobody has written",
    "shuffle_from_inactive_lane": r"thread \(15, 0, 0\): shuffle from a lane that the mask leaves out",
    "shuffle_after_exit": "mask 0xffffffff .* is not reached by every lane of the mask: thread 31 has left the kernel",
    "mask_without_caller": "mask 0x0000ffff leaves out the calling lane",
    "misaligned_load": "misaligned: reads 16 bytes at an address that is 4 more than a multiple of 16",
    "misaligned_cast": "misaligned: reads 16 bytes at an address that is 4 more than a multiple of 16",
    "copy_not_awaited": "before it has waited",
    "copy_without_barrier": "race: reads shared memory|before it has waited",
    "atomic_and_plain": "race: ",
    "launch_bounds": "launch refused: the block has more threads than the kernel's launch bounds",
    "named_barrier_count": "of 32 threads, while others wait there for 64|is reached by 32 of 64 threads",
    "too_much_static_shared": "more than 49152 bytes of static shared memory",
}
every_access = pytest.mark.skipif(
    not _simt.checks_every_access(), reason="this build leaves accesses to AddressSanitizer"
)


def test_every_fault_is_expected() -> None:
    assert set(FOUND) == set(_simt.faulty_examples())


@every_access
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", FOUND)
def test_fault_is_found(name: str, seed: int) -> None:
    x, out = torch.randn(256), torch.zeros(256)
    with pytest.raises(RuntimeError, match=FOUND[name]):
        run(name, x, out, n=1, seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", FOUND)
def test_nothing_is_found_without_the_fault(name: str, seed: int) -> None:
    x, out = torch.randn(256), torch.zeros(256)
    run(name, x, out, n=0, seed=seed)
    assert out.any()


@every_access
def test_a_failed_launch_leaves_nothing_behind() -> None:
    x, out = torch.randn(256), torch.zeros(256)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="missing_barrier"):
            run("missing_barrier", x, out, n=1)
        run("missing_barrier", x, out, n=0)
        assert torch.equal(out, x.roll(-37))


@every_access
def test_a_block_that_failed_is_named() -> None:
    x, out = torch.randn(4 * 128), torch.zeros(6 * 128)
    with pytest.raises(RuntimeError, match=r"reverse, block \([45], 0, 0\), thread .* outside of every buffer"):
        run("reverse", x, out, n=6)
