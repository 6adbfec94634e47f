"""Types of the kernels for GPUs: what golfcore._core.device and golfcore._simt have in common, and the former's own.

No module has this name. Addresses, strides in elements and dtype codes are ints; 0 is the address of an absent tensor.
Names and order of the arguments are those of csrc/bindings/<op>.cpp; every kernel ends with device and stream.
"""

from collections.abc import Sequence

embed_max_smear: int
head_max_vocab: int
norm_max_width: int

def why_not(device: int) -> str: ...
def fill_f32(out: int, n: int, value: float, device: int, stream: int) -> None: ...
def device_lost() -> bool: ...
def synchronize(device: int, stream: int) -> None: ...
def activation_forward(dtype: int, u: int, y: int, n: int, slope: float, device: int, stream: int) -> None: ...
def activation_backward(
    dtype: int, u: int, dy: int, du: int, n: int, slope: float, device: int, stream: int
) -> None: ...
def attention_forward(
    dtype: int, gate_dtype: int, sizes: Sequence[int], inputs: Sequence[int], strides: Sequence[int],
    options: tuple[float, bool], out: int, y: int, lse: int, device: int, stream: int,
) -> None: ...  # fmt: skip
def attention_backward(
    dtype: int, gate_dtype: int, sizes: Sequence[int], inputs: Sequence[int], strides: Sequence[int],
    options: tuple[float, bool], out: int, lse: int, dy: int, dq: int, dk: int, dv: int, dgate: int, dout: int,
    row_sums: int, device: int, stream: int,
) -> None: ...  # fmt: skip
def bitpack_pack(q: int, bits: int, rows: int, columns: int, data: int, device: int, stream: int) -> None: ...
def bitpack_unpack(data_and_scales: Sequence[int], sizes: Sequence[int], q: int, device: int, stream: int) -> None: ...
def bitpack_dequantize(
    data_and_scales: Sequence[int], sizes: Sequence[int], dtype: int, w: int, device: int, stream: int
) -> None: ...
def bitpack_fake_quantize(
    dtype: int, w: int, scales: int, y: int, sizes: Sequence[int], device: int, stream: int
) -> None: ...
def bitpack_product(
    data_and_scales: Sequence[int], sizes: Sequence[int], dtype: int, x: int, y: int, batch: int, device: int,
    stream: int,
) -> None: ...  # fmt: skip
def embed_partials(tokens: int) -> int: ...
def embed_pieces(tokens: int) -> int: ...
def embed_forward(
    addresses: Sequence[int], sizes: Sequence[int], dtype: int, x: int, place: int, device: int, stream: int
) -> None: ...
def embed_backward(
    addresses: Sequence[int], sizes: Sequence[int], dtype: int, dx: int, place: int, gradients: Sequence[int],
    by_id: Sequence[int], by_slot: Sequence[int], workspace: Sequence[int], device: int, stream: int,
) -> None: ...  # fmt: skip
def head_cross_entropy(
    dtype: int, z: int, targets: int, scale: int, losses: int, rows: int, vocab: int, cap: float, device: int,
    stream: int,
) -> None: ...  # fmt: skip
def head_accumulate(total: int, part: int, n: int, device: int, stream: int) -> None: ...
def norm_partials(n: int) -> int: ...
def norm_forward(
    dtype: int, branch_dtype: int, x: int, y: int, x0: int, a: int, s: int, b: int, r: int, h: int, rstd: int,
    n: int, d: int, x_stride: int, y_stride: int, x0_stride: int, c: float, eps: float, device: int, stream: int,
) -> None: ...  # fmt: skip
def norm_backward(
    dtype: int, branch_dtype: int, dr: int, dh: int, r: int, rstd: int, x: int, y: int, x0: int, a: int, s: int,
    b: int, dx: int, dy: int, dx0: int, da: int, ds: int, db: int, partials: int, n: int, d: int, dr_stride: int,
    dh_stride: int, r_stride: int, x_stride: int, y_stride: int, x0_stride: int, c: float, device: int, stream: int,
) -> None: ...  # fmt: skip
def adamw_step(
    rows: list[tuple[int | float, ...]], beta1: float, beta2: float, eps: float, grad_scale: float, ema_rate: float,
    bias1: float, bias2: float, device: int, stream: int,
) -> None: ...  # fmt: skip
def muon_momentum(
    matrices: list[tuple[int | float, ...]], rows: int, columns: int, momentum: float, row_norm: bool, eps: float,
    bank_dtype: int, bank: int, norms: int, device: int, stream: int,
) -> None: ...  # fmt: skip
def muon_apply(
    rows: list[tuple[int | float, ...]], update_dtype: int, update: int, factor: float, ema_rate: float, device: int,
    stream: int,
) -> None: ...  # fmt: skip
def qk_partials(tokens: int) -> int: ...
def qk_forward(
    dtype: int, q: int, k: int, q_out: int, k_out: int, cos: int, sin: int, positions: int, gain: int, tokens: int,
    length: int, q_heads: int, k_heads: int, head_dim: int, half: int, q_stride: int, k_stride: int, eps: float,
    device: int, stream: int,
) -> None: ...  # fmt: skip
def qk_backward(
    dtype: int, q: int, k: int, dq_out: int, dk_out: int, dq: int, dk: int, cos: int, sin: int, positions: int,
    gain: int, dgain: int, partials: int, tokens: int, length: int, q_heads: int, k_heads: int, head_dim: int,
    half: int, q_stride: int, k_stride: int, dq_out_stride: int, dk_out_stride: int, eps: float, device: int,
    stream: int,
) -> None: ...  # fmt: skip
