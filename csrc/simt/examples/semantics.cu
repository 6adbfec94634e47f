// What the CUDA programming guide says of threads, shuffles, votes, barriers, atomics and asynchronous copies.
#include "device/cuda.h"
#include "device/division.h"
#include "device/math.h"
#include "device/memory.h"
#include "device/ptx.h"
#include "device/reduce.h"
#include "simt/examples/examples.h"

namespace golf::simt {
namespace {

template <class T>
T* buffer(void* const* buffers, int i) {
  return static_cast<T*>(buffers[i]);
}

// out[thread of the grid] = its coordinates in one number.
GOLF_KERNEL(coordinates, 64, 1, int64_t* out) {
  const int64_t block = blockIdx.x + gridDim.x * (blockIdx.y + static_cast<int64_t>(gridDim.y) * blockIdx.z);
  const int64_t thread = threadIdx.x + blockDim.x * (threadIdx.y + static_cast<int64_t>(blockDim.y) * threadIdx.z);
  const int64_t threads = static_cast<int64_t>(blockDim.x) * blockDim.y * blockDim.z;
  out[block * threads + thread] =
      threadIdx.x + 10 * (threadIdx.y + 10 * (threadIdx.z + 10 * (blockIdx.x + 10 * (blockIdx.y + 10 * blockIdx.z))));
}

Status run_coordinates(void* const* b, int64_t) {
  return GOLF_LAUNCH(coordinates, dim3(3, 2, 2), dim3(4, 2, 3), 0, nullptr, buffer<int64_t>(b, 0));
}

// out[kind][lane]: the lane's value comes from in[lane]; n is the width, in the upper half, and the shuffle's number.
GOLF_KERNEL(shuffles, 32, 1, const int* in, int* out, int width, int by) {
  const int lane = static_cast<int>(threadIdx.x), mine = in[lane];
  out[lane] = __shfl_sync(kAllLanes, mine, by, width);
  out[32 + lane] = __shfl_up_sync(kAllLanes, mine, static_cast<unsigned>(by), width);
  out[64 + lane] = __shfl_down_sync(kAllLanes, mine, static_cast<unsigned>(by), width);
  out[96 + lane] = __shfl_xor_sync(kAllLanes, mine, by, width);
}

Status run_shuffles(void* const* b, int64_t n) {
  return GOLF_LAUNCH(shuffles, 1, 32, 0, nullptr, buffer<int>(b, 0), buffer<int>(b, 1), static_cast<int>(n >> 32),
                     static_cast<int>(n));
}

// Both halves of a warp meet on their own, in turns of different length; then the whole warp.
GOLF_KERNEL(votes, 32, 1, const uint32_t* in, uint32_t* out) {
  const uint32_t lane = threadIdx.x, half = lane < 16 ? 0x0000ffffu : 0xffff0000u, mine = in[lane];
  uint32_t* mine_out = out + lane * 10;
  for (uint32_t turn = 0; turn < (lane < 16 ? 1u : 3u); ++turn) mine_out[0] = __reduce_add_sync(half, mine + turn);
  mine_out[1] = __ballot_sync(half, mine % 2 == 1);
  mine_out[2] = __ballot_sync(kAllLanes, mine % 3 == 0);
  mine_out[3] = static_cast<uint32_t>(__any_sync(kAllLanes, mine == 7)) +
                2 * static_cast<uint32_t>(__all_sync(kAllLanes, mine < 100));
  mine_out[4] = __reduce_add_sync(kAllLanes, mine);
  mine_out[5] = __reduce_max_sync(kAllLanes, mine);
  mine_out[6] = __reduce_min_sync(kAllLanes, mine);
  mine_out[7] = __reduce_or_sync(kAllLanes, mine);
  mine_out[8] = __reduce_and_sync(kAllLanes, mine | 64);
  mine_out[9] = __float_as_uint(warp_sum<8>(static_cast<float>(mine)));
}

Status run_votes(void* const* b, int64_t) {
  return GOLF_LAUNCH(votes, 1, 32, 0, nullptr, buffer<uint32_t>(b, 0), buffer<uint32_t>(b, 1));
}

// Reverses in[block] through shared memory, static and dynamic.
GOLF_KERNEL(reverse, 128, 1, const float* in, float* out) {
  GOLF_SHARED(float, once, 128);
  GOLF_DYNAMIC_SHARED(bytes);
  float* twice = reinterpret_cast<float*>(bytes);
  const uint32_t t = threadIdx.x, at = blockIdx.x * 128 + t;
  once[t] = in[at];
  __syncthreads();
  twice[t] = 2.0f * once[127 - t];
  __syncthreads();
  out[at] = once[127 - t] + twice[(t + 1) % 128];
}

Status run_reverse(void* const* b, int64_t n) {
  return GOLF_LAUNCH(reverse, static_cast<unsigned>(n), 128, 512, nullptr, buffer<float>(b, 0), buffer<float>(b, 1));
}

GOLF_KERNEL(counts, 96, 1, const int* in, int* out) {
  const int mine = in[threadIdx.x], count = __syncthreads_count(mine > 0);
  const int any = __syncthreads_or(mine == 5), all = __syncthreads_and(mine >= 0);
  out[threadIdx.x] = count + 1000 * any + 10000 * all;
}

Status run_counts(void* const* b, int64_t) {
  return GOLF_LAUNCH(counts, 1, 96, 0, nullptr, buffer<int>(b, 0), buffer<int>(b, 1));
}

// Warp 0 fills two buffers in turn, warps 1 and 2 empty them; named barriers say when one is full or free again.
GOLF_KERNEL(pipeline, 96, 1, const int* in, int* out, int rounds) {
  GOLF_SHARED(int, slots, 64);
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int round = 0; round < rounds; ++round) {
    const uint32_t slot = static_cast<uint32_t>(round) % 2, full = 1 + slot, free = 3 + slot;
    if (warp == 0) {
      if (round >= 2) barrier_sync(free, 96);
      slots[slot * 32 + lane] = in[round * 32 + static_cast<int>(lane)];
      barrier_arrive(full, 96);
    } else {
      barrier_sync(full, 96);
      out[(round * 2 + static_cast<int>(warp) - 1) * 32 + static_cast<int>(lane)] = slots[slot * 32 + 31 - lane];
      if (round + 2 < rounds) barrier_arrive(free, 96);
    }
  }
}

Status run_pipeline(void* const* b, int64_t n) {
  return GOLF_LAUNCH(pipeline, 2, 96, 0, nullptr, buffer<int>(b, 0), buffer<int>(b, 1), static_cast<int>(n));
}

// out: sum, maximum, minimum, the last value exchanged, and how often compare-and-swap took the place of its 0.
GOLF_KERNEL(atomics, 64, 1, const int* in, int* out) {
  GOLF_SHARED(int, local, 1);
  if (threadIdx.x == 0) local[0] = 0;
  __syncthreads();
  const int mine = in[blockIdx.x * 64 + threadIdx.x];
  atomicAdd(local, mine);
  atomicMax(out + 1, mine);
  atomicMin(out + 2, mine);
  atomicExch(out + 3, mine);
  if (atomicCAS(out + 4, 0, mine) == 0) atomicAdd(out + 5, 1);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(out, local[0]);
}

Status run_atomics(void* const* b, int64_t n) {
  return GOLF_LAUNCH(atomics, static_cast<unsigned>(n), 64, 0, nullptr, buffer<int>(b, 0), buffer<int>(b, 1));
}

// A double-buffered sum of rows of 128 floats, each fetched while the one before is added; the last is cut short.
GOLF_KERNEL(fetch, 32, 1, const float* in, float* out, int rows, uint32_t last_valid) {
  GOLF_SHARED(float, rows_in, 2 * 128);
  const uint32_t lane = threadIdx.x;
  const auto request = [&](int row) {
    if (row < rows)
      cp_async(rows_in + (row % 2) * 128 + lane * 4, in + row * 128 + lane * 4, row + 1 < rows ? 16 : last_valid);
    cp_async_commit();
  };
  Floats<4> total{};
  request(0);
  for (int row = 0; row < rows; ++row) {
    request(row + 1);
    cp_async_wait<1>();
    __syncwarp();
    const Pack<float, 4> pack = load<4>(rows_in + (row % 2) * 128 + (31 - lane) * 4);  // another lane's
    for (int i = 0; i < 4; ++i) total.at[i] += pack.at[i];
    __syncwarp();
  }
  store_floats(out + (31 - lane) * 4, total);
}

Status run_fetch(void* const* b, int64_t n) {
  return GOLF_LAUNCH(fetch, 1, 32, 0, nullptr, buffer<float>(b, 0), buffer<float>(b, 1), static_cast<int>(n), 8u);
}

// Every warp notes in what order it came by: the scheduler's choice.
GOLF_KERNEL(arrivals, 256, 1, int* next, int* out) {
  const uint32_t warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) out[blockIdx.x * 8 + warp] = atomicAdd(next, 1);
}

Status run_arrivals(void* const* b, int64_t n) {
  return GOLF_LAUNCH(arrivals, static_cast<unsigned>(n), 256, 0, nullptr, buffer<int>(b, 0), buffer<int>(b, 1));
}

// bf16, f16 and back: out[0..n) = bf16 of in, then f16, then their values.
GOLF_KERNEL(conversions, 128, 1, const float* in, uint16_t* out, float* back, int64_t n) {
  for (int64_t i = blockIdx.x * int64_t{128} + threadIdx.x; i < n; i += gridDim.x * int64_t{128}) {
    const bf16 b = to_bf16(in[i]);
    const f16 h = to_f16(in[i]);
    out[i] = b.bits;
    out[n + i] = h.bits;
    back[i] = to_float(b);
    back[n + i] = to_float(h);
  }
}

Status run_conversions(void* const* b, int64_t n) {
  return GOLF_LAUNCH(conversions, 4, 128, 0, nullptr, buffer<float>(b, 0), buffer<uint16_t>(b, 1), buffer<float>(b, 2),
                     n);
}

// out[0][i], out[1][i]: quotient and remainder of in[i] by n.
GOLF_KERNEL(divisions, 128, 1, const uint32_t* in, uint32_t* out, Division by) {
  const uint32_t i = threadIdx.x;
  out[i] = quotient(in[i], by);
  out[128 + i] = remainder(in[i], by);
}

Status run_divisions(void* const* b, int64_t n) {
  return GOLF_LAUNCH(divisions, 1, 128, 0, nullptr, buffer<uint32_t>(b, 0), buffer<uint32_t>(b, 1), division_by(n));
}

// Four functions of in[0..n), one after the other.
GOLF_KERNEL(functions, 128, 1, const float* in, float* out, int64_t n) {
  for (int64_t i = blockIdx.x * int64_t{128} + threadIdx.x; i < n; i += gridDim.x * int64_t{128}) {
    out[i] = exp2_fast(in[i]);
    out[n + i] = reciprocal_fast(in[i]);
    out[2 * n + i] = tanh_fast(in[i]);
    out[3 * n + i] = tanh_rational(in[i]);
  }
}

Status run_functions(void* const* b, int64_t n) {
  return GOLF_LAUNCH(functions, 4, 128, 0, nullptr, buffer<float>(b, 0), buffer<float>(b, 1), n);
}

constexpr Example kExamples[] = {
    {"coordinates", run_coordinates}, {"shuffles", run_shuffles},   {"votes", run_votes},
    {"reverse", run_reverse},         {"counts", run_counts},       {"pipeline", run_pipeline},
    {"atomics", run_atomics},         {"fetch", run_fetch},         {"arrivals", run_arrivals},
    {"conversions", run_conversions}, {"functions", run_functions}, {"divisions", run_divisions},
};

}  // namespace

Examples semantics() noexcept { return {kExamples, sizeof kExamples / sizeof *kExamples}; }

}  // namespace golf::simt
