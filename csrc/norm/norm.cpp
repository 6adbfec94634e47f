#include "norm/norm.h"

#include "isa_table.h"
#include "parallel.h"

namespace golf {
namespace {

constexpr const NormKernels* kTable[kIsaCount] = GOLF_ISA_TABLE(norm_kernels);

// -1 where the pair is none that the kernels serve.
int32_t pair_index(DType stream, DType branch) noexcept {
  if (stream == branch) return stream == DType::kF32 ? 0 : 1;
  return stream == DType::kF32 ? 2 : -1;
}

// At most 128 chunks, so that the partial sums stay small beside the rows; at least 32 rows each.
int64_t rows_per_chunk(int64_t n) noexcept { return n > 32 * 128 ? (n + 127) / 128 : 32; }

}  // namespace

int64_t norm_chunks(int64_t n) noexcept { return chunk_count(n, rows_per_chunk(n)); }

Status norm_forward(DType stream, DType branch, const NormForward& args, int32_t threads) noexcept {
  const int32_t pair = pair_index(stream, branch);
  if (pair < 0 || args.d <= 0) return Status::kInvalidArgument;
  // An empty tensor has no address.
  if (args.n > 0 && (args.b == nullptr) != (args.x0 == nullptr)) return Status::kInvalidArgument;
  if (args.n > 0 && args.h == nullptr && args.r == nullptr) return Status::kInvalidArgument;
  const NormKernels& kernels = active_kernels(kTable);
  parallel_for(args.n, rows_per_chunk(args.n), threads,
               [&](int64_t, int64_t begin, int64_t end) { kernels.forward[pair](args, begin, end); });
  return Status::kOk;
}

Status norm_backward(DType stream, DType branch, const NormBackward& args, int32_t threads) noexcept {
  const int32_t pair = pair_index(stream, branch);
  const bool sums = args.da != nullptr || args.ds != nullptr || args.db != nullptr;
  if (pair < 0 || args.d <= 0) return Status::kInvalidArgument;
  if (args.n > 0 && ((args.b == nullptr) != (args.x0 == nullptr) || (sums && args.partials == nullptr)))
    return Status::kInvalidArgument;
  const NormKernels& kernels = active_kernels(kTable);
  parallel_for(args.n, rows_per_chunk(args.n), threads, [&](int64_t chunk, int64_t begin, int64_t end) {
    kernels.backward[pair](args, begin, end, sums ? args.partials + chunk * 3 * args.d : nullptr);
  });
  float* const totals[3] = {args.da, args.ds, args.db};
  for (int64_t which = 0; which < 3; ++which) {
    float* total = totals[which];
    if (total == nullptr) continue;
    for (int64_t i = 0; i < args.d; ++i) total[i] = 0.0f;
    for (int64_t chunk = 0; chunk < norm_chunks(args.n); ++chunk) {
      const float* part = args.partials + (chunk * 3 + which) * args.d;
      for (int64_t i = 0; i < args.d; ++i) total[i] += part[i];
    }
  }
  return Status::kOk;
}

}  // namespace golf
