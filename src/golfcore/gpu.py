"""GPUs on paper: the limits that decide how many blocks fit, and the data sheet's rates."""

from __future__ import annotations

from dataclasses import dataclass

WARP = 32
REGISTER_UNIT = 256  # registers are given to a warp in units of this many
WARP_UNIT = 4  # and warps to a block in units of this many, one for each scheduler
SHARED_UNIT = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One product.

    The limits are those of the CUDA C++ Programming Guide 13.0, table "Technical Specifications per Compute
    Capability", and of cuda_occupancy.h; the rates those of NVIDIA's data sheets (H100 SXM5 80 GB, A100 SXM4 80 GB).

    Attributes:
        name: for people.
        image: what nvcc calls its machine code.
        multiprocessors: how many there are.
        warps, blocks, registers, shared: what a multiprocessor has room for; shared memory in bytes.
        block_shared: bytes that a block may have.
        reserved_shared: bytes that the system takes of each block's.
        bytes_s: memory bandwidth.
        bf16_flops: dense products in bf16 on the tensor cores, at most.
        mma_share: of that, what ``mma.sync`` reaches. Hopper's full rate takes wgmma: arXiv:2402.13499 measures 62 % by
            mma.sync. A100 has no other instruction.
        tensor_flops_clock: flops a multiprocessor's tensor cores do in a clock.
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

    @property
    def clock(self) -> float:
        """The clock at which the data sheet counts products, in Hz."""
        return self.bf16_flops / self.multiprocessors / self.tensor_flops_clock

    @property
    def issue_rate(self) -> float:
        """Instructions of warps a second: a multiprocessor has four schedulers of one a clock."""
        return 4.0 * self.multiprocessors * self.clock

    @property
    def fp32_flops(self) -> float:
        """Of fused multiply-adds outside the tensor cores: 128 lanes a multiprocessor."""
        return 2.0 * 128 * self.multiprocessors * self.clock

    @property
    def special_rate(self) -> float:
        """Results a second of ex2, rcp, rsqrt, tanh: 16 lanes a multiprocessor."""
        return 16.0 * self.multiprocessors * self.clock


H100 = Gpu(
    name="H100 SXM", image="sm_90a", multiprocessors=132, warps=64, blocks=32, registers=65_536, shared=228 << 10,
    block_shared=227 << 10, reserved_shared=1 << 10, bytes_s=3.35e12, bf16_flops=989.5e12, mma_share=0.62,
    tensor_flops_clock=4096,
)  # fmt: skip
A100 = Gpu(
    name="A100 SXM", image="sm_80", multiprocessors=108, warps=64, blocks=32, registers=65_536, shared=164 << 10,
    block_shared=163 << 10, reserved_shared=1 << 10, bytes_s=2.039e12, bf16_flops=312e12, mma_share=1.0,
    tensor_flops_clock=2048,
)  # fmt: skip
GPUS = (H100, A100)


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How many blocks of a kernel a multiprocessor holds at once, and what sets the number.

    ``limit``: ``warps``, ``blocks``, ``registers`` or ``shared``; ``share`` is that of the warps it has room for.
    """

    blocks: int
    share: float
    limit: str


def occupancy(gpu: Gpu, threads: int, registers: int, shared: int) -> Occupancy:
    """Of blocks with ``threads`` threads of ``registers`` registers each and ``shared`` bytes of shared memory."""
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
