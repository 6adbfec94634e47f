// One vector of floats, as wide as the file's instruction set: 16 lanes (AVX-512), 8 (AVX2; NEON, a pair of registers)
// or 1 (elsewhere).
//
// For <op>_body.h files only. Each file of an instruction set defines GOLF_ISA_NS and includes its operation's body, so
// everything here gets that namespace and the linker can never hand the AVX-512 copy of a function to another level.
// Files for NEON define GOLF_NEON besides: every 64-bit Arm compiler has NEON, the scalar level's among them.
// Loads widen bf16 to f32, stores round to nearest even; *_n take the first n lanes (0 <= n <= kLanes) and neither read
// nor write beyond them; lanes past n load as zero.
#pragma once

#ifndef GOLF_ISA_NS
#error "define GOLF_ISA_NS before including vec.h"
#endif

#include "golf.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(GOLF_NEON)
#include <arm_neon.h>
#endif

// Vectors of more than one lane.
#if defined(__AVX2__) || defined(GOLF_NEON)
#define GOLF_VECTORS
#endif
// Products of pairs of bf16 numbers, summed in f32.
#if defined(__AVX512BF16__) || (defined(GOLF_NEON) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC))
#define GOLF_BF16_PAIRS
#endif

#define GOLF_INLINE static inline __attribute__((always_inline))

namespace golf {
namespace GOLF_ISA_NS {

GOLF_INLINE float bits_to_float(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

GOLF_INLINE float to_float(float x) { return x; }
GOLF_INLINE float to_float(bf16 x) { return bits_to_float(static_cast<uint32_t>(x.bits) << 16); }

GOLF_INLINE void put(float* p, float x) { *p = x; }
GOLF_INLINE void put(bf16* p, float x) {
  uint32_t u;
  __builtin_memcpy(&u, &x, 4);
  // The carry of the rounding would turn some NaNs into zeros.
  p->bits = static_cast<uint16_t>(x != x ? (u >> 16) | 0x40 : (u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

#if defined(__AVX512F__)

constexpr int kLanes = 16;
using V = __m512;

GOLF_INLINE V zero() { return _mm512_setzero_ps(); }
GOLF_INLINE V set1(float x) { return _mm512_set1_ps(x); }
GOLF_INLINE V add(V a, V b) { return _mm512_add_ps(a, b); }
GOLF_INLINE V sub(V a, V b) { return _mm512_sub_ps(a, b); }
GOLF_INLINE V mul(V a, V b) { return _mm512_mul_ps(a, b); }
GOLF_INLINE V div(V a, V b) { return _mm512_div_ps(a, b); }
GOLF_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }    // a b + c
GOLF_INLINE V fnma(V a, V b, V c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a b
GOLF_INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }              // b where either is NaN
GOLF_INLINE V sqrt(V a) { return _mm512_sqrt_ps(a); }
GOLF_INLINE float sum(V a) { return _mm512_reduce_add_ps(a); }

// Lane i of the result is the sum of rows[i]: 45 instructions for 16 sums, where sum() takes about 10 for each.
GOLF_INLINE V pair_sums(V a, V b) { return add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); }
GOLF_INLINE V quad_sums(const V* rows) {
  const __m512d a = _mm512_castps_pd(pair_sums(rows[0], rows[1])), b = _mm512_castps_pd(pair_sums(rows[2], rows[3]));
  return add(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
}
GOLF_INLINE V sum_each(const V (&rows)[kLanes]) {
  const V a = quad_sums(rows), b = quad_sums(rows + 4), c = quad_sums(rows + 8), d = quad_sums(rows + 12);
  const V ab = add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  const V cd = add(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
  return add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}

GOLF_INLINE __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1); }
GOLF_INLINE V widen(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
GOLF_INLINE __m256i narrow(V x) {
#if defined(__AVX512BF16__)
  return (__m256i)_mm512_cvtneps_pbh(x);
#else
  const __m512i u = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i kept = _mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
#endif
}

GOLF_INLINE V round_bf16(V x) { return widen(narrow(x)); }
GOLF_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
GOLF_INLINE V load(const bf16* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
GOLF_INLINE V load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
GOLF_INLINE V load_n(const bf16* p, int n) { return widen(_mm256_maskz_loadu_epi16(first(n), p)); }
GOLF_INLINE void store(float* p, V x) { _mm512_storeu_ps(p, x); }
GOLF_INLINE void store(bf16* p, V x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x)); }
GOLF_INLINE void stream(bf16* p, V x) { _mm256_stream_si256(reinterpret_cast<__m256i*>(p), narrow(x)); }
GOLF_INLINE void store_n(float* p, V x, int n) { _mm512_mask_storeu_ps(p, first(n), x); }
GOLF_INLINE void store_n(bf16* p, V x, int n) { _mm256_mask_storeu_epi16(p, first(n), narrow(x)); }

// Transposes a kLanes x kLanes block of four-byte units.
GOLF_INLINE void transpose_block(const void* src, int64_t src_stride, void* dst, int64_t dst_stride) {
  const int32_t* s = static_cast<const int32_t*>(src);
  int32_t* d = static_cast<int32_t*>(dst);
  __m512i a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(s + i * src_stride);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
    b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      a[4 * i + 2 * h] = _mm512_unpacklo_epi64(b[4 * i + h], b[4 * i + 2 + h]);
      a[4 * i + 2 * h + 1] = _mm512_unpackhi_epi64(b[4 * i + h], b[4 * i + 2 + h]);
    }
  }
  // a[4 i + c] holds column 4 g + c of rows 4 i .. 4 i + 3 in its 128-bit group g.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i even_low = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x88);
    const __m512i even_high = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x88);
    const __m512i odd_low = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xdd);
    const __m512i odd_high = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xdd);
    _mm512_storeu_si512(d + c * dst_stride, _mm512_shuffle_i32x4(even_low, even_high, 0x88));
    _mm512_storeu_si512(d + (4 + c) * dst_stride, _mm512_shuffle_i32x4(odd_low, odd_high, 0x88));
    _mm512_storeu_si512(d + (8 + c) * dst_stride, _mm512_shuffle_i32x4(even_low, even_high, 0xdd));
    _mm512_storeu_si512(d + (12 + c) * dst_stride, _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd));
  }
}

#elif defined(__AVX2__)

constexpr int kLanes = 8;
using V = __m256;

GOLF_INLINE V zero() { return _mm256_setzero_ps(); }
GOLF_INLINE V set1(float x) { return _mm256_set1_ps(x); }
GOLF_INLINE V add(V a, V b) { return _mm256_add_ps(a, b); }
GOLF_INLINE V sub(V a, V b) { return _mm256_sub_ps(a, b); }
GOLF_INLINE V mul(V a, V b) { return _mm256_mul_ps(a, b); }
GOLF_INLINE V div(V a, V b) { return _mm256_div_ps(a, b); }
GOLF_INLINE V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
GOLF_INLINE V fnma(V a, V b, V c) { return _mm256_fnmadd_ps(a, b, c); }
GOLF_INLINE V max(V a, V b) { return _mm256_max_ps(a, b); }
GOLF_INLINE V sqrt(V a) { return _mm256_sqrt_ps(a); }
GOLF_INLINE float sum(V a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

GOLF_INLINE V pair_sums(V a, V b) { return add(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)); }
GOLF_INLINE V quad_sums(const V* rows) {
  const __m256d a = _mm256_castps_pd(pair_sums(rows[0], rows[1])), b = _mm256_castps_pd(pair_sums(rows[2], rows[3]));
  return add(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
}
GOLF_INLINE V sum_each(const V (&rows)[kLanes]) {
  const V a = quad_sums(rows), b = quad_sums(rows + 4);
  return add(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

GOLF_INLINE __m256i first(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
GOLF_INLINE V widen(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
GOLF_INLINE __m128i narrow(V x) {
  const __m256i u = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i kept = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
}

GOLF_INLINE V round_bf16(V x) { return widen(narrow(x)); }
GOLF_INLINE V load(const float* p) { return _mm256_loadu_ps(p); }
GOLF_INLINE V load(const bf16* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
GOLF_INLINE V load_n(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
GOLF_INLINE V load_n(const bf16* p, int n) {
  bf16 whole[kLanes] = {};
  __builtin_memcpy(whole, p, static_cast<size_t>(n) * sizeof(bf16));
  return load(whole);
}
GOLF_INLINE void store(float* p, V x) { _mm256_storeu_ps(p, x); }
GOLF_INLINE void store(bf16* p, V x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(x)); }
GOLF_INLINE void stream(bf16* p, V x) { _mm_stream_si128(reinterpret_cast<__m128i*>(p), narrow(x)); }
GOLF_INLINE void store_n(float* p, V x, int n) { _mm256_maskstore_ps(p, first(n), x); }
GOLF_INLINE void store_n(bf16* p, V x, int n) {
  bf16 whole[kLanes];
  store(whole, x);
  __builtin_memcpy(p, whole, static_cast<size_t>(n) * sizeof(bf16));
}

GOLF_INLINE void transpose_block(const void* src, int64_t src_stride, void* dst, int64_t dst_stride) {
  const float* s = static_cast<const float*>(src);
  float* d = static_cast<float*>(dst);
  V a[8], b[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(s + i * src_stride);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    b[2 * i] = _mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
    b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      a[4 * i + 2 * h] = _mm256_shuffle_ps(b[4 * i + h], b[4 * i + 2 + h], 0x44);
      a[4 * i + 2 * h + 1] = _mm256_shuffle_ps(b[4 * i + h], b[4 * i + 2 + h], 0xee);
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    _mm256_storeu_ps(d + c * dst_stride, _mm256_permute2f128_ps(a[c], a[4 + c], 0x20));
    _mm256_storeu_ps(d + (4 + c) * dst_stride, _mm256_permute2f128_ps(a[c], a[4 + c], 0x31));
  }
}

#elif defined(GOLF_NEON)

// A pair of registers: as many sums at a time as AVX2 holds in one, and a bf16 vector of this width fills a register.
constexpr int kLanes = 8;
struct V {
  float32x4_t low, high;
};

GOLF_INLINE V zero() { return {vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)}; }
GOLF_INLINE V set1(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x)}; }
GOLF_INLINE V add(V a, V b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
GOLF_INLINE V sub(V a, V b) { return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
GOLF_INLINE V mul(V a, V b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
GOLF_INLINE V div(V a, V b) { return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)}; }
GOLF_INLINE V fma(V a, V b, V c) { return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)}; }
GOLF_INLINE V fnma(V a, V b, V c) { return {vfmsq_f32(c.low, a.low, b.low), vfmsq_f32(c.high, a.high, b.high)}; }
// The processor's own maximum would give NaN where either is.
GOLF_INLINE float32x4_t greater(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
GOLF_INLINE V max(V a, V b) { return {greater(a.low, b.low), greater(a.high, b.high)}; }
GOLF_INLINE V sqrt(V a) { return {vsqrtq_f32(a.low), vsqrtq_f32(a.high)}; }
GOLF_INLINE float sum(V a) { return vaddvq_f32(vaddq_f32(a.low, a.high)); }

GOLF_INLINE float32x4_t quad_sums(const V* rows) {
  const float32x4_t a = vaddq_f32(rows[0].low, rows[0].high), b = vaddq_f32(rows[1].low, rows[1].high);
  const float32x4_t c = vaddq_f32(rows[2].low, rows[2].high), d = vaddq_f32(rows[3].low, rows[3].high);
  return vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
}
GOLF_INLINE V sum_each(const V (&rows)[kLanes]) { return {quad_sums(rows), quad_sums(rows + 4)}; }

GOLF_INLINE V widen(uint16x8_t h) {  // zeros below each half: little-endian, as all systems we build on
  const uint16x8_t none = vdupq_n_u16(0);
  return {vreinterpretq_f32_u16(vzip1q_u16(none, h)), vreinterpretq_f32_u16(vzip2q_u16(none, h))};
}
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
GOLF_INLINE uint16x8_t narrow(V x) {
  return vreinterpretq_u16_bf16(vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(x.low), x.high));
}
#else
GOLF_INLINE uint32x4_t rounded_bits(float32x4_t x) {  // in the upper halves
  const uint32x4_t u = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), odd);
  return vbslq_u32(vceqq_f32(x, x), rounded, vorrq_u32(u, vdupq_n_u32(0x400000)));
}
GOLF_INLINE uint16x8_t narrow(V x) {
  return vshrn_high_n_u32(vshrn_n_u32(rounded_bits(x.low), 16), rounded_bits(x.high), 16);
}
#endif

GOLF_INLINE V round_bf16(V x) { return widen(narrow(x)); }
GOLF_INLINE V load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
GOLF_INLINE V load(const bf16* p) { return widen(vld1q_u16(&p->bits)); }
template <class T>
GOLF_INLINE V load_n(const T* p, int n) {
  T whole[kLanes] = {};
  __builtin_memcpy(whole, p, static_cast<size_t>(n) * sizeof(T));
  return load(whole);
}
GOLF_INLINE void store(float* p, V x) {
  vst1q_f32(p, x.low);
  vst1q_f32(p + 4, x.high);
}
GOLF_INLINE void store(bf16* p, V x) { vst1q_u16(&p->bits, narrow(x)); }
GOLF_INLINE void stream(bf16* p, V x) { store(p, x); }  // has no such instruction for one register
template <class T>
GOLF_INLINE void store_n(T* p, V x, int n) {
  T whole[kLanes];
  store(whole, x);
  __builtin_memcpy(p, whole, static_cast<size_t>(n) * sizeof(T));
}

GOLF_INLINE void transpose_quarter(const float* s, int64_t src_stride, float* d, int64_t dst_stride) {
  const float32x4_t a = vld1q_f32(s), b = vld1q_f32(s + src_stride);
  const float32x4_t c = vld1q_f32(s + 2 * src_stride), e = vld1q_f32(s + 3 * src_stride);
  const float32x4_t ac0 = vzip1q_f32(a, c), ac1 = vzip2q_f32(a, c), be0 = vzip1q_f32(b, e), be1 = vzip2q_f32(b, e);
  vst1q_f32(d, vzip1q_f32(ac0, be0));
  vst1q_f32(d + dst_stride, vzip2q_f32(ac0, be0));
  vst1q_f32(d + 2 * dst_stride, vzip1q_f32(ac1, be1));
  vst1q_f32(d + 3 * dst_stride, vzip2q_f32(ac1, be1));
}
GOLF_INLINE void transpose_block(const void* src, int64_t src_stride, void* dst, int64_t dst_stride) {
  const float* s = static_cast<const float*>(src);
  float* d = static_cast<float*>(dst);
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 8; j += 4)
      transpose_quarter(s + i * src_stride + j, src_stride, d + j * dst_stride + i, dst_stride);
}

#else

constexpr int kLanes = 1;
using V = float;

GOLF_INLINE V zero() { return 0.0f; }
GOLF_INLINE V set1(float x) { return x; }
GOLF_INLINE V add(V a, V b) { return a + b; }
GOLF_INLINE V sub(V a, V b) { return a - b; }
GOLF_INLINE V mul(V a, V b) { return a * b; }
GOLF_INLINE V div(V a, V b) { return a / b; }
GOLF_INLINE V fma(V a, V b, V c) { return a * b + c; }
GOLF_INLINE V fnma(V a, V b, V c) { return c - a * b; }
GOLF_INLINE V max(V a, V b) { return a > b ? a : b; }
GOLF_INLINE V sqrt(V a) { return __builtin_sqrtf(a); }
GOLF_INLINE float sum(V a) { return a; }
GOLF_INLINE V sum_each(const V (&rows)[kLanes]) { return rows[0]; }

GOLF_INLINE V round_bf16(V x) {
  bf16 h;
  put(&h, x);
  return to_float(h);
}

template <class T>
GOLF_INLINE V load(const T* p) {
  return to_float(*p);
}
template <class T>
GOLF_INLINE V load_n(const T* p, int n) {
  return n > 0 ? to_float(*p) : 0.0f;
}
template <class T>
GOLF_INLINE void store(T* p, V x) {
  put(p, x);
}
GOLF_INLINE void stream(bf16* p, V x) { put(p, x); }
template <class T>
GOLF_INLINE void store_n(T* p, V x, int n) {
  if (n > 0) put(p, x);
}

#endif

// x as a T would hold it.
template <class T>
GOLF_INLINE V rounded(V x) {
  if (sizeof(T) == sizeof(float)) return x;
  return round_bf16(x);
}

// stream() stores past the caches, without reading the line first: for what is not read soon. p must be aligned to the
// vector's bytes, and finish_streams() come before another thread may read.
GOLF_INLINE bool can_stream(const bf16* p) { return reinterpret_cast<uintptr_t>(p) % (kLanes * sizeof(bf16)) == 0; }
GOLF_INLINE void finish_streams() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

GOLF_INLINE float root(float x) { return __builtin_sqrtf(x); }

// fn(i, lanes) over [0, n) in steps of kLanes: whole vectors (lanes == kLanes, known to the compiler), then the tail.
template <class Fn>
GOLF_INLINE void for_lanes(int64_t n, Fn&& fn) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) fn(i, kLanes);
  if (i < n) fn(i, static_cast<int>(n - i));
}
template <class T>
GOLF_INLINE V load_lanes(const T* p, int lanes) {
  return lanes == kLanes ? load(p) : load_n(p, lanes);
}
template <class T>
GOLF_INLINE void store_lanes(T* p, V x, int lanes) {
  if (lanes == kLanes)
    store(p, x);
  else
    store_n(p, x, lanes);
}

}  // namespace GOLF_ISA_NS
}  // namespace golf
