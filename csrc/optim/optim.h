// Optimizer steps over many tensors in one call: each parameter and its state pass through the processor once.
//
// Parameters and states are f32 and contiguous; gradients f32 or bf16. Work is cut into chunks of one tensor each whose
// size does not depend on the number of threads, so results do not either.
#pragma once

#include "golf.h"

namespace golf {

// A parameter with what its update writes besides: the exponential average and the bf16 copy may be null.
struct OptimTensor {
  float* p;
  const void* g;
  float* m;  // AdamW: first moment; Muon: momentum
  float* v;  // AdamW: second moment; Muon: unused
  float* ema;
  bf16* shadow;
  int64_t n;
  float lr, weight_decay;
  DType g_dtype;
  int64_t first_chunk;  // number_chunks()
};

// Numbers the chunks of all tensors through; before adamw_step() and muon_apply().
void number_chunks(OptimTensor* tensors, int64_t count) noexcept;

// Scalars of a step, the same for every tensor.
//   g <- grad_scale g;  p <- (1 - lr wd) p;  m <- m + (1 - beta1) (g - m);  v <- beta2 v + (1 - beta2) g^2
//   p <- p - lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps);  ema <- ema + ema_rate (p - ema);  shadow <- p
struct AdamStep {
  float beta1, beta2, eps, grad_scale, ema_rate;
  float bias1, bias2;  // 1 - beta^t
};

Status adamw_step(const OptimTensor* tensors, int64_t count, const AdamStep& step, int32_t threads) noexcept;

// Muon's first part on `count` matrices [rows, columns]: m <- momentum m + g, u = g + momentum m, and
// bank[b] = u / ||u||_F in its dtype; with row_norm each row of u is divided by its own norm first. eps is added to
// each norm. row_scale [count, rows] is workspace.
Status muon_momentum(const OptimTensor* tensors, int64_t count, int64_t rows, int64_t columns, float momentum,
                     bool row_norm, float eps, DType bank_dtype, void* bank, float* row_scale,
                     int32_t threads) noexcept;

// Muon's last part: p <- (1 - lr wd) p - lr factor update[b], then ema and shadow as for AdamW.
Status muon_apply(const OptimTensor* tensors, int64_t count, DType update_dtype, const void* update, float factor,
                  float ema_rate, int32_t threads) noexcept;

// The same on a GPU (optim_kernels.cu), with banks and updates in bf16. norms2 [count, rows] is workspace; matrices
// have one shape and are not empty. Newton-Schulz is torch's there: see golfcore.ops.optim.
Status adamw_step_device(const OptimTensor* tensors, int64_t count, const AdamStep& step, Stream stream) noexcept;
Status muon_momentum_device(const OptimTensor* tensors, int64_t count, int64_t rows, int64_t columns, float momentum,
                            bool row_norm, float eps, bf16* bank, float* norms2, Stream stream) noexcept;
Status muon_apply_device(const OptimTensor* tensors, int64_t count, const bf16* update, float factor, float ema_rate,
                         Stream stream) noexcept;

// The polynomial of one Newton-Schulz step, or of two in a row, for `count` matrices x [m, k] with element strides
// (row, column), one of them 1, and m <= k:
//   G = x x^T,  out = a I + b G + c G^2;   two steps: P = that, G <- P G P, out = (a2 I + b2 G + c2 G^2) P.
// Every matrix here is symmetric: only lower triangles are computed, in f32, then rounded to dtype and mirrored.
// `square` is workspace [steps == 2 ? 3 : 1, count, m, m], `packed` of polynomial_workspace() bytes. kInvalidArgument
// where !has_symmetric_product(dtype).
struct Coefficients {
  float a, b, c;
};
struct Polynomial {
  DType dtype;  // of x, square and out
  const void* x;
  void* square;
  void* out;
  int64_t count, m, k, matrix_stride, row_stride, column_stride;
  int32_t steps;
  Coefficients step[2];
};
bool has_symmetric_product(DType dtype) noexcept;
int64_t polynomial_workspace(DType dtype, int64_t count, int64_t m, int64_t k) noexcept;
Status newton_schulz_polynomial(const Polynomial& p, void* packed, int32_t threads) noexcept;

// out = alpha a b^T + beta c + diagonal I for one matrix a [m, k] and b = a, or another b of a's shape and layout where
// the result is symmetric all the same. b and c null for none.
template <class T>
struct SymmetricProduct {
  const T* a;
  const T* b;
  const T* c;
  T* out;
  int64_t m, k, row_stride, column_stride;
  float alpha, beta, diagonal;
};

// Packed layout: panels of rows of a, then k (in pairs for bf16), then the rows of the panel: 32-bit elements,
// zero-padded.
constexpr int64_t kPanel = 32, kTileRows = 8;        // bf16
constexpr int64_t kPanelF32 = 48, kTileRowsF32 = 6;  // f32: with two vectors a tile's sums fill AVX2's registers
template <class T>
constexpr int64_t kPanelOf = sizeof(T) == sizeof(bf16) ? kPanel : kPanelF32;

template <class T>
struct SymmetricKernels {
  void (*pack)(const SymmetricProduct<T>& p, const T* a, int64_t panel, uint32_t* packed);
  void (*multiply)(const SymmetricProduct<T>& p, int64_t panel, const uint32_t* left, const uint32_t* right);
  void (*mirror)(const SymmetricProduct<T>& p, int64_t panel);
};

struct Slice {  // elements [begin, end) of a tensor
  int64_t begin, end;
};

// One range on one thread, for each instruction set.
struct OptimKernels {
  void (*adamw)(const OptimTensor& t, Slice s, const AdamStep& step);
  // norms2[i] = ||u row i||^2 of the rows [s.begin, s.end)
  void (*momentum)(const OptimTensor& t, Slice s, int64_t columns, float momentum, float* norms2);
  // By the dtype of the bank and of the update.
  void (*normalize[2])(const OptimTensor& t, Slice s, int64_t columns, float momentum, const float* row_scale,
                       void* out);
  void (*apply[2])(const OptimTensor& t, Slice s, const void* update, float factor, float ema_rate);
  // Null where the instruction set has no such product.
  SymmetricKernels<float> symmetric_f32;
  SymmetricKernels<bf16> symmetric_bf16;
};
GOLF_KERNELS(OptimKernels, optim_kernels);

}  // namespace golf
