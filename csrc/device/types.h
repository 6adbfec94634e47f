// bf16 and f16 as bits, with the conversions of the hardware: to nearest even; NaN becomes the canonical NaN 0x7fff.
#pragma once

#include "device/cuda.h"

namespace golf {

struct f16 {
  uint16_t bits;
};

GOLF_DEVICE float to_float(float x) { return x; }
GOLF_DEVICE float to_float(bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }

// The lower and the upper half of two packed bf16.
GOLF_DEVICE float low_float(uint32_t pair) { return __uint_as_float(pair << 16); }
GOLF_DEVICE float high_float(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

#if GOLF_SIMT

inline bf16 to_bf16(float x) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}

inline uint32_t to_bf16x2(float low, float high) {
  return to_bf16(low).bits | static_cast<uint32_t>(to_bf16(high).bits) << 16;
}

inline float to_float(f16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16, rest = x.bits & 0x7fffu;
  if (rest >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | (rest & 0x3ffu) << 13);  // infinity, NaN
  if (rest >= 0x400u) return __uint_as_float(sign | ((rest << 13) + (112u << 23)));
  return __uint_as_float(sign | __float_as_uint(static_cast<float>(rest) * 0x1p-24f));  // subnormal
}

inline f16 to_f16(float x) {
  const uint32_t bits = __float_as_uint(x), rest = bits & 0x7fffffffu, sign = bits >> 16 & 0x8000u;
  if (rest > 0x7f800000u) return {0x7fff};
  if (rest >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // rounds to 2^16 or more
  if (rest < 0x38800000u) {  // below 2^-14: a whole number of 2^-24, rounded by the addition
    const float shifted = __uint_as_float(rest) + 0.5f;
    return {static_cast<uint16_t>(sign | (__float_as_uint(shifted) - 0x3f000000u))};
  }
  const uint32_t rounded = rest + 0xfffu + (rest >> 13 & 1);
  return {static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13))};
}

#else

GOLF_DEVICE bf16 to_bf16(float x) {
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

GOLF_DEVICE uint32_t to_bf16x2(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

GOLF_DEVICE float to_float(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

GOLF_DEVICE f16 to_f16(float x) {
  f16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

#endif

template <class T>
GOLF_DEVICE T from_float(float x);
template <>
GOLF_DEVICE float from_float<float>(float x) {
  return x;
}
template <>
GOLF_DEVICE bf16 from_float<bf16>(float x) {
  return to_bf16(x);
}
template <>
GOLF_DEVICE f16 from_float<f16>(float x) {
  return to_f16(x);
}

}  // namespace golf
