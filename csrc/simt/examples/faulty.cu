// Kernels with one fault each (n = 1), which the model must find, and the same kernels without it (n = 0).
#include "device/cuda.h"
#include "device/memory.h"
#include "device/ptx.h"
#include "simt/examples/examples.h"

namespace golf::simt {
namespace {

template <class T>
T* buffer(void* const* buffers, int i) {
  return static_cast<T*>(buffers[i]);
}

// in and out hold 256 floats.
#define GOLF_EXAMPLE(name, threads)                                                                                  \
  Status run_##name(void* const* b, int64_t n) {                                                                     \
    return GOLF_LAUNCH(name, 1, threads, 0, nullptr, buffer<float>(b, 0), buffer<float>(b, 1), static_cast<int>(n)); \
  }

GOLF_KERNEL(missing_barrier, 256, 1, const float* in, float* out, int bad) {
  GOLF_SHARED(float, tile, 256);
  const uint32_t t = threadIdx.x;
  tile[t] = in[t];
  if (bad == 0) __syncthreads();
  out[t] = tile[(t + 37) % 256];
}
GOLF_EXAMPLE(missing_barrier, 256)

// The tile is filled again while others may still read it.
GOLF_KERNEL(missing_second_barrier, 256, 1, const float* in, float* out, int bad) {
  GOLF_SHARED(float, tile, 256);
  const uint32_t t = threadIdx.x;
  float total = 0.0f;
  for (uint32_t round = 0; round < 3; ++round) {
    tile[t] = in[(t + round) % 256];
    __syncthreads();
    total += tile[255 - t];
    if (bad == 0) __syncthreads();
  }
  out[t] = total;
}
GOLF_EXAMPLE(missing_second_barrier, 256)

GOLF_KERNEL(missing_syncwarp, 32, 1, const float* in, float* out, int bad) {
  GOLF_SHARED(float, tile, 32);
  const uint32_t t = threadIdx.x;
  tile[t] = in[t];
  __shfl_sync(kAllLanes, t, 0);  // lanes meet, but memory is not ordered
  if (bad == 0) __syncwarp();
  out[t] = tile[31 - t];
}
GOLF_EXAMPLE(missing_syncwarp, 32)

GOLF_KERNEL(barrier_not_reached, 256, 1, const float* in, float* out, int bad) {
  if (bad == 0 || threadIdx.x != 77) __syncthreads();
  out[threadIdx.x] = in[threadIdx.x];
}
GOLF_EXAMPLE(barrier_not_reached, 256)

GOLF_KERNEL(barriers_mixed_up, 256, 1, const float* in, float* out, int bad) {
  if (bad != 0 && threadIdx.x < 128)
    __syncthreads();
  else
    __syncthreads();
  out[threadIdx.x] = in[threadIdx.x];
}
Status run_barriers_mixed_up(void* const* b, int64_t n) {
  const unsigned threads = n != 0 ? 256 : 128;
  return GOLF_LAUNCH(barriers_mixed_up, 1, threads, 0, nullptr, buffer<float>(b, 0), buffer<float>(b, 1),
                     static_cast<int>(n));
}

GOLF_KERNEL(shared_out_of_bounds, 64, 1, const float* in, float* out, int bad) {
  GOLF_SHARED(float, tile, 64);
  const uint32_t t = threadIdx.x;
  tile[t] = in[t];
  __syncthreads();
  out[t] = tile[t + static_cast<uint32_t>(bad)];
}
GOLF_EXAMPLE(shared_out_of_bounds, 64)

GOLF_KERNEL(global_out_of_bounds, 256, 1, const float* in, float* out, int bad) {
  out[threadIdx.x] = in[threadIdx.x + static_cast<uint32_t>(bad)];
}
GOLF_EXAMPLE(global_out_of_bounds, 256)

GOLF_KERNEL(global_write_out_of_bounds, 256, 1, const float* in, float* out, int bad) {
  out[threadIdx.x + static_cast<uint32_t>(bad)] = in[threadIdx.x];
}
GOLF_EXAMPLE(global_write_out_of_bounds, 256)

GOLF_KERNEL(uninitialized_shared, 64, 1, const float* in, float* out, int bad) {
  GOLF_SHARED(float, tile, 64);
  const uint32_t t = threadIdx.x;
  if (bad == 0 || t != 9) tile[t] = in[t];
  __syncthreads();
  out[t] = tile[63 - t];
}
GOLF_EXAMPLE(uninitialized_shared, 64)

GOLF_KERNEL(shuffle_from_inactive_lane, 32, 1, const float* in, float* out, int bad) {
  const uint32_t t = threadIdx.x;
  float x = in[t];
  if (t < 16) x = __shfl_sync(0x0000ffffu, x, bad != 0 ? static_cast<int>(t) + 1 : 15);
  out[t] = x;
}
GOLF_EXAMPLE(shuffle_from_inactive_lane, 32)

GOLF_KERNEL(shuffle_after_exit, 32, 1, const float* in, float* out, int bad) {
  const uint32_t t = threadIdx.x;
  if (bad != 0 && t == 31) return;
  out[t] = __shfl_xor_sync(kAllLanes, in[t], 1);
}
GOLF_EXAMPLE(shuffle_after_exit, 32)

GOLF_KERNEL(mask_without_caller, 32, 1, const float* in, float* out, int bad) {
  out[threadIdx.x] = __shfl_sync(bad != 0 ? 0x0000ffffu : kAllLanes, in[threadIdx.x], 0);
}
GOLF_EXAMPLE(mask_without_caller, 32)

GOLF_KERNEL(misaligned_load, 32, 1, const float* in, float* out, int bad) {
  const Pack<float, 4> pack = load<4>(in + threadIdx.x * 4 + bad);
  store(out + threadIdx.x * 4, pack);
}
GOLF_EXAMPLE(misaligned_load, 32)

GOLF_KERNEL(misaligned_cast, 32, 1, const float* in, float* out, int bad) {
  *reinterpret_cast<uint4*>(out + threadIdx.x * 4) = *reinterpret_cast<const uint4*>(in + threadIdx.x * 4 + bad);
}
GOLF_EXAMPLE(misaligned_cast, 32)

GOLF_KERNEL(copy_not_awaited, 32, 1, const float* in, float* out, int bad) {
  GOLF_SHARED(float, tile, 128);
  const uint32_t t = threadIdx.x;
  cp_async(tile + t * 4, in + t * 4);
  cp_async_commit();
  if (bad == 0) cp_async_wait<0>();
  __syncwarp();
  out[t] = tile[127 - t];
}
GOLF_EXAMPLE(copy_not_awaited, 32)

// A thread's own wait says nothing of what another thread fetched.
GOLF_KERNEL(copy_without_barrier, 64, 1, const float* in, float* out, int bad) {
  GOLF_SHARED(float, tile, 256);
  const uint32_t t = threadIdx.x;
  cp_async(tile + t * 4, in + t * 4);
  cp_async_commit();
  if (bad != 0) __syncthreads();
  cp_async_wait<0>();
  if (bad == 0) __syncthreads();
  out[t] = tile[255 - t];
}
GOLF_EXAMPLE(copy_without_barrier, 64)

GOLF_KERNEL(atomic_and_plain, 64, 1, const float* in, float* out, int bad) {
  GOLF_SHARED(float, total, 1);
  if (threadIdx.x == 0) total[0] = 0.0f;
  __syncthreads();
  if (bad != 0 && threadIdx.x == 40)
    total[0] += 1.0f;
  else
    atomicAdd(total, 1.0f);
  __syncthreads();
  out[threadIdx.x] = total[0] + 0.0f * in[0];
}
GOLF_EXAMPLE(atomic_and_plain, 64)

GOLF_KERNEL(launch_bounds, 64, 1, const float* in, float* out, int) { out[threadIdx.x] = in[threadIdx.x]; }
Status run_launch_bounds(void* const* b, int64_t n) {
  return GOLF_LAUNCH(launch_bounds, 1, n != 0 ? 96u : 64u, 0, nullptr, buffer<float>(b, 0), buffer<float>(b, 1), 0);
}

GOLF_KERNEL(named_barrier_count, 96, 1, const float* in, float* out, int bad) {
  if (threadIdx.x < 64) barrier_sync(1, bad != 0 && threadIdx.x < 32 ? 32 : 64);
  out[threadIdx.x] = in[threadIdx.x];
}
GOLF_EXAMPLE(named_barrier_count, 96)

GOLF_KERNEL(too_much_static_shared, 32, 1, const float* in, float* out, int bad) {
  if (bad != 0) {
    GOLF_SHARED(float, tile, 16000);
    tile[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = tile[threadIdx.x];
    return;
  }
  out[threadIdx.x] = in[threadIdx.x];
}
GOLF_EXAMPLE(too_much_static_shared, 32)

#define GOLF_ROW(name) {#name, run_##name}
constexpr Example kExamples[] = {
    GOLF_ROW(missing_barrier),
    GOLF_ROW(missing_second_barrier),
    GOLF_ROW(missing_syncwarp),
    GOLF_ROW(barrier_not_reached),
    GOLF_ROW(barriers_mixed_up),
    GOLF_ROW(shared_out_of_bounds),
    GOLF_ROW(global_out_of_bounds),
    GOLF_ROW(global_write_out_of_bounds),
    GOLF_ROW(uninitialized_shared),
    GOLF_ROW(shuffle_after_exit),
    GOLF_ROW(shuffle_from_inactive_lane),
    GOLF_ROW(mask_without_caller),
    GOLF_ROW(misaligned_load),
    GOLF_ROW(misaligned_cast),
    GOLF_ROW(copy_not_awaited),
    GOLF_ROW(copy_without_barrier),
    GOLF_ROW(atomic_and_plain),
    GOLF_ROW(launch_bounds),
    GOLF_ROW(named_barrier_count),
    GOLF_ROW(too_much_static_shared),
};

}  // namespace

Examples faulty() noexcept { return {kExamples, sizeof kExamples / sizeof *kExamples}; }

}  // namespace golf::simt
