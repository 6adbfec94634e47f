// Weights in a few bits, for kernels that read them packed. Rows are packed on their own, from codes q in blocks:
//   int2..int8  q in -2^(b-1) .. 2^(b-1) - 1; blocks of 64 values in 8 b bytes. u = q + 2^(b-1) is cut into planes of
//   4,
//               2 and 1 bits where b has them (8 bits: one plane), the lowest bits first. In a plane of w bits, byte j
//               of its 8 w holds the values j, j + 8 w, j + 16 w ... from its low bits up.
//   ternary     q in -1..1; blocks of 80 values in 16 bytes. Byte j holds the values j, j + 16 .. j + 64 as the base-3
//               number n of the digits q + 1, the first the highest, stored as ceil(256 n / 243): the digits are then
//               the carries of repeated multiplication by 3.
// A row ends with a whole block, padded with code u = 0. Scales are f32, one for each group of `group` columns.
#pragma once

#include "golf.h"

namespace golf {

struct BitFormat {
  int32_t bits;  // 2..8; 0 for ternary
};

constexpr int64_t kIntBlock = 64, kTernaryBlock = 80, kTernaryBytes = 16;
constexpr int64_t kPanelValues = 320;  // whole blocks of either kind
static_assert(kPanelValues % kIntBlock == 0 && kPanelValues % kTernaryBlock == 0);

constexpr int64_t block_values(BitFormat f) noexcept { return f.bits == 0 ? kTernaryBlock : kIntBlock; }
constexpr int64_t block_bytes(BitFormat f) noexcept { return f.bits == 0 ? kTernaryBytes : 8 * f.bits; }
constexpr int64_t packed_row_bytes(BitFormat f, int64_t columns) noexcept {
  return (columns + block_values(f) - 1) / block_values(f) * block_bytes(f);
}

// A packed matrix [rows, columns]. scales [rows, ceil(columns / group)].
struct PackedMatrix {
  const uint8_t* data;
  const float* scales;
  BitFormat format;
  int64_t rows, columns, group;
};

// q [rows, columns]; codes outside the format's range are the caller's to exclude.
Status bitpack_pack(const int8_t* q, BitFormat format, int64_t rows, int64_t columns, uint8_t* data,
                    int32_t threads) noexcept;
Status bitpack_unpack(const PackedMatrix& m, int8_t* q, int32_t threads) noexcept;
Status bitpack_dequantize(const PackedMatrix& m, DType dtype, void* w, int32_t threads) noexcept;
// y = scale clamp(round(w / scale)), to nearest even, codes clamped to code_range(); a scale of 0 gives 0. scales as in
// PackedMatrix.
Status bitpack_fake_quantize(DType dtype, const void* w, const float* scales, void* y, int32_t bits, int64_t rows,
                             int64_t columns, int64_t group, int32_t threads) noexcept;
// y [batch, rows] = x [batch, columns] m^T, summed in f32; prepared: workspace of bitpack_workspace() bytes.
int64_t bitpack_workspace(int64_t batch, int64_t columns) noexcept;
Status bitpack_product(const PackedMatrix& m, DType dtype, const void* x, float* y, int64_t batch, void* prepared,
                       int32_t threads) noexcept;

struct CodeRange {
  int32_t low, high;
};
// Symmetric, as the quantizers use it: -31 .. 31 for int6, although -32 can be packed.
constexpr CodeRange code_range(int32_t bits) noexcept {
  return bits == 0 ? CodeRange{-1, 1} : CodeRange{1 - (1 << (bits - 1)), (1 << (bits - 1)) - 1};
}

// The same on a GPU (bitpack_kernels.cu). Packed bytes lie at multiples of 8; products come in the type of x and need
// no workspace. Fewer than 2^35 values.
Status bitpack_pack_device(const int8_t* q, BitFormat format, int64_t rows, int64_t columns, uint8_t* data,
                           Stream stream) noexcept;
Status bitpack_unpack_device(const PackedMatrix& m, int8_t* q, Stream stream) noexcept;
Status bitpack_dequantize_device(const PackedMatrix& m, DType dtype, void* w, Stream stream) noexcept;
Status bitpack_fake_quantize_device(DType dtype, const void* w, const float* scales, void* y, int32_t bits,
                                    int64_t rows, int64_t columns, int64_t group, Stream stream) noexcept;
Status bitpack_product_device(const PackedMatrix& m, DType dtype, const void* x, void* y, int64_t batch,
                              Stream stream) noexcept;

// One range of rows on one thread, for each instruction set.
struct BitpackKernels {
  void (*pack)(const int8_t* q, BitFormat f, int64_t columns, uint8_t* data, int64_t begin, int64_t end);
  void (*unpack)(const PackedMatrix& m, int8_t* q, int64_t begin, int64_t end);
  void (*dequantize_f32)(const PackedMatrix& m, float* w, int64_t begin, int64_t end);
  void (*dequantize_bf16)(const PackedMatrix& m, bf16* w, int64_t begin, int64_t end);
  void (*fake_f32)(const float* w, const float* scales, float* y, CodeRange range, int64_t columns, int64_t group,
                   int64_t begin, int64_t end);
  void (*fake_bf16)(const bf16* w, const float* scales, bf16* y, CodeRange range, int64_t columns, int64_t group,
                    int64_t begin, int64_t end);
  // x in the form that product() reads; the same (m, dtype, batch) for both.
  void (*prepare_f32)(const PackedMatrix& m, const float* x, int64_t batch, void* prepared);
  void (*prepare_bf16)(const PackedMatrix& m, const bf16* x, int64_t batch, void* prepared);
  void (*product)(const PackedMatrix& m, DType dtype, const void* prepared, float* y, int64_t batch, int64_t begin,
                  int64_t end);
};
GOLF_KERNELS(BitpackKernels, bitpack_kernels);

}  // namespace golf
