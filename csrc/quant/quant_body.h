#include "quant/quant.h"
#include "quant/viterbi.h"
#include "vec.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

// Rows whose errors of a block of 128 columns stay in the first cache while the columns are walked.
constexpr int64_t kRows = 64;

GOLF_INLINE V lesser(V a, V b) { return sub(zero(), max(sub(zero(), a), sub(zero(), b))); }

// Each lane's nearest integer, halves to even, for magnitudes below 2^22.
GOLF_INLINE V nearest_each(V x) { return sub(add(x, set1(kNearest)), set1(kNearest)); }

// The first `lanes` integers of k, which lie in -128 .. 127.
#if defined(__AVX512F__)
GOLF_INLINE void store_symbols(int8_t* p, V k, int lanes) {
  const __m512i whole = _mm512_cvtps_epi32(k);
  if (lanes == kLanes)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(whole));
  else
    _mm512_mask_cvtsepi32_storeu_epi8(p, first(lanes), whole);
}
#elif defined(__AVX2__)
GOLF_INLINE void store_symbols(int8_t* p, V k, int lanes) {
  const __m256i whole = _mm256_cvtps_epi32(k);
  const __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  const int64_t bytes = _mm_cvtsi128_si64(_mm_packs_epi16(halves, halves));
  __builtin_memcpy(p, &bytes, static_cast<size_t>(lanes));
}
#elif defined(GOLF_NEON)
GOLF_INLINE void store_symbols(int8_t* p, V k, int lanes) {
  const int16x4_t low = vqmovn_s32(vcvtnq_s32_f32(k.low));
  const int8x8_t bytes = vqmovn_s16(vqmovn_high_s32(low, vcvtnq_s32_f32(k.high)));
  __builtin_memcpy(p, &bytes, static_cast<size_t>(lanes));
}
#else
GOLF_INLINE void store_symbols(int8_t* p, V k, int) { *p = static_cast<int8_t>(k); }
#endif

// inverse[r] = 1 / step[r], 0 where the step is.
GOLF_INLINE void invert(const float* step, float* inverse, int64_t n) {
  for (int64_t r = 0; r < n; ++r) inverse[r] = step[r] > 0 ? 1.0f / step[r] : 0.0f;
}

// wanted[r] += sum over i of error[i, r] feedback[i, j]: what the block's columns before j left over. One order of
// additions.
void pull(const QuantColumns& a, int64_t j, int64_t begin, int64_t end) {
  float* const w = a.wanted + j * a.rows;
  constexpr int kUnroll = 4;
  int64_t r = begin;
  for (; r + kUnroll * kLanes <= end; r += kUnroll * kLanes) {
    V sum[kUnroll];
    for (int k = 0; k < kUnroll; ++k) sum[k] = load(w + r + k * kLanes);
    for (int64_t i = 0; i < j; ++i) {
      const V f = set1(a.feedback[i * a.columns + j]);
      const float* const e = a.error + i * a.rows + r;
      for (int k = 0; k < kUnroll; ++k) sum[k] = add(sum[k], mul(load(e + k * kLanes), f));
    }
    for (int k = 0; k < kUnroll; ++k) store(w + r + k * kLanes, sum[k]);
  }
  for_lanes(end - r, [&](int64_t at, int lanes) {
    V sum = load_lanes(w + r + at, lanes);
    for (int64_t i = 0; i < j; ++i)
      sum = add(sum, mul(load_lanes(a.error + i * a.rows + r + at, lanes), set1(a.feedback[i * a.columns + j])));
    store_lanes(w + r + at, sum, lanes);
  });
}

// Symbols and errors of rows begin to end of column j by rounding; inverse[r] belongs to row begin + r.
void round_column(const QuantColumns& a, const float* inverse, int64_t j, int64_t begin, int64_t end) {
  const float* const wanted = a.wanted + j * a.rows + begin;
  float* const error = a.error + j * a.rows + begin;
  int8_t* const symbols = a.symbols + j * a.rows + begin;
  const V high = set1(static_cast<float>(a.limit)), low = sub(zero(), high), shrink = set1(a.shrink[j]);
  for_lanes(end - begin, [&](int64_t r, int lanes) {
    const V x = mul(mul(load_lanes(wanted + r, lanes), load_lanes(inverse + r, lanes)), shrink);
    const V k = max(lesser(nearest_each(x), high), low);
    store_symbols(symbols + r, k, lanes);
    store_lanes(error + r, sub(load_lanes(error + r, lanes), mul(k, load_lanes(a.step + begin + r, lanes))), lanes);
  });
}

// What the search needs of a column's rows: x in half steps, and for each coset the cost of its nearest point.
GOLF_INLINE void coset_costs(const QuantColumns& a, int64_t j, int64_t begin, int64_t n, float* x, float* cost,
                             const float* inverse) {
  const float* const w = a.wanted + j * a.rows + begin;
  const float* const step = a.step + begin;
  const float bound = 2.0f * static_cast<float>(a.limit);
  // Cosets lie four points apart, so that the nearest of each is within two of x: symbols stay within the limit.
  const V high = set1(bound - 2), low = set1(2 - bound), shrink = set1(2.0f * a.shrink[j]), scale = set1(a.weight);
  for_lanes(n, [&](int64_t r, int lanes) {
    const V wanted = mul(mul(load_lanes(w + r, lanes), load_lanes(inverse + r, lanes)), shrink);
    const V near = max(lesser(wanted, high), low);
    store_lanes(x + r, near, lanes);
    const V size = load_lanes(step + r, lanes), weight = mul(mul(size, size), scale);
    for (int c = 0; c < 4; ++c) {
      const V offset = set1(static_cast<float>(c));
      const V point = add(mul(set1(4.0f), nearest_each(mul(sub(near, offset), set1(0.25f)))), offset);
      const V miss = sub(wanted, point);
      store_lanes(cost + c * n + r, mul(mul(miss, miss), weight), lanes);
    }
  });
}

// Symbols and errors of column j along the best path of the trellis.
void search_column(const QuantColumns& a, const TrellisCode& t, int64_t j, int64_t begin, int64_t end) {
  const int64_t n = end - begin;
  float* const x = reinterpret_cast<float*>(a.workspace) + 6 * begin;  // [n], costs [4, n], inverse steps [n]
  float *const cost = x + n, *const inverse = x + 5 * n;
  uint16_t* const choices = reinterpret_cast<uint16_t*>(a.workspace + 6 * 4 * a.rows) + begin * (1 << kMaxTrellis) / 16;
  float* const error = a.error + j * a.rows + begin;
  if (j == 0) invert(a.step + begin, inverse, n);
  coset_costs(a, j, begin, n, x, cost, inverse);
  const uint32_t last = viterbi(t, cost, n, choices);
  trace_back(t, last, n, choices, [&](int64_t r, uint32_t coset) {
    const float point = coset_point(x[r], static_cast<int>(coset));
    a.symbols[j * a.rows + begin + r] = static_cast<int8_t>(static_cast<int32_t>(point) >> 1);
    error[r] -= point * 0.5f * a.step[begin + r];
  });
}

void columns(const QuantColumns& a, const TrellisCode& trellis, int64_t begin, int64_t end) {
  if (trellis.bits != 0) {
    for (int64_t j = 0; j < a.columns; ++j) {
      pull(a, j, begin, end);
      search_column(a, trellis, j, begin, end);
    }
    return;
  }
  for (int64_t r = begin; r < end; r += kRows) {
    const int64_t stop = r + kRows < end ? r + kRows : end;
    float inverse[kRows];
    invert(a.step + r, inverse, stop - r);
    for (int64_t j = 0; j < a.columns; ++j) {
      pull(a, j, r, stop);
      round_column(a, inverse, j, r, stop);
    }
  }
}

}  // namespace

const QuantKernels quant_kernels = {columns};

}  // namespace GOLF_ISA_NS
}  // namespace golf
