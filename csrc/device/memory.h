// Vector loads and stores. A pack is a power of two of bytes up to 16 and lies at a multiple of its size.
#pragma once

#include "device/cuda.h"
#include "device/types.h"

namespace golf {

template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  static_assert(sizeof(T) * kCount <= 16 && (kCount & (kCount - 1)) == 0);
  T at[kCount];
};

// As many as 16 bytes hold.
template <class T>
constexpr int kVector = 16 / sizeof(T);

template <int kBytes>
struct Word;
template <>
struct Word<2> {
  using Type = uint16_t;
};
template <>
struct Word<4> {
  using Type = uint32_t;
};
template <>
struct Word<8> {
  using Type = uint2;
};
template <>
struct Word<16> {
  using Type = uint4;
};

// One instruction. `p` may lie in shared or in global memory.
template <int kCount, class T>
GOLF_DEVICE Pack<T, kCount> load(const T* p) {
  using Raw = typename Word<sizeof(T) * kCount>::Type;
  const Raw raw = *reinterpret_cast<const Raw*>(p);
  Pack<T, kCount> pack;
  __builtin_memcpy(&pack, &raw, sizeof raw);
  return pack;
}

// Of global memory that the kernel never writes, through the read-only path.
template <int kCount, class T>
GOLF_DEVICE Pack<T, kCount> load_constant(const T* p) {
  using Raw = typename Word<sizeof(T) * kCount>::Type;
  const Raw raw = __ldg(reinterpret_cast<const Raw*>(p));
  Pack<T, kCount> pack;
  __builtin_memcpy(&pack, &raw, sizeof raw);
  return pack;
}

template <int kCount, class T>
GOLF_DEVICE void store(T* p, const Pack<T, kCount>& pack) {
  using Raw = typename Word<sizeof(T) * kCount>::Type;
  Raw raw;
  __builtin_memcpy(&raw, &pack, sizeof raw);
  *reinterpret_cast<Raw*>(p) = raw;
}

// The numbers of a pack in f32.
template <int kCount>
struct Floats {
  float at[kCount];
};

// kCount numbers in as few instructions as 16 bytes each allow. load_floats() takes the read-only path, which must not
// see what the kernel itself has written; load_own_floats() may.
template <int kCount, bool kConstant = true, class T>
GOLF_DEVICE Floats<kCount> load_floats(const T* p) {
  constexpr int kPart = kCount < kVector<T> ? kCount : kVector<T>;
  Floats<kCount> out;
#pragma unroll
  for (int part = 0; part < kCount / kPart; ++part) {
    const Pack<T, kPart> pack = kConstant ? load_constant<kPart>(p + part * kPart) : load<kPart>(p + part * kPart);
#pragma unroll
    for (int i = 0; i < kPart; ++i) out.at[part * kPart + i] = to_float(pack.at[i]);
  }
  return out;
}

template <int kCount, class T>
GOLF_DEVICE Floats<kCount> load_own_floats(const T* p) {
  return load_floats<kCount, false>(p);
}

template <int kCount, class T>
GOLF_DEVICE void store_floats(T* p, const Floats<kCount>& in) {
  constexpr int kPart = kCount < kVector<T> ? kCount : kVector<T>;
#pragma unroll
  for (int part = 0; part < kCount / kPart; ++part) {
    Pack<T, kPart> pack;
#pragma unroll
    for (int i = 0; i < kPart; ++i) pack.at[i] = from_float<T>(in.at[part * kPart + i]);
    store(p + part * kPart, pack);
  }
}

// Whether an address and a distance (in bytes) allow accesses of kBytes.
template <int kBytes>
inline bool aligned(const void* p, int64_t stride = 0) noexcept {
  return reinterpret_cast<uintptr_t>(p) % kBytes == 0 && stride % kBytes == 0;
}

}  // namespace golf
