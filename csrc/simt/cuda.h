// CUDA's names for a kernel's source that is compiled for the host. Included by device/cuda.h, never by a kernel.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>
#include <typeinfo>

#include "simt/runtime.h"

#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__ __restrict

using golf::simt::dim3;
using golf::simt::uint3;

// As kernels use them, to move bytes of another type.
struct __attribute__((may_alias, aligned(8))) uint2 {
  uint32_t x, y;
};
struct __attribute__((may_alias, aligned(16))) uint4 {
  uint32_t x, y, z, w;
};

#define threadIdx (::golf::simt::self().thread_idx)
#define blockIdx (::golf::simt::self().block_idx)
#define blockDim (::golf::simt::self().block_dim)
#define gridDim (::golf::simt::self().grid_dim)
constexpr int warpSize = 32;

namespace golf::simt {

// The first parameter of a kernel on the host: its launch bounds, where the launch can read them.
template <uint32_t kMaxThreads>
struct Bounds {};

template <auto kKernel>
struct Kernel;
template <class T>
struct Tag {};
// A kernel's name with its template's arguments, inside that of a type and mangled: what the compiler tells of it
// wherever the launch stands, in a lambda of a template too.
template <auto kKernel>
const char* instance() noexcept {
  return typeid(Tag<Kernel<kKernel>>).name();
}

// Copies the arguments to where all threads of the grid may read them, as a launch does.
template <uint32_t kMaxThreads, class... Parameters, class... Arguments>
Status launch(const Source& source, void (*kernel)(Bounds<kMaxThreads>, Parameters...), dim3 grid, dim3 block,
              size_t dynamic_shared, Arguments... arguments) noexcept {
  const auto call = [kernel, arguments...] { kernel(Bounds<kMaxThreads>{}, arguments...); };
  return run_grid({source, grid, block, dynamic_shared, kMaxThreads}, &call, sizeof call,
                  [](const void* opaque) { (*static_cast<const decltype(call)*>(opaque))(); });
}

template <class T, class Tag>
T* shared_of(size_t count) noexcept {
  static const char key = 0;
  return static_cast<T*>(shared_array(&key, count * sizeof(T), alignof(T) < 16 ? 16 : alignof(T)));
}

template <class T>
uint64_t to_bits(T value) noexcept {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value);
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T from_bits(uint64_t bits) noexcept {
  T value;
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

struct Exchange {
  uint64_t mine, result;
  uint32_t source;
};

inline void exchange(const Payloads& lanes) {
  for (uint32_t lane = 0; lane < kWarp; ++lane) {
    if (!lanes.has(lane)) continue;
    Exchange& e = *static_cast<Exchange*>(lanes.of[lane]);
    if (!lanes.has(e.source)) fail_lane(lane, "shuffle from a lane that the mask leaves out");
    e.result = static_cast<Exchange*>(lanes.of[e.source])->mine;
  }
}

template <class T>
T shuffle(const char* name, uint32_t mask, T value, uint32_t source, int line) noexcept {
  Exchange e{to_bits(value), 0, source};
  meet(name, mask, &e, exchange, line);
  return from_bits<T>(e.result);
}

struct Vote {
  uint32_t mine, result;
};

// Each lane gets fold() over all lanes' numbers.
template <class Fold>
uint32_t vote(const char* name, uint32_t mask, uint32_t mine, int line) noexcept {
  Vote v{mine, 0};
  meet(
      name, mask, &v,
      [](const Payloads& lanes) {
        uint32_t result = Fold::kStart;
        for (uint32_t lane = 0; lane < kWarp; ++lane)
          if (lanes.has(lane)) result = Fold::next(result, static_cast<Vote*>(lanes.of[lane])->mine, lane);
        for (uint32_t lane = 0; lane < kWarp; ++lane)
          if (lanes.has(lane)) static_cast<Vote*>(lanes.of[lane])->result = result;
      },
      line);
  return v.result;
}

struct FoldBallot {
  static constexpr uint32_t kStart = 0;
  static uint32_t next(uint32_t all, uint32_t mine, uint32_t lane) { return all | (mine != 0 ? 1u << lane : 0); }
};
struct FoldAdd {
  static constexpr uint32_t kStart = 0;
  static uint32_t next(uint32_t all, uint32_t mine, uint32_t) { return all + mine; }
};
struct FoldOr {
  static constexpr uint32_t kStart = 0;
  static uint32_t next(uint32_t all, uint32_t mine, uint32_t) { return all | mine; }
};
struct FoldAnd {
  static constexpr uint32_t kStart = kFullMask;
  static uint32_t next(uint32_t all, uint32_t mine, uint32_t) { return all & mine; }
};
struct FoldMax {
  static constexpr uint32_t kStart = 0;
  static uint32_t next(uint32_t all, uint32_t mine, uint32_t) { return all > mine ? all : mine; }
};
struct FoldMin {
  static constexpr uint32_t kStart = kFullMask;
  static uint32_t next(uint32_t all, uint32_t mine, uint32_t) { return all < mine ? all : mine; }
};

// Old value of *p; the access is checked as an atomic one. change(old) is the new value.
template <class T, class Change>
T atomic(T* p, const Change& change) noexcept {
  check_access(p, sizeof(T), Access::kAtomic);
  T old = from_bits<T>(atomic_load(p, sizeof(T)));
  while (!atomic_exchange_if(p, sizeof(T), to_bits(old), to_bits(change(old))))
    old = from_bits<T>(atomic_load(p, sizeof(T)));
  return old;
}

}  // namespace golf::simt

#define GOLF_LINE int line = __builtin_LINE()

template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32, GOLF_LINE) {
  const uint32_t lane = golf::simt::self().lane, inside = static_cast<uint32_t>(width) - 1;
  return golf::simt::shuffle("__shfl_sync", mask, value, (lane & ~inside) | (static_cast<uint32_t>(source) & inside),
                             line);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, uint32_t delta, int width = 32, GOLF_LINE) {
  const uint32_t lane = golf::simt::self().lane, place = lane & (static_cast<uint32_t>(width) - 1);
  return golf::simt::shuffle("__shfl_up_sync", mask, value, delta > place ? lane : lane - delta, line);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, uint32_t delta, int width = 32, GOLF_LINE) {
  const uint32_t lane = golf::simt::self().lane, place = lane & (static_cast<uint32_t>(width) - 1);
  const bool stays = place + delta >= static_cast<uint32_t>(width);
  return golf::simt::shuffle("__shfl_down_sync", mask, value, stays ? lane : lane + delta, line);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32, GOLF_LINE) {
  const uint32_t lane = golf::simt::self().lane, last = lane | (static_cast<uint32_t>(width) - 1);
  const uint32_t source = lane ^ static_cast<uint32_t>(lane_mask);
  return golf::simt::shuffle("__shfl_xor_sync", mask, value, source > last ? lane : source, line);
}

inline uint32_t __ballot_sync(uint32_t mask, int predicate, GOLF_LINE) {
  return golf::simt::vote<golf::simt::FoldBallot>("__ballot_sync", mask, predicate != 0, line);
}
inline int __any_sync(uint32_t mask, int predicate, GOLF_LINE) {
  return golf::simt::vote<golf::simt::FoldOr>("__any_sync", mask, predicate != 0, line) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, GOLF_LINE) {
  return golf::simt::vote<golf::simt::FoldAnd>("__all_sync", mask, predicate != 0, line) != 0;
}
inline uint32_t __reduce_add_sync(uint32_t mask, uint32_t value, GOLF_LINE) {
  return golf::simt::vote<golf::simt::FoldAdd>("__reduce_add_sync", mask, value, line);
}
inline uint32_t __reduce_max_sync(uint32_t mask, uint32_t value, GOLF_LINE) {
  return golf::simt::vote<golf::simt::FoldMax>("__reduce_max_sync", mask, value, line);
}
inline uint32_t __reduce_min_sync(uint32_t mask, uint32_t value, GOLF_LINE) {
  return golf::simt::vote<golf::simt::FoldMin>("__reduce_min_sync", mask, value, line);
}
inline uint32_t __reduce_or_sync(uint32_t mask, uint32_t value, GOLF_LINE) {
  return golf::simt::vote<golf::simt::FoldOr>("__reduce_or_sync", mask, value, line);
}
inline uint32_t __reduce_and_sync(uint32_t mask, uint32_t value, GOLF_LINE) {
  return golf::simt::vote<golf::simt::FoldAnd>("__reduce_and_sync", mask, value, line);
}

inline void __syncwarp(uint32_t mask = golf::simt::kFullMask, GOLF_LINE) { golf::simt::sync_warp(mask, line); }
inline void __syncthreads(GOLF_LINE) { golf::simt::sync_block(false, line); }
inline int __syncthreads_count(int predicate, GOLF_LINE) {
  return static_cast<int>(golf::simt::sync_block(predicate != 0, line));
}
inline int __syncthreads_or(int predicate, GOLF_LINE) { return golf::simt::sync_block(predicate != 0, line) != 0; }
inline int __syncthreads_and(int predicate, GOLF_LINE) { return golf::simt::sync_block(predicate == 0, line) == 0; }
inline void __threadfence() {}  // each atomic is sequentially consistent; plain accesses across blocks are not modeled

template <class T>
T atomicAdd(T* p, T value) {
  return golf::simt::atomic(p, [value](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* p, T value) {
  return golf::simt::atomic(p, [value](T old) { return old > value ? old : value; });
}
template <class T>
T atomicMin(T* p, T value) {
  return golf::simt::atomic(p, [value](T old) { return old < value ? old : value; });
}
template <class T>
T atomicExch(T* p, T value) {
  return golf::simt::atomic(p, [value](T) { return value; });
}
template <class T>
T atomicCAS(T* p, T expected, T value) {
  return golf::simt::atomic(p, [expected, value](T old) { return old == expected ? value : old; });
}

template <class T>
T __ldg(const T* p) {
  golf::simt::check_global(p, "__ldg");
  return *p;
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline uint32_t __float_as_uint(float x) { return golf::simt::from_bits<uint32_t>(golf::simt::to_bits(x)); }
inline float __uint_as_float(uint32_t x) { return golf::simt::from_bits<float>(x); }
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<uint32_t>(x)); }

#undef GOLF_LINE
