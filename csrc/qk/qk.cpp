#include "qk/qk.h"

#include "isa_table.h"
#include "parallel.h"

namespace golf {
namespace {

constexpr const QkKernels* kTable[kIsaCount] = GOLF_ISA_TABLE(qk_kernels);
constexpr int64_t kGrain = 64;  // tokens

bool valid(const QkArgs& args) noexcept {
  return args.length > 0 && args.half >= 0 && args.head_dim > 0 && 2 * args.half <= args.head_dim &&
         (args.dgain == nullptr || args.partials != nullptr);
}

}  // namespace

int64_t qk_chunks(int64_t tokens) noexcept { return chunk_count(tokens, kGrain); }

Status qk_forward(DType dtype, const QkArgs& args, int32_t threads) noexcept {
  if (!valid(args)) return Status::kInvalidArgument;
  const auto kernel = active_kernels(kTable).forward[static_cast<int32_t>(dtype)];
  parallel_for(args.tokens, kGrain, threads, [&](int64_t, int64_t begin, int64_t end) { kernel(args, begin, end); });
  return Status::kOk;
}

Status qk_backward(DType dtype, const QkArgs& args, int32_t threads) noexcept {
  if (!valid(args)) return Status::kInvalidArgument;
  const auto kernel = active_kernels(kTable).backward[static_cast<int32_t>(dtype)];
  const int64_t heads = args.q.heads;
  parallel_for(args.tokens, kGrain, threads, [&](int64_t chunk, int64_t begin, int64_t end) {
    kernel(args, begin, end, args.dgain != nullptr ? args.partials + chunk * heads : nullptr);
  });
  if (args.dgain == nullptr) return Status::kOk;
  for (int64_t head = 0; head < heads; ++head) {
    float total = 0.0f;
    for (int64_t chunk = 0; chunk < qk_chunks(args.tokens); ++chunk) total += args.partials[chunk * heads + head];
    args.dgain[head] = total;
  }
  return Status::kOk;
}

}  // namespace golf
