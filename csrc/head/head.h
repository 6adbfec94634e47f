// What lies between the head's matrix products, on one chunk of logits in place:
//   y = cap tanh(z / cap) (cap 0: y = z),  loss = log sum exp(y) - y[target],
//   and where a scale is given  z <- scale (softmax(y) - onehot(target)) dy/dz.
// Logits z are [rows, vocab], contiguous; arithmetic is f32 whatever their type. A NaN in a row makes its loss NaN.
#pragma once

#include "golf.h"

namespace golf {

// A row's exponentials stay on a thread's stack in f32 until their sum is known. Token ids are 16-bit in golfcore.
constexpr int64_t kHeadMaxVocab = 65536;

// `targets` lie in [0, vocab), the caller's to check. `losses` [rows]. `scale` [rows] is the gradient of each row's
// loss; null leaves z as it is.
Status head_cross_entropy(DType dtype, void* z, const int64_t* targets, const float* scale, float* losses, int64_t rows,
                          int64_t vocab, float cap, int32_t threads) noexcept;

// total += part: the f32 sum of the chunks' bf16 weight gradients.
Status head_accumulate(float* total, const bf16* part, int64_t n, int32_t threads) noexcept;

// The same on a GPU (head_kernels.cu), where nobody has looked at the targets: one outside of the vocabulary makes its
// row's loss and gradients NaN.
Status head_cross_entropy_device(DType dtype, void* z, const int64_t* targets, const float* scale, float* losses,
                                 int64_t rows, int64_t vocab, float cap, Stream stream) noexcept;
Status head_accumulate_device(float* total, const bf16* part, int64_t n, Stream stream) noexcept;

// One range on one thread, for each instruction set.
struct HeadKernels {
  void (*rows_f32)(float* z, const int64_t* targets, const float* scale, float* losses, int64_t rows, int64_t vocab,
                   float cap);
  void (*rows_bf16)(bf16* z, const int64_t* targets, const float* scale, float* losses, int64_t rows, int64_t vocab,
                    float cap);
  void (*accumulate)(float* total, const bf16* part, int64_t n);
};
GOLF_KERNELS(HeadKernels, head_kernels);

}  // namespace golf
