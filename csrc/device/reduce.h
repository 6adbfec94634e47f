// Sums and maxima over warps and blocks, in an order that does not depend on timing.
#pragma once

#include "device/cuda.h"

namespace golf {

// Over groups of kLanes neighboring lanes; every lane gets the result. All lanes of the warp take part.
template <int kLanes = kWarpSize>
GOLF_DEVICE float warp_sum(float x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

// A NaN wins over every number, as in torch.
GOLF_DEVICE float max_nan(float a, float b) { return a > b || a != a ? a : b; }

template <int kLanes = kWarpSize>
GOLF_DEVICE float warp_max(float x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) x = max_nan(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
}

// Over a block of kWarps warps; every thread gets the result. `scratch`: kWarps floats of shared memory, free again
// after the next barrier.
template <int kWarps>
GOLF_DEVICE float block_sum(float x, float* scratch) {
  x = warp_sum(x);
  if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = x;
  __syncthreads();
  float total = scratch[0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) total += scratch[warp];
  return total;
}

template <int kWarps>
GOLF_DEVICE float block_max(float x, float* scratch) {
  x = warp_max(x);
  if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = x;
  __syncthreads();
  float largest = scratch[0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) largest = max_nan(largest, scratch[warp]);
  return largest;
}

}  // namespace golf
