// Squared activations of the MLP, element by element:
//   y = phi(u)^2 with phi(u) = u for u > 0, slope * u else;  slope 0 is relu^2, 0.5 the leaky square.
// Arithmetic in f32, one rounding to the output's type. NaN stays NaN. Buffers are contiguous and may not overlap.
#pragma once

#include "golf.h"

namespace golf {

// 0 <= slope <= 1.
Status activation_forward(DType dtype, const void* u, void* y, int64_t n, float slope, int32_t threads) noexcept;
// du = 2 phi(u) phi'(u) dy, from the input u.
Status activation_backward(DType dtype, const void* u, const void* dy, void* du, int64_t n, float slope,
                           int32_t threads) noexcept;

// The same on a GPU (activation_kernels.cu).
Status activation_forward_device(DType dtype, const void* u, void* y, int64_t n, float slope, Stream stream) noexcept;
Status activation_backward_device(DType dtype, const void* u, const void* dy, void* du, int64_t n, float slope,
                                  Stream stream) noexcept;

// One range on one thread, for each instruction set.
struct ActivationKernels {
  void (*forward_f32)(const float* u, float* y, int64_t n, float slope);
  void (*forward_bf16)(const bf16* u, bf16* y, int64_t n, float slope);
  void (*backward_f32)(const float* u, const float* dy, float* du, int64_t n, float slope);
  void (*backward_bf16)(const bf16* u, const bf16* dy, bf16* du, int64_t n, float slope);
};
GOLF_KERNELS(ActivationKernels, activation_kernels);

}  // namespace golf
