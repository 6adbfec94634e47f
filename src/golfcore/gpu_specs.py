"""The limits and data-sheet rates of GPUs, and the number of blocks that fit on a multiprocessor."""

from __future__ import annotations

from dataclasses import dataclass

WARP = 32
REGISTER_UNIT = 256  # registers are given to a warp in units of this many
WARP_UNIT = 4  # and warps to a block in units of this many, one for each scheduler
SHARED_UNIT = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The limits and rates of one GPU product.

    The limits are those of the CUDA C++ Programming Guide 13.0, table "Technical Specifications per Compute
    Capability", and of cuda_occupancy.h; the rates those of NVIDIA's data sheets (H100 SXM5 80 GB, A100 SXM4 80 GB).

    Attributes:
        name: name for people.
        image: name that nvcc gives its machine code.
        multiprocessors: number of multiprocessors.
        warps, blocks, registers, shared: most of each per multiprocessor; shared memory in bytes.
        block_shared: most bytes of shared memory per block.
        reserved_shared: bytes of shared memory that the system takes per block.
        bytes_s: memory bandwidth in bytes per second.
        bf16_flops: peak rate of dense bf16 products on the tensor cores, in flop/s.
        mma_share: share of that rate that ``mma.sync`` reaches. Hopper's full rate needs wgmma: arXiv:2402.13499
            measures 62 % by mma.sync. A100 has no other instruction.
        tensor_flops_clock: flops per clock of a multiprocessor's tensor cores.
        fp32_lanes: fused multiply-adds per clock of a multiprocessor, outside the tensor cores.
    """

    name: str
    image: str
    multiprocessors: int
    warps: int
    blocks: int
    registers: int
    shared: int
    block_shared: int
    reserved_shared: int
    bytes_s: float
    bf16_flops: float
    mma_share: float
    tensor_flops_clock: int
    fp32_lanes: int

    @property
    def clock(self) -> float:
        """The clock rate that the data sheet's rate of products is based on, in Hz."""
        return self.bf16_flops / self.multiprocessors / self.tensor_flops_clock

    @property
    def issue_rate(self) -> float:
        """Warp instructions per second: a multiprocessor has four schedulers of one instruction per clock."""
        return 4.0 * self.multiprocessors * self.clock

    @property
    def fp32_flops(self) -> float:
        """fp32 flop/s outside the tensor cores; a fused multiply-add counts as two."""
        return 2.0 * self.fp32_lanes * self.multiprocessors * self.clock

    @property
    def special_rate(self) -> float:
        """Results per second of ex2, rcp, rsqrt, tanh: 16 lanes per multiprocessor."""
        return 16.0 * self.multiprocessors * self.clock


H100 = Gpu(
    name="H100 SXM", image="sm_90a", multiprocessors=132, warps=64, blocks=32, registers=65_536, shared=228 << 10,
    block_shared=227 << 10, reserved_shared=1 << 10, bytes_s=3.35e12, bf16_flops=989.5e12, mma_share=0.62,
    tensor_flops_clock=4096, fp32_lanes=128,
)  # fmt: skip
A100 = Gpu(
    name="A100 SXM", image="sm_80", multiprocessors=108, warps=64, blocks=32, registers=65_536, shared=164 << 10,
    block_shared=163 << 10, reserved_shared=1 << 10, bytes_s=2.039e12, bf16_flops=312e12, mma_share=1.0,
    tensor_flops_clock=2048, fp32_lanes=64,
)  # fmt: skip
GPUS = (H100, A100)


@dataclass(frozen=True, slots=True)
class Occupancy:
    """The number of blocks of a kernel that a multiprocessor holds at once, and the limit that sets it.

    ``limit`` is ``warps``, ``blocks``, ``registers`` or ``shared``; ``share`` is the share of the possible warps.
    """

    blocks: int
    share: float
    limit: str


def occupancy(gpu: Gpu, threads: int, registers: int, shared: int) -> Occupancy:
    """Return the occupancy by blocks of ``threads`` threads with ``registers`` registers each and ``shared`` bytes."""
    warps = _up(-(-threads // WARP), WARP_UNIT)
    of_warp = _up(registers * WARP, REGISTER_UNIT)
    held = gpu.registers // 4 // of_warp * 4 if registers else gpu.warps  # each scheduler has a quarter
    of_block = _up(shared + gpu.reserved_shared, SHARED_UNIT)
    fits = {
        "warps": gpu.warps // warps, "blocks": gpu.blocks, "registers": held // warps,
        "shared": gpu.shared // of_block if shared <= gpu.block_shared else 0,
    }  # fmt: skip
    limit = min(fits, key=lambda name: fits[name])
    blocks = fits[limit]
    return Occupancy(blocks, blocks * -(-threads // WARP) / gpu.warps, limit)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def image_for(images: str, capability: tuple[int, int]) -> str:
    """Return which of a build's images a device of this compute capability runs; an empty string if none.

    Args:
        images: images as CMake names them: ``80-real 90a-real 90-virtual``; a number without a suffix means both.
        capability: compute capability, such as ``(9, 0)``.

    Returns:
        ``sm_90a``, or ``compute_90`` for PTX that the driver has yet to compile. Machine code runs on its own and later
        minor versions of one major, an architecture-specific one (``a``) on its own alone; PTX on everything later.
    """
    device = 10 * capability[0] + capability[1]
    best, best_rank = "", (-1, -1)
    for image in images.split():
        number, _, kind = image.partition("-")
        specific, value = number.endswith(("a", "f")), int(number.rstrip("af"))
        runs = value == device if specific else value // 10 == device // 10 and value <= device
        if kind != "virtual" and runs and (1, value) > best_rank:
            best, best_rank = f"sm_{number}", (1, value)
        if kind != "real" and not specific and value <= device and (0, value) > best_rank:
            best, best_rank = f"compute_{number}", (0, value)
    return best
