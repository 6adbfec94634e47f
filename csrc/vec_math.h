// Rounding, exp and tanh of one vector (vec.h), for <op>_body.h files only. Coefficients were fitted by weighted
// least squares for the smallest relative error on the reduced range; tests/ops/test_head.py measures them through the
// head against fp64. The level without vectors asks the C library.
#pragma once

#include "vec.h"

namespace golf {
namespace GOLF_ISA_NS {

#if defined(__AVX512F__)
GOLF_INLINE V min(V a, V b) { return _mm512_min_ps(a, b); }  // b where either is NaN
GOLF_INLINE V round_even(V a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
GOLF_INLINE V times_power_of_two(V a, V n) { return _mm512_scalef_ps(a, n); }
#elif defined(__AVX2__)
GOLF_INLINE V min(V a, V b) { return _mm256_min_ps(a, b); }
GOLF_INLINE V round_even(V a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// -127 <= n <= 128: 0 at the lower end and infinity at the upper.
GOLF_INLINE V times_power_of_two(V a, V n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return mul(a, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
#elif defined(GOLF_NEON)
GOLF_INLINE float32x4_t less(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
GOLF_INLINE V min(V a, V b) { return {less(a.low, b.low), less(a.high, b.high)}; }
GOLF_INLINE V round_even(V a) { return {vrndnq_f32(a.low), vrndnq_f32(a.high)}; }
// -127 <= n <= 128: 0 at the lower end and infinity at the upper.
GOLF_INLINE float32x4_t power_of_two(float32x4_t n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23));
}
GOLF_INLINE V times_power_of_two(V a, V n) { return mul(a, {power_of_two(n.low), power_of_two(n.high)}); }
#else
GOLF_INLINE V min(V a, V b) { return a < b ? a : b; }
GOLF_INLINE V round_even(V a) { return __builtin_rintf(a); }
GOLF_INLINE V exp(V x) { return __builtin_expf(x); }
GOLF_INLINE V tanh(V x) { return __builtin_tanhf(x); }
#endif

#if defined(GOLF_VECTORS)

// e^x: within 1 ulp in the normal range, 0 below it, infinity above, NaN stays. x = n ln 2 + r with |r| <= ln 2 / 2.
GOLF_INLINE V exp(V x) {
  x = min(set1(89.0f), max(set1(-88.0f), x));
  const V n = round_even(mul(x, set1(1.44269504f)));
  V r = fnma(n, set1(0.693145752f), x);  // ln 2 in two parts: the first has trailing zeros, so n times it is exact
  r = fnma(n, set1(1.42860677e-6f), r);
  V p = fma(set1(0.00138145394f), r, set1(0.00836874545f));
  p = fma(p, r, set1(0.041668389f));
  p = fma(p, r, set1(0.166665211f));
  p = fma(p, r, set1(0.49999994f));
  p = add(fma(mul(r, r), p, r), set1(1.0f));
  return times_power_of_two(p, n);
}

// tanh x = x P(x^2) / Q(x^2), all coefficients positive, so nothing cancels: within 6 ulp. Beyond 9 it is 1 in f32.
GOLF_INLINE V tanh(V x) {
  x = min(set1(9.0f), max(set1(-9.0f), x));
  const V s = mul(x, x);
  V p = fma(set1(1.33546862e-8f), s, set1(2.06091026e-5f));
  V q = fma(set1(7.77656908e-7f), s, set1(0.000328563707f));
  p = fma(p, s, set1(0.00349558936f));
  q = fma(q, s, set1(0.0258769877f));
  p = fma(p, s, set1(0.133810267f));
  q = fma(q, s, set1(0.467143416f));
  p = fma(p, s, set1(1.0f));
  q = fma(q, s, set1(1.0f));
  return div(mul(x, p), q);
}

#endif

}  // namespace GOLF_ISA_NS
}  // namespace golf
