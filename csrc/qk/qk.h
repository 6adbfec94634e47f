// What queries and keys go through between projection and attention, for every head of every token in one pass:
//   n = x / sqrt(mean(x^2) + eps);  the first 2 R of its H numbers are rotated in pairs (i, i + R):
//   (n_i cos + n_{i+R} sin, n_{i+R} cos - n_i sin);  queries are then multiplied by their head's gain.
// cos and sin are f32 [T, R]; a token's row is positions[token], or token % length where positions is null. Heads of a
// token are contiguous; tokens may lie apart (strides in elements). Results are contiguous. f32 arithmetic, one
// rounding. Backward needs only the inputs. The gain's gradient is a sum over chunks of tokens that depend on the
// number of tokens alone, added in order: the same bits for any number of threads.
#pragma once

#include "golf.h"

namespace golf {

struct QkTensor {
  const void* x;   // [tokens, heads, H]
  const void* dy;  // backward: gradient of y
  void* out;       // forward: y; backward: dx
  int64_t heads, stride, dy_stride;
};

struct QkArgs {
  QkTensor q, k;
  const float* cos;
  const float* sin;
  const int32_t* positions;                // or null; each in [0, T)
  const float* gain;                       // [q.heads], or null: 1
  float* dgain;                            // backward: [q.heads], or null
  float* partials;                         // backward: [qk_chunks(tokens), q.heads], where dgain is not null
  int64_t tokens, length, head_dim, half;  // half is R
  float eps;
};

int64_t qk_chunks(int64_t tokens) noexcept;
Status qk_forward(DType dtype, const QkArgs& args, int32_t threads) noexcept;
Status qk_backward(DType dtype, const QkArgs& args, int32_t threads) noexcept;

// The same on a GPU (qk_kernels.cu), for any number of heads up to kQkMaxHeadsDevice in all; backward's partials are
// [qk_partials_device(tokens), q.heads]. Positions are the caller's to check.
constexpr int64_t kQkMaxHeadsDevice = 4096;
int64_t qk_partials_device(int64_t tokens) noexcept;
Status qk_forward_device(DType dtype, const QkArgs& args, Stream stream) noexcept;
Status qk_backward_device(DType dtype, const QkArgs& args, Stream stream) noexcept;

// Tokens [begin, end) on one thread; `partials` ([q.heads]) is overwritten where it is not null.
struct QkKernels {
  using Forward = void (*)(const QkArgs& args, int64_t begin, int64_t end);
  using Backward = void (*)(const QkArgs& args, int64_t begin, int64_t end, float* partials);
  Forward forward[2];  // by DType
  Backward backward[2];
};
GOLF_KERNELS(QkKernels, qk_kernels);

}  // namespace golf
