#include "activation/activation.h"

#include "isa_table.h"
#include "parallel.h"

namespace golf {
namespace {

constexpr const ActivationKernels* kTable[kIsaCount] = GOLF_ISA_TABLE(activation_kernels);
constexpr int64_t kGrain = 32768;  // elements: large against the hand-out, small against an L2 cache

}  // namespace

Status activation_forward(DType dtype, const void* u, void* y, int64_t n, float slope, int32_t threads) noexcept {
  if (!(slope >= 0 && slope <= 1)) return Status::kInvalidArgument;
  const ActivationKernels& kernels = active_kernels(kTable);
  parallel_for(n, kGrain, threads, [&](int64_t, int64_t begin, int64_t end) {
    if (dtype == DType::kF32)
      kernels.forward_f32(static_cast<const float*>(u) + begin, static_cast<float*>(y) + begin, end - begin, slope);
    else
      kernels.forward_bf16(static_cast<const bf16*>(u) + begin, static_cast<bf16*>(y) + begin, end - begin, slope);
  });
  return Status::kOk;
}

Status activation_backward(DType dtype, const void* u, const void* dy, void* du, int64_t n, float slope,
                           int32_t threads) noexcept {
  if (!(slope >= 0 && slope <= 1)) return Status::kInvalidArgument;
  const ActivationKernels& kernels = active_kernels(kTable);
  parallel_for(n, kGrain, threads, [&](int64_t, int64_t begin, int64_t end) {
    if (dtype == DType::kF32)
      kernels.backward_f32(static_cast<const float*>(u) + begin, static_cast<const float*>(dy) + begin,
                           static_cast<float*>(du) + begin, end - begin, slope);
    else
      kernels.backward_bf16(static_cast<const bf16*>(u) + begin, static_cast<const bf16*>(dy) + begin,
                            static_cast<bf16*>(du) + begin, end - begin, slope);
  });
  return Status::kOk;
}

}  // namespace golf
