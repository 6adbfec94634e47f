// Residual mix and RMSNorm of rows, in one pass:
//   r = a * (x + s * y) + b * x0      each of a, (s, y), (b, x0) optional; a, s, b are f32 [d]
//   h = c * r * rstd,  rstd = 1 / sqrt(mean(r^2) + eps)
// The stream (x, x0, r and their gradients) and the branch (y, h and theirs) may differ in type: f32/f32, bf16/bf16 or
// f32/bf16. Arithmetic is f32; h is taken from r as it is stored, so that backward sees the same numbers. Rows may lie
// apart (strides in elements); results are contiguous. Gradients of a, s, b are sums over chunks of rows that depend on
// n alone, added in order: the same bits for any number of threads.
#pragma once

#include "golf.h"

namespace golf {

struct NormForward {
  const void* x;
  const void* y;   // or null
  const void* x0;  // null exactly where b is
  const float* a;  // or null: 1
  const float* s;  // or null: 1
  const float* b;
  void* r;      // null where there is nothing to mix: then r is x
  void* h;      // null: r alone, which there must be
  float* rstd;  // [n]; null where h is
  int64_t n, d, x_stride, y_stride, x0_stride;
  float c, eps;
};

struct NormBackward {
  const void* dr;  // null: zero
  const void* dh;  // null: zero; r and rstd are then not read
  const void* r;
  const float* rstd;
  const void* x;   // needed for da
  const void* y;   // needed for da and ds
  const void* x0;  // needed for db
  const float* a;
  const float* s;
  const float* b;
  void* dx;   // or null
  void* dy;   // or null
  void* dx0;  // or null
  float* da;  // each [d] or null
  float* ds;
  float* db;
  float* partials;  // [norm_chunks(n), 3, d]: scratch for da, ds, db
  int64_t n, d, dr_stride, dh_stride, r_stride, x_stride, y_stride, x0_stride;
  float c;
};

int64_t norm_chunks(int64_t n) noexcept;
Status norm_forward(DType stream, DType branch, const NormForward& args, int32_t threads) noexcept;
Status norm_backward(DType stream, DType branch, const NormBackward& args, int32_t threads) noexcept;

// The same on a GPU (norm_kernels.cu). Backward's `partials` are [norm_partials_device(n), 3, d]; with sums, d is at
// most kNormMaxWidthDevice.
constexpr int64_t kNormMaxWidthDevice = 16384;
int64_t norm_partials_device(int64_t n) noexcept;
Status norm_forward_device(DType stream_type, DType branch_type, const NormForward& args, Stream stream) noexcept;
Status norm_backward_device(DType stream_type, DType branch_type, const NormBackward& args, Stream stream) noexcept;

// Rows [begin, end) on one thread. The backward kernel overwrites `partials` ([3, d]: da, ds, db) where it is not null.
struct NormKernels {
  using Forward = void (*)(const NormForward& args, int64_t begin, int64_t end);
  using Backward = void (*)(const NormBackward& args, int64_t begin, int64_t end, float* partials);
  // Indexed by the pair: f32/f32, bf16/bf16, f32/bf16.
  Forward forward[3];
  Backward backward[3];
};
GOLF_KERNELS(NormKernels, norm_kernels);

}  // namespace golf
