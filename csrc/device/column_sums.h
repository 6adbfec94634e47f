// The last step of gradients that are summed over rows: partial sums that blocks have left behind, added in order.
#pragma once

#include "device/cuda.h"

namespace golf {

constexpr int kSumParts = 8, kSumThreads = kWarpSize * kSumParts;

// Block b of kSumThreads threads adds columns 32 b .. 32 b + 31 of [rows, columns]: each column by eight threads, then
// their sums in order. Threads of the first warp get a valid result, where their column exists.
struct ColumnSum {
  int64_t column;
  float total;
  bool valid;
};

GOLF_DEVICE ColumnSum column_sum(const float* partials, int64_t rows, int64_t columns) {
  GOLF_SHARED(float, parts, kSumThreads);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarpSize + threadIdx.x % kWarpSize;
  const int64_t part = threadIdx.x / kWarpSize, each = (rows + kSumParts - 1) / kSumParts;
  float total = 0.0f;
  if (column < columns)
    for (int64_t row = part * each; row < (part + 1) * each && row < rows; ++row)
      total += partials[row * columns + column];
  parts[threadIdx.x] = total;
  __syncthreads();
  if (part != 0 || column >= columns) return {column, 0.0f, false};
#pragma unroll
  for (int i = 1; i < kSumParts; ++i) total += parts[i * kWarpSize + threadIdx.x];
  return {column, total, true};
}

constexpr unsigned column_sum_blocks(int64_t columns) noexcept { return blocks_for(columns, kWarpSize); }

}  // namespace golf
