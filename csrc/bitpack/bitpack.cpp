#include "bitpack/bitpack.h"

#include "isa_table.h"
#include "parallel.h"

namespace golf {
namespace {

constexpr const BitpackKernels* kTable[kIsaCount] = GOLF_ISA_TABLE(bitpack_kernels);
constexpr int64_t kGrain = 65536;  // values of a chunk

bool valid(BitFormat f) { return f.bits == 0 || (f.bits >= 2 && f.bits <= 8); }
int64_t grain(int64_t columns) { return columns < kGrain ? kGrain / columns : 1; }

}  // namespace

Status bitpack_pack(const int8_t* q, BitFormat format, int64_t rows, int64_t columns, uint8_t* data,
                    int32_t threads) noexcept {
  if (!valid(format) || columns < 1) return Status::kInvalidArgument;
  const BitpackKernels& kernels = active_kernels(kTable);
  parallel_for(rows, grain(columns), threads,
               [&](int64_t, int64_t begin, int64_t end) { kernels.pack(q, format, columns, data, begin, end); });
  return Status::kOk;
}

Status bitpack_unpack(const PackedMatrix& m, int8_t* q, int32_t threads) noexcept {
  if (!valid(m.format) || m.columns < 1) return Status::kInvalidArgument;
  const BitpackKernels& kernels = active_kernels(kTable);
  parallel_for(m.rows, grain(m.columns), threads,
               [&](int64_t, int64_t begin, int64_t end) { kernels.unpack(m, q, begin, end); });
  return Status::kOk;
}

Status bitpack_dequantize(const PackedMatrix& m, DType dtype, void* w, int32_t threads) noexcept {
  if (!valid(m.format) || m.columns < 1 || m.group < 1) return Status::kInvalidArgument;
  const BitpackKernels& kernels = active_kernels(kTable);
  parallel_for(m.rows, grain(m.columns), threads, [&](int64_t, int64_t begin, int64_t end) {
    if (dtype == DType::kF32)
      kernels.dequantize_f32(m, static_cast<float*>(w), begin, end);
    else
      kernels.dequantize_bf16(m, static_cast<bf16*>(w), begin, end);
  });
  return Status::kOk;
}

Status bitpack_fake_quantize(DType dtype, const void* w, const float* scales, void* y, int32_t bits, int64_t rows,
                             int64_t columns, int64_t group, int32_t threads) noexcept {
  if (!valid({bits}) || columns < 1 || group < 1) return Status::kInvalidArgument;
  const BitpackKernels& kernels = active_kernels(kTable);
  const CodeRange range = code_range(bits);
  parallel_for(rows, grain(columns), threads, [&](int64_t, int64_t begin, int64_t end) {
    if (dtype == DType::kF32)
      kernels.fake_f32(static_cast<const float*>(w), scales, static_cast<float*>(y), range, columns, group, begin, end);
    else
      kernels.fake_bf16(static_cast<const bf16*>(w), scales, static_cast<bf16*>(y), range, columns, group, begin, end);
  });
  return Status::kOk;
}

int64_t bitpack_workspace(int64_t batch, int64_t columns) noexcept {
  return batch * chunk_count(columns, kPanelValues) * kPanelValues * 6;  // three bf16 numbers, or one f32
}

Status bitpack_product(const PackedMatrix& m, DType dtype, const void* x, float* y, int64_t batch, void* prepared,
                       int32_t threads) noexcept {
  if (!valid(m.format) || m.columns < 1 || m.group < 1) return Status::kInvalidArgument;
  const BitpackKernels& kernels = active_kernels(kTable);
  if (dtype == DType::kF32)
    kernels.prepare_f32(m, static_cast<const float*>(x), batch, prepared);
  else
    kernels.prepare_bf16(m, static_cast<const bf16*>(x), batch, prepared);
  parallel_for(m.rows, grain(m.columns), threads,
               [&](int64_t, int64_t begin, int64_t end) { kernels.product(m, dtype, prepared, y, batch, begin, end); });
  return Status::kOk;
}

}  // namespace golf
