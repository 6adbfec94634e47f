"""Types of the compiled core: what csrc/bindings exports. tests/ops/test_border.py compares this with the module.

Addresses, strides in elements and dtype codes are ints; 0 is the address of an absent tensor. Kernels end with the
number of threads. golfcore.ops.kernels calls them by name.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import golfcore._device

device = golfcore._device  # where has_cuda

commit: str
has_cuda: bool
cuda_reason: str
cuda_images: str

def isas() -> tuple[str, ...]: ...
def active_isa() -> str: ...
def detected_isa() -> str: ...
def set_isa(name: str) -> None: ...
def borrow_openmp(parallel: int) -> None: ...
def driver_trouble() -> str: ...
def cuda_devices() -> list[dict[str, Any]]: ...
def cuda_versions() -> tuple[int, int]: ...  # where has_cuda

BPE_MAX_DOCUMENT_BYTES: int
BPE_MAX_TRAINING_BYTES: int

class BpeEncoder:
    def __init__(self, pairs: NDArray[np.uint16]) -> None: ...
    def encode(self, text: bytes) -> NDArray[np.uint16]: ...
    def encode_batch(self, texts: Sequence[bytes], threads: int) -> tuple[NDArray[np.uint16], NDArray[np.int64]]: ...
    def decode(self, ids: NDArray[np.uint16]) -> bytes: ...
    def lengths(self) -> NDArray[np.int32]: ...

def bpe_train(texts: Sequence[bytes], n_merges: int, threads: int) -> NDArray[np.uint16]: ...
def bpe_split(text: bytes) -> list[bytes]: ...
def crc32c(data: bytes | bytearray | memoryview, value: int = 0) -> int: ...
def xxh64(data: bytes | bytearray | memoryview, seed: int = 0) -> int: ...

ENTROPY_MAX_LANES_LOG2: int
ENTROPY_MAX_COLUMNS: int

def entropy_encode_static(
    raw: bytes, shapes: NDArray[np.uint64], bits: int, trellis: int, lanes_log2: int, classes_log2: int
) -> bytes: ...
def entropy_decode_static(
    coded: bytes, shapes: NDArray[np.uint64], bits: int, trellis: int, lanes_log2: int, classes_log2: int
) -> bytes: ...
def entropy_encode_adaptive(
    raw: bytes, shapes: NDArray[np.uint64], bits: int, trellis: int, lanes_log2: int, prior_log2: int, shift: int
) -> bytes: ...
def entropy_decode_adaptive(
    coded: bytes, shapes: NDArray[np.uint64], bits: int, trellis: int, lanes_log2: int, prior_log2: int, shift: int
) -> bytes: ...
def entropy_encode_binary(
    raw: bytes, shapes: NDArray[np.uint64], bits: int, trellis: int, lanes_log2: int, prior_log2: int, shift: int
) -> bytes: ...
def entropy_decode_binary(
    coded: bytes, shapes: NDArray[np.uint64], bits: int, trellis: int, lanes_log2: int, prior_log2: int, shift: int
) -> bytes: ...

NGRAM_MAX_ORDER: int

class NgramMixture:
    def __init__(self, vocab: int, order: int, bos: int, max_contexts: int, rate: float, bias: float) -> None: ...
    def learn(self, tokens: NDArray[np.uint16]) -> None: ...
    def distribution(self, p_V: NDArray[np.float32], top_log_p: float, top: int) -> NDArray[np.float32]: ...
    def score(
        self, targets: NDArray[np.uint16], log_p: NDArray[np.float32], top_log_p: NDArray[np.float32],
        top: NDArray[np.uint16],
    ) -> NDArray[np.float64]: ...  # fmt: skip
    def learned(self) -> int: ...

embed_grain: int
embed_max_smear: int
head_max_vocab: int
norm_max_width: int

def activation_forward(dtype: int, u: int, y: int, n: int, slope: float, threads: int) -> None: ...
def activation_backward(dtype: int, u: int, dy: int, du: int, n: int, slope: float, threads: int) -> None: ...
def attention_longest(cu_seqlens: int, documents: int, tokens: int) -> int: ...
def attention_scratch_bytes(dtype: int, sizes: Sequence[int], xsa: bool, backward: bool) -> int: ...
def attention_forward(
    dtype: int, gate_dtype: int, sizes: Sequence[int], inputs: Sequence[int], strides: Sequence[int],
    options: tuple[float, bool], out: int, y: int, lse: int, scratch: int, threads: int,
) -> None: ...  # fmt: skip
def attention_backward(
    dtype: int, gate_dtype: int, sizes: Sequence[int], inputs: Sequence[int], strides: Sequence[int],
    options: tuple[float, bool], out: int, lse: int, dy: int, dq: int, dk: int, dv: int, dgate: int, scratch: int,
    threads: int,
) -> None: ...  # fmt: skip
def bitpack_row_bytes(bits: int, columns: int) -> int: ...
def bitpack_workspace(batch: int, columns: int) -> int: ...
def bitpack_pack(q: int, bits: int, rows: int, columns: int, data: int, threads: int) -> None: ...
def bitpack_unpack(data_and_scales: Sequence[int], sizes: Sequence[int], q: int, threads: int) -> None: ...
def bitpack_dequantize(
    data_and_scales: Sequence[int], sizes: Sequence[int], dtype: int, w: int, threads: int
) -> None: ...
def bitpack_fake_quantize(dtype: int, w: int, scales: int, y: int, sizes: Sequence[int], threads: int) -> None: ...
def bitpack_product(
    data_and_scales: Sequence[int], sizes: Sequence[int], dtype: int, x: int, y: int, batch: int, prepared: int,
    threads: int,
) -> None: ...  # fmt: skip
def embed_forward(
    addresses: Sequence[int], sizes: Sequence[int], dtype: int, x: int, place: int, threads: int
) -> None: ...
def embed_backward(
    addresses: Sequence[int], sizes: Sequence[int], dtype: int, dx: int, place: int, gradients: Sequence[int],
    workspace: Sequence[int], threads: int,
) -> None: ...  # fmt: skip
def head_cross_entropy(
    dtype: int, z: int, targets: int, scale: int, losses: int, rows: int, vocab: int, cap: float, threads: int,
) -> None: ...  # fmt: skip
def head_accumulate(total: int, part: int, n: int, threads: int) -> None: ...
def norm_partials(n: int) -> int: ...
def norm_forward(
    dtype: int, branch_dtype: int, x: int, y: int, x0: int, a: int, s: int, b: int, r: int, h: int, rstd: int,
    n: int, d: int, x_stride: int, y_stride: int, x0_stride: int, c: float, eps: float, threads: int,
) -> None: ...  # fmt: skip
def norm_backward(
    dtype: int, branch_dtype: int, dr: int, dh: int, r: int, rstd: int, x: int, y: int, x0: int, a: int, s: int,
    b: int, dx: int, dy: int, dx0: int, da: int, ds: int, db: int, partials: int, n: int, d: int, dr_stride: int,
    dh_stride: int, r_stride: int, x_stride: int, y_stride: int, x0_stride: int, c: float, threads: int,
) -> None: ...  # fmt: skip
def adamw_step(
    rows: list[tuple[int | float, ...]], beta1: float, beta2: float, eps: float, grad_scale: float, ema_rate: float,
    bias1: float, bias2: float, threads: int,
) -> None: ...  # fmt: skip
def muon_momentum(
    matrices: list[tuple[int | float, ...]], rows: int, columns: int, momentum: float, row_norm: bool, eps: float,
    bank_dtype: int, bank: int, norms: int, threads: int,
) -> None: ...  # fmt: skip
def muon_apply(
    rows: list[tuple[int | float, ...]], update_dtype: int, update: int, factor: float, ema_rate: float, threads: int,
) -> None: ...  # fmt: skip
def qk_partials(tokens: int) -> int: ...
def qk_forward(
    dtype: int, q: int, k: int, q_out: int, k_out: int, cos: int, sin: int, positions: int, gain: int, tokens: int,
    length: int, q_heads: int, k_heads: int, head_dim: int, half: int, q_stride: int, k_stride: int, eps: float,
    threads: int,
) -> None: ...  # fmt: skip
def qk_backward(
    dtype: int, q: int, k: int, dq_out: int, dk_out: int, dq: int, dk: int, cos: int, sin: int, positions: int,
    gain: int, dgain: int, partials: int, tokens: int, length: int, q_heads: int, k_heads: int, head_dim: int,
    half: int, q_stride: int, k_stride: int, dq_out_stride: int, dk_out_stride: int, eps: float, threads: int,
) -> None: ...  # fmt: skip
def has_symmetric_product(dtype: int) -> bool: ...
def polynomial_workspace(dtype: int, count: int, rows: int, columns: int) -> int: ...
def newton_schulz_polynomial(
    dtype: int, x: int, square: int, out: int, shape: Sequence[int], strides: Sequence[int],
    coefficients: Sequence[float], packed: int, threads: int,
) -> None: ...  # fmt: skip
def quant_workspace(rows: int) -> int: ...
def quant_columns(
    addresses: Sequence[int], sizes: Sequence[int], ranges: Sequence[int], limit: int, weight: float, bits: int,
    mask: Sequence[int], threads: int,
) -> None: ...  # fmt: skip
def trellis_points(
    symbols: int, points: int, rows: int, columns: int, bits: int, mask: Sequence[int], threads: int
) -> None: ...
