// What the tiles of attention_body.h are made of: packed operands, exp2, masks.
//
// A product reduces over pairs (bf16) or single numbers (f32), kDepth of them in each lane: the left operand is read
// one unit (kDepth neighbors, four bytes) at a time and broadcast, the right one is laid out [reduction /
// kDepth][lane][kDepth].
#pragma once

#include "attention/attention.h"
#include "vec.h"

// GOLF_INLINE for members of classes.
#define GOLF_MEMBER inline __attribute__((always_inline))

// With sixteen registers a register block fills them: inside a larger function gcc spilled one of its sums in every
// step, which made the loop wait for memory and take twice as long. With NEON's 32 of half the width it was up to six.
#if (defined(__AVX2__) && !defined(__AVX512F__)) || defined(GOLF_NEON)
#define GOLF_PRODUCT static __attribute__((noinline))
#else
#define GOLF_PRODUCT GOLF_INLINE
#endif

namespace golf {
namespace GOLF_ISA_NS {
namespace {

constexpr int kTile = 64;  // queries and keys of a tile

#if defined(__AVX512F__)

#if defined(__AMX_BF16__)
constexpr int kRows = 32;   // rows of a register block, which is two by two tiles: product_amx.h
constexpr int kGrain = 32;  // what a product reduces over comes in multiples of this
#else
constexpr int kRows = 8;  // rows of a register block; with kCols 16 sums, enough to hide the latency of a product
constexpr int kGrain = 2;
#endif

GOLF_INLINE bool any_above(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }
GOLF_INLINE float largest(V a) { return _mm512_reduce_max_ps(a); }
GOLF_INLINE int clamp_lane(int n) { return n < 0 ? 0 : n > kLanes ? kLanes : n; }
// x in the lanes [lo, hi), `fill` elsewhere.
GOLF_INLINE V keep(V x, int lo, int hi, V fill) {
  return _mm512_mask_mov_ps(fill, first(clamp_lane(hi)) & static_cast<__mmask16>(~first(clamp_lane(lo))), x);
}
GOLF_INLINE V fraction(V x) { return _mm512_reduce_ps(x, 0x09); }  // x - floor(x)
// p 2^floor(x); 0 for x = -inf, NaN for NaN.
GOLF_INLINE V scale_by_power(V p, V x, V) { return _mm512_scalef_ps(p, x); }

#elif defined(GOLF_NEON)

constexpr int kRows = 4;
constexpr int kGrain = 2;

GOLF_INLINE bool any_above(V a, V b) {
  return vmaxvq_u32(vorrq_u32(vcgtq_f32(a.low, b.low), vcgtq_f32(a.high, b.high))) != 0;
}
GOLF_INLINE float largest(V a) { return vmaxnmvq_f32(vmaxnmq_f32(a.low, a.high)); }
GOLF_INLINE float32x4_t keep_half(float32x4_t x, int32x4_t lane, int lo, int hi, float32x4_t fill) {
  return vbslq_f32(vandq_u32(vcgeq_s32(lane, vdupq_n_s32(lo)), vcltq_s32(lane, vdupq_n_s32(hi))), x, fill);
}
GOLF_INLINE V keep(V x, int lo, int hi, V fill) {
  constexpr int32_t kLane[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  return {keep_half(x.low, vld1q_s32(kLane), lo, hi, fill.low),
          keep_half(x.high, vld1q_s32(kLane + 4), lo, hi, fill.high)};
}
GOLF_INLINE V fraction(V x) { return sub(x, {vrndmq_f32(x.low), vrndmq_f32(x.high)}); }
// As a product, so that NaN stays NaN. Below -126 the result is 0 rather than subnormal.
GOLF_INLINE float32x4_t scale_half(float32x4_t p, float32x4_t x, float32x4_t lowest) {
  const int32x4_t n = vcvtmq_s32_f32(vmaxq_f32(lowest, x));
  const float32x4_t power = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(vmulq_f32(p, power)), vcltq_f32(x, lowest)));
}
GOLF_INLINE V scale_by_power(V p, V x, V lowest) {
  return {scale_half(p.low, x.low, lowest.low), scale_half(p.high, x.high, lowest.high)};
}

#else

constexpr int kRows = 4;
constexpr int kGrain = 2;

GOLF_INLINE bool any_above(V a, V b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0; }
GOLF_INLINE float largest(V a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
GOLF_INLINE V keep(V x, int lo, int hi, V fill) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i below_hi = _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), lane);
  const __m256i below_lo = _mm256_cmpgt_epi32(_mm256_set1_epi32(lo), lane);
  return _mm256_blendv_ps(fill, x, _mm256_castsi256_ps(_mm256_andnot_si256(below_lo, below_hi)));
}
GOLF_INLINE V fraction(V x) { return _mm256_sub_ps(x, _mm256_floor_ps(x)); }
// As a product, so that NaN stays NaN. Below -126 the result is 0 rather than subnormal.
GOLF_INLINE V scale_by_power(V p, V x, V lowest) {
  const __m256i n = _mm256_cvtps_epi32(_mm256_floor_ps(_mm256_max_ps(lowest, x)));
  const V power = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  return _mm256_andnot_ps(_mm256_cmp_ps(x, lowest, _CMP_LT_OQ), _mm256_mul_ps(p, power));
}

#endif

constexpr int kCols = 2;                // vectors of a register block
constexpr int kBlock = kCols * kLanes;  // columns of a register block
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// 2^x for x <= 126. Minimax in the fraction; relative error 1e-7 (kExact) or 3e-6, which is far below half a bf16 ulp.
template <bool kExact>
GOLF_INLINE V exp2(V x) {
  const V lowest = set1(-126.0f);
#if defined(__AVX512F__)
  const V f = fraction(x);
#else
  const V f = fraction(max(lowest, x));  // -inf - floor(-inf) would be NaN
#endif
  V p;
  if (kExact) {
    p = fma(set1(1.8775766948238015e-3f), f, set1(8.98933969438076e-3f));
    p = fma(p, f, set1(5.582631751894951e-2f));
    p = fma(p, f, set1(0.24015361070632935f));
    p = fma(p, f, set1(0.6931530833244324f));
    p = fma(p, f, set1(0.9999999403953552f));
  } else {
    p = fma(set1(1.3534167781472206e-2f), f, set1(5.2011460065841675e-2f));
    p = fma(p, f, set1(0.2414427548646927f));
    p = fma(p, f, set1(0.6930038332939148f));
    p = fma(p, f, set1(1.0000026226043701f));
  }
  return scale_by_power(p, x, lowest);
}

// Operands in f32: one number a lane.
struct PackF32 {
  using E = float;
  using Operand = V;
  static constexpr int kDepth = 1;
  static constexpr bool kExact = true;
  static GOLF_MEMBER Operand broadcast(const E* p) { return set1(*p); }
  static GOLF_MEMBER Operand operand(const E* p) { return load(p); }
  static GOLF_MEMBER V dot(V acc, Operand a, Operand b) { return fma(a, b, acc); }
  // One row of a register block.
  static GOLF_MEMBER void store_row(E* p, V x0, V x1) {
    store(p, x0);
    store(p + kLanes, x1);
  }
};

// Operands in bf16: two neighbors of the reduction in each lane. A Line is one row of a register block, rounded.
#if defined(__AVX512BF16__)
struct PackBF16 {
  using E = bf16;
  using Operand = __m512bh;
  using Line = __m512i;
  static constexpr int kDepth = 2;
  static constexpr bool kExact = false;
  static GOLF_MEMBER Operand broadcast(const E* p) {
    int32_t unit;
    __builtin_memcpy(&unit, p, 4);
    return (__m512bh)_mm512_set1_epi32(unit);
  }
  static GOLF_MEMBER Operand operand(const E* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static GOLF_MEMBER V dot(V acc, Operand a, Operand b) { return _mm512_dpbf16_ps(acc, a, b); }
  static GOLF_MEMBER Line load_line(const E* p) { return _mm512_loadu_si512(p); }
  static GOLF_MEMBER void store_line(E* p, Line row) { _mm512_storeu_si512(p, row); }
  static GOLF_MEMBER Line narrow_row(V x0, V x1) { return (__m512i)_mm512_cvtne2ps_pbh(x1, x0); }
  // Two rows of kBlock -> [kBlock][2].
  static GOLF_MEMBER void store_pairs(E* p, Line row0, Line row1) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    // 0, 32, 1, 33, ...: 32 and above are the second row's.
    const __m512i low = _mm512_or_si512(lane, _mm512_slli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(32)), 16));
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    _mm512_storeu_si512(p, _mm512_permutex2var_epi16(row0, low, row1));
    _mm512_storeu_si512(p + 32, _mm512_permutex2var_epi16(row0, high, row1));
  }
  static GOLF_MEMBER void store_row(E* p, V x0, V x1) { store_line(p, narrow_row(x0, x1)); }
};
#elif defined(GOLF_BF16_PAIRS)
struct PackBF16 {
  using E = bf16;
  struct Operand {
    bfloat16x8_t low, high;
  };
  struct Line {
    uint16x8_t low, high;
  };
  static constexpr int kDepth = 2;
  static constexpr bool kExact = false;
  static GOLF_MEMBER Operand broadcast(const E* p) {
    uint32_t unit;
    __builtin_memcpy(&unit, p, 4);
    const bfloat16x8_t all = vreinterpretq_bf16_u32(vdupq_n_u32(unit));
    return {all, all};
  }
  static GOLF_MEMBER Operand operand(const E* p) {
    const Line line = load_line(p);
    return {vreinterpretq_bf16_u16(line.low), vreinterpretq_bf16_u16(line.high)};
  }
  static GOLF_MEMBER V dot(V acc, Operand a, Operand b) {
    return {vbfdotq_f32(acc.low, a.low, b.low), vbfdotq_f32(acc.high, a.high, b.high)};
  }
  static GOLF_MEMBER Line load_line(const E* p) { return {vld1q_u16(&p->bits), vld1q_u16(&p[8].bits)}; }
  static GOLF_MEMBER void store_line(E* p, Line row) {
    vst1q_u16(&p->bits, row.low);
    vst1q_u16(&p[8].bits, row.high);
  }
  static GOLF_MEMBER Line narrow_row(V x0, V x1) { return {narrow(x0), narrow(x1)}; }
  // Two rows of kBlock -> [kBlock][2].
  static GOLF_MEMBER void store_pairs(E* p, Line row0, Line row1) {
    vst1q_u16(&p->bits, vzip1q_u16(row0.low, row1.low));
    vst1q_u16(&p[8].bits, vzip2q_u16(row0.low, row1.low));
    vst1q_u16(&p[16].bits, vzip1q_u16(row0.high, row1.high));
    vst1q_u16(&p[24].bits, vzip2q_u16(row0.high, row1.high));
  }
  static GOLF_MEMBER void store_row(E* p, V x0, V x1) { store_line(p, narrow_row(x0, x1)); }
};
#endif

// Which keys of a tile a block of kRows queries sees, and which queries a block of kBlock keys sees, in whole blocks
// relative to the tile; both from the same rule, so that what one product writes the next one reads.
struct Range {
  int begin, end;
};

struct Mask {
  int64_t query0, key0;  // first of the tile
  int64_t window;        // a query sees keys > query - window
  int queries;           // of the tile, a multiple of kRows

  GOLF_MEMBER int clamp(int64_t x, int hi) const { return x < 0 ? 0 : x > hi ? hi : static_cast<int>(x); }
  Range keys_of(int row) const {  // row: the block's first
    const int64_t oldest = query0 + row - window + 1 - key0, newest = query0 + row + kRows - 1 - key0;
    return {clamp(oldest, kTile) / kBlock * kBlock, (clamp(newest, kTile - 1) / kBlock + 1) * kBlock};
  }
  // The same without the hidden keys at either end, as far as kGrain allows: what a sum over the block's keys needs.
  Range sum_of(int row) const {
    const int64_t oldest = query0 + row - window + 1 - key0, end = query0 + row + kRows - key0;
    return {clamp(oldest, kTile) / kGrain * kGrain, (clamp(end, kTile) + kGrain - 1) / kGrain * kGrain};
  }
  Range queries_of(int column) const {
    const int64_t first_one = key0 + column - query0, end = key0 + column + kBlock - 1 + window - query0;
    return {clamp(first_one, queries) / kRows * kRows, (clamp(end, queries) + kRows - 1) / kRows * kRows};
  }
  // Whether some key of this block is hidden from some query of that one.
  bool hides(int row, int column) const {
    return key0 + column + kBlock - 1 > query0 + row || key0 + column <= query0 + row + kRows - 1 - window;
  }
  // x where query row `row` sees the key of the lane, `fill` elsewhere.
  GOLF_MEMBER V apply(V x, int row, int column, V fill) const {
    const int64_t newest = query0 + row - key0 - column, oldest = newest - window + 1;
    return keep(x, clamp(oldest, kLanes), clamp(newest + 1, kLanes), fill);
  }
};

// log2(x) for x >= 1, by two of Halley's steps from the bits of x; as exact as exp2.
GOLF_INLINE V log2(V x) {
  alignas(64) float guess[kLanes];
  store(guess, x);
  for (int i = 0; i < kLanes; ++i) {
    int32_t bits;
    __builtin_memcpy(&bits, guess + i, 4);
    guess[i] = static_cast<float>(bits) * 0x1p-23f - 127.0f;
  }
  V y = load(guess);
#pragma GCC unroll 2
  for (int step = 0; step < 2; ++step) {
    const V power = exp2<true>(y);
    y = fma(set1(2.0f * kLog2E), div(sub(x, power), add(x, power)), y);
  }
  return y;
}

// A bump allocator over the scratch of one thread; over null it only counts.
class Arena {
 public:
  explicit Arena(void* base) : next_(reinterpret_cast<uintptr_t>(base)), base_(next_) {}
  template <class T>
  T* take(int64_t n) {
    T* p = reinterpret_cast<T*>(next_);
    next_ += static_cast<uintptr_t>((n * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64);
    return p;
  }
  int64_t used() const { return static_cast<int64_t>(next_ - base_); }

 private:
  uintptr_t next_, base_;
};

}  // namespace
}  // namespace GOLF_ISA_NS
}  // namespace golf
