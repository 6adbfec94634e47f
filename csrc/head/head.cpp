#include "head/head.h"

#include "isa_table.h"
#include "parallel.h"

namespace golf {
namespace {

constexpr const HeadKernels* kTable[kIsaCount] = GOLF_ISA_TABLE(head_kernels);
constexpr int64_t kGrain = 32768;  // logits: large against the hand-out, small against an L2 cache

}  // namespace

Status head_cross_entropy(DType dtype, void* z, const int64_t* targets, const float* scale, float* losses, int64_t rows,
                          int64_t vocab, float cap, int32_t threads) noexcept {
  if (rows == 0) return Status::kOk;
  if (rows < 0 || vocab < 1 || vocab > kHeadMaxVocab || !(cap >= 0)) return Status::kInvalidArgument;
  const HeadKernels& kernels = active_kernels(kTable);
  const int64_t grain = kGrain > vocab ? kGrain / vocab : 1;
  parallel_for(rows, grain, threads, [&](int64_t, int64_t begin, int64_t end) {
    const float* scale_here = scale != nullptr ? scale + begin : nullptr;
    if (dtype == DType::kF32)
      kernels.rows_f32(static_cast<float*>(z) + begin * vocab, targets + begin, scale_here, losses + begin, end - begin,
                       vocab, cap);
    else
      kernels.rows_bf16(static_cast<bf16*>(z) + begin * vocab, targets + begin, scale_here, losses + begin, end - begin,
                        vocab, cap);
  });
  return Status::kOk;
}

Status head_accumulate(float* total, const bf16* part, int64_t n, int32_t threads) noexcept {
  const HeadKernels& kernels = active_kernels(kTable);
  parallel_for(n, kGrain, threads, [&](int64_t, int64_t begin, int64_t end) {
    kernels.accumulate(total + begin, part + begin, end - begin);
  });
  return Status::kOk;
}

}  // namespace golf
