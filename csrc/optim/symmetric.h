// Symmetric products of which only the lower triangle is computed: half the arithmetic of a general product.
// In f32 for every instruction set with vectors, in bf16 for avx512bf16 and neonbf16; elsewhere the pointers are null
// and torch multiplies.
#pragma once

#include "optim/optim.h"
#include "vec.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

#if defined(__AVX2__) || defined(GOLF_NEON)

constexpr int64_t kTileVectors = kLanes == 16 ? 3 : 2, kTileColumns = kTileVectors * kLanes;
static_assert(kPanelF32 % kTileColumns == 0 && kPanelF32 % kTileRowsF32 == 0);

void pack(const SymmetricProduct<float>& p, const float* a, int64_t panel, uint32_t* packed) {
  const int64_t first = panel * kPanelF32, rows = p.m - first < kPanelF32 ? p.m - first : kPanelF32;
  const int64_t whole_rows = rows / kLanes * kLanes, whole_k = p.row_stride == 1 ? p.k : p.k / kLanes * kLanes;
  float* out = reinterpret_cast<float*>(packed) + first * p.k;
  a += first * p.row_stride;
  if (p.row_stride == 1) {
    for (int64_t k = 0; k < p.k; ++k)
      for (int64_t i = 0; i < whole_rows; i += kLanes)
        store(out + k * kPanelF32 + i, load(a + k * p.column_stride + i));
  } else {
    for (int64_t k = 0; k < whole_k; k += kLanes)
      for (int64_t i = 0; i < whole_rows; i += kLanes)
        transpose_block(a + i * p.row_stride + k, p.row_stride, out + k * kPanelF32 + i, kPanelF32);
  }
  for (int64_t k = 0; k < p.k; ++k)
    for (int64_t i = k < whole_k ? whole_rows : 0; i < kPanelF32; ++i)
      out[k * kPanelF32 + i] = i < rows ? a[i * p.row_stride + k * p.column_stride] : 0.0f;
}

// The sums of one tile. A function of its own, so that gcc keeps every sum in a register (see attention/tile.h).
__attribute__((noinline)) void tile_sums(int64_t k, const float* left, const float* right, float* sums) {
  V total[kTileRowsF32][kTileVectors];
#pragma GCC unroll 8
  for (auto& row : total)
#pragma GCC unroll 4
    for (auto& t : row) t = zero();
  for (; k > 0; --k, left += kPanelF32, right += kPanelF32) {
    V b[kTileVectors];
#pragma GCC unroll 4
    for (int64_t j = 0; j < kTileVectors; ++j) b[j] = load(right + j * kLanes);
#pragma GCC unroll 8
    for (int64_t i = 0; i < kTileRowsF32; ++i) {
      const V x = set1(left[i]);
#pragma GCC unroll 4
      for (int64_t j = 0; j < kTileVectors; ++j) total[i][j] = fma(x, b[j], total[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < kTileRowsF32; ++i)
#pragma GCC unroll 4
    for (int64_t j = 0; j < kTileVectors; ++j) store(sums + i * kTileColumns + j * kLanes, total[i][j]);
}

GOLF_INLINE int64_t panel_end(const SymmetricProduct<float>& p, int64_t panel) {
  const int64_t end = (panel + 1) * kPanelF32;
  return end < p.m ? end : p.m;
}

void multiply(const SymmetricProduct<float>& p, int64_t panel, const uint32_t* left, const uint32_t* right) {
  const float* b = reinterpret_cast<const float*>(right) + panel * kPanelF32 * p.k;
  const V alpha = set1(p.alpha), beta = set1(p.beta);
  for (int64_t column = panel * kPanelF32; column < panel_end(p, panel); column += kTileColumns)
    for (int64_t row = column / kTileRowsF32 * kTileRowsF32; row < p.m; row += kTileRowsF32) {
      const float* a = reinterpret_cast<const float*>(left) + row / kPanelF32 * kPanelF32 * p.k + row % kPanelF32;
      alignas(64) float sums[kTileRowsF32 * kTileColumns];
      tile_sums(p.k, a, b + column % kPanelF32, sums);
      const int64_t rows = p.m - row < kTileRowsF32 ? p.m - row : kTileRowsF32;
      const int64_t columns = p.m - column < kTileColumns ? p.m - column : kTileColumns;
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t at = (row + i) * p.m + column, own = row + i - column;
        for_lanes(columns, [&](int64_t j, int lanes) {
          V y = mul(alpha, load(sums + i * kTileColumns + j));
          if (p.c != nullptr) y = fma(beta, load_lanes(p.c + at + j, lanes), y);
          store_lanes(p.out + at + j, y, lanes);
        });
        if (own >= 0 && own < columns) p.out[at + own] += p.diagonal;
      }
    }
}

// The rows of one panel, right of the computed tiles, from the columns below them.
void mirror(const SymmetricProduct<float>& p, int64_t panel) {
  for (int64_t first = panel * kPanelF32; first < panel_end(p, panel); first += kTileColumns)
    for (int64_t column = first + kTileColumns; column < p.m; column += kLanes)
      for (int64_t row = first; row < first + kTileColumns; row += kLanes) {
        const float* in = p.out + column * p.m + row;
        float* out = p.out + row * p.m + column;
        if (column + kLanes <= p.m)
          transpose_block(in, p.m, out, p.m);
        else
          for (int64_t i = 0; i < p.m - column; ++i)
            for (int64_t j = 0; j < kLanes; ++j) out[j * p.m + i] = in[i * p.m + j];
      }
}

constexpr SymmetricKernels<float> kSymmetricF32 = {pack, multiply, mirror};

#else

constexpr SymmetricKernels<float> kSymmetricF32 = {};

#endif

#if defined(GOLF_BF16_PAIRS)

// Element (row, pair) of a panel, for the rows and columns that exist.
GOLF_INLINE uint32_t pair_at(const SymmetricProduct<bf16>& p, const bf16* a, int64_t row, int64_t pair) {
  if (row >= p.m) return 0;
  const bf16* low = a + row * p.row_stride + 2 * pair * p.column_stride;
  const uint32_t high = 2 * pair + 1 < p.k ? low[p.column_stride].bits : 0;
  return low->bits | high << 16;
}

#if defined(__AVX512BF16__)

// 16 rows of 16 pairs each -> 16 pairs of 16 rows.
GOLF_INLINE void transpose16(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {  // r[4 q + i] holds, in lane l, column 4 l + i of rows 4 q .. 4 q + 3
    const __m512i low = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88), high = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
    const __m512i low2 = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    const __m512i high2 = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    t[i] = _mm512_shuffle_i32x4(low, low2, 0x88);
    t[8 + i] = _mm512_shuffle_i32x4(low, low2, 0xdd);
    t[4 + i] = _mm512_shuffle_i32x4(high, high2, 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(high, high2, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

// Rows contiguous in k: 16 x 16 transposes of pairs.
GOLF_INLINE int64_t pack_rows(const SymmetricProduct<bf16>& p, const bf16* a, int64_t first, uint32_t* out) {
  int64_t pair = 0;
  for (; 2 * (pair + 16) <= p.k; pair += 16)
    for (int64_t half = 0; half < kPanel; half += 16) {
      __m512i r[16];
      for (int64_t i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(a + (first + half + i) * p.row_stride + 2 * pair);
      transpose16(r);
      for (int64_t i = 0; i < 16; ++i) _mm512_storeu_si512(out + (pair + i) * kPanel + half, r[i]);
    }
  return pair;
}

// Columns contiguous in m: two of them interleaved.
GOLF_INLINE int64_t pack_columns(const SymmetricProduct<bf16>& p, const bf16* a, int64_t first, uint32_t* out) {
  int64_t pair = 0;
  for (; 2 * (pair + 1) <= p.k; ++pair) {
    const bf16* low = a + 2 * pair * p.column_stride + first;
    for (int64_t half = 0; half < kPanel; half += 16) {
      const __m256i* x = reinterpret_cast<const __m256i*>(low + half);
      const __m256i* y = reinterpret_cast<const __m256i*>(low + p.column_stride + half);
      const __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x));
      const __m512i odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256(y));
      _mm512_storeu_si512(out + pair * kPanel + half, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
    }
  }
  return pair;
}

GOLF_INLINE __m512bh pairs_of(const uint32_t* p) { return (__m512bh)_mm512_loadu_si512(p); }

// out[i][j] for the kTileRows rows i from `row` and the kPanel columns j of a panel.
GOLF_INLINE void tile(const SymmetricProduct<bf16>& p, int64_t row, int64_t panel, const uint32_t* left,
                      const uint32_t* right) {
  const int64_t pairs = (p.k + 1) / 2;
  left += row / kPanel * kPanel * pairs + row % kPanel;
  right += panel * kPanel * pairs;
  __m512 total[kTileRows][2];
  for (auto& t : total) t[0] = t[1] = _mm512_setzero_ps();
  for (int64_t pair = 0; pair < pairs; ++pair, left += kPanel, right += kPanel) {
    const __m512bh b0 = pairs_of(right), b1 = pairs_of(right + 16);
#pragma GCC unroll 8
    for (int64_t i = 0; i < kTileRows; ++i) {
      const __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int32_t>(left[i]));
      total[i][0] = _mm512_dpbf16_ps(total[i][0], x, b0);
      total[i][1] = _mm512_dpbf16_ps(total[i][1], x, b1);
    }
  }
  const V alpha = set1(p.alpha), beta = set1(p.beta), diagonal = set1(p.diagonal);
#pragma GCC unroll 8
  for (int64_t i = 0; i < kTileRows; ++i)
#pragma GCC unroll 2
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t column = panel * kPanel + 16 * half, left_over = p.m - column;
      if (row + i >= p.m || left_over <= 0) continue;
      const int lanes = left_over < 16 ? static_cast<int>(left_over) : 16;
      const int64_t at = (row + i) * p.m + column;
      V y = mul(alpha, total[i][half]);
      if (p.c != nullptr) y = fma(beta, load_n(p.c + at, lanes), y);
      const int64_t own = row + i - column;  // the lane on the diagonal
      if (own >= 0 && own < 16) y = _mm512_mask_add_ps(y, static_cast<__mmask16>(1u << own), y, diagonal);
      store_n(p.out + at, y, lanes);
    }
}

GOLF_INLINE void transpose8(const bf16* in, bf16* out, int64_t stride) {
  __m128i r[8], t[8];
  for (int i = 0; i < 8; ++i) r[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i * stride));
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i)
    for (int h = 0; h < 2; ++h) {
      r[4 * i + 2 * h] = _mm_unpacklo_epi32(t[4 * i + h], t[4 * i + 2 + h]);
      r[4 * i + 2 * h + 1] = _mm_unpackhi_epi32(t[4 * i + h], t[4 * i + 2 + h]);
    }
  for (int c = 0; c < 4; ++c) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * c * stride), _mm_unpacklo_epi64(r[c], r[4 + c]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + (2 * c + 1) * stride), _mm_unpackhi_epi64(r[c], r[4 + c]));
  }
}

#else

// 4 rows of 4 pairs each -> 4 pairs of 4 rows.
GOLF_INLINE void transpose4(uint32x4_t (&r)[4]) {
  const uint32x4_t ac0 = vzip1q_u32(r[0], r[2]), ac1 = vzip2q_u32(r[0], r[2]);
  const uint32x4_t bd0 = vzip1q_u32(r[1], r[3]), bd1 = vzip2q_u32(r[1], r[3]);
  r[0] = vzip1q_u32(ac0, bd0);
  r[1] = vzip2q_u32(ac0, bd0);
  r[2] = vzip1q_u32(ac1, bd1);
  r[3] = vzip2q_u32(ac1, bd1);
}

// Rows contiguous in k: 4 x 4 transposes of pairs.
GOLF_INLINE int64_t pack_rows(const SymmetricProduct<bf16>& p, const bf16* a, int64_t first, uint32_t* out) {
  int64_t pair = 0;
  for (; 2 * (pair + 4) <= p.k; pair += 4)
    for (int64_t part = 0; part < kPanel; part += 4) {
      uint32x4_t r[4];
      for (int64_t i = 0; i < 4; ++i)
        r[i] = vreinterpretq_u32_u16(vld1q_u16(&a[(first + part + i) * p.row_stride + 2 * pair].bits));
      transpose4(r);
      for (int64_t i = 0; i < 4; ++i) vst1q_u32(out + (pair + i) * kPanel + part, r[i]);
    }
  return pair;
}

// Columns contiguous in m: two of them interleaved.
GOLF_INLINE int64_t pack_columns(const SymmetricProduct<bf16>& p, const bf16* a, int64_t first, uint32_t* out) {
  int64_t pair = 0;
  for (; 2 * (pair + 1) <= p.k; ++pair) {
    const bf16* low = a + 2 * pair * p.column_stride + first;
    for (int64_t part = 0; part < kPanel; part += 8) {
      const uint16x8_t even = vld1q_u16(&low[part].bits), odd = vld1q_u16(&low[p.column_stride + part].bits);
      uint32_t* to = out + pair * kPanel + part;
      vst1q_u32(to, vreinterpretq_u32_u16(vzip1q_u16(even, odd)));
      vst1q_u32(to + 4, vreinterpretq_u32_u16(vzip2q_u16(even, odd)));
    }
  }
  return pair;
}

GOLF_INLINE bfloat16x8_t pairs_of(const uint32_t* p) { return vreinterpretq_bf16_u32(vld1q_u32(p)); }

// out[i][j] for the kTileRows rows i from `row` and the kPanel columns j of a panel, kLanes of them at a time.
GOLF_INLINE void tile(const SymmetricProduct<bf16>& p, int64_t row, int64_t panel, const uint32_t* left,
                      const uint32_t* right) {
  const int64_t pairs = (p.k + 1) / 2;
  left += row / kPanel * kPanel * pairs + row % kPanel;
  right += panel * kPanel * pairs;
  const V alpha = set1(p.alpha), beta = set1(p.beta);
  for (int64_t part = 0; part < kPanel; part += kLanes) {
    V total[kTileRows];
    for (auto& t : total) t = zero();
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const uint32_t *a = left + pair * kPanel, *b = right + pair * kPanel + part;
      const bfloat16x8_t b0 = pairs_of(b), b1 = pairs_of(b + 4);
#pragma GCC unroll 8
      for (int64_t i = 0; i < kTileRows; ++i) {
        const bfloat16x8_t x = vreinterpretq_bf16_u32(vdupq_n_u32(a[i]));
        total[i] = {vbfdotq_f32(total[i].low, x, b0), vbfdotq_f32(total[i].high, x, b1)};
      }
    }
    const int64_t column = panel * kPanel + part, left_over = p.m - column;
    if (left_over <= 0) break;
    const int lanes = left_over < kLanes ? static_cast<int>(left_over) : kLanes;
#pragma GCC unroll 8
    for (int64_t i = 0; i < kTileRows; ++i) {
      if (row + i >= p.m) break;
      const int64_t at = (row + i) * p.m + column;
      V y = mul(alpha, total[i]);
      if (p.c != nullptr) y = fma(beta, load_lanes(p.c + at, lanes), y);
      const int64_t own = row + i - column;  // the lane on the diagonal
      if (own >= 0 && own < kLanes) {
        float diagonal[kLanes] = {};
        diagonal[own] = p.diagonal;
        y = add(y, load(diagonal));
      }
      store_lanes(p.out + at, y, lanes);
    }
  }
}

GOLF_INLINE void transpose8(const bf16* in, bf16* out, int64_t stride) {
  uint16x8_t r[8], t[8];
  for (int i = 0; i < 8; ++i) r[i] = vld1q_u16(&in[i * stride].bits);
  // Three times over: row i with row i + 4, interleaved. Each pass turns one bit of the row into one of the column.
  for (int pass = 0; pass < 3; ++pass) {
    for (int i = 0; i < 4; ++i) {
      t[2 * i] = vzip1q_u16(r[i], r[i + 4]);
      t[2 * i + 1] = vzip2q_u16(r[i], r[i + 4]);
    }
    for (int i = 0; i < 8; ++i) r[i] = t[i];
  }
  for (int i = 0; i < 8; ++i) vst1q_u16(&out[i * stride].bits, r[i]);
}

#endif

void pack(const SymmetricProduct<bf16>& p, const bf16* a, int64_t panel, uint32_t* packed) {
  const int64_t pairs = (p.k + 1) / 2, first = panel * kPanel;
  uint32_t* out = packed + panel * kPanel * pairs;
  int64_t pair = 0;
  if (first + kPanel <= p.m) pair = p.column_stride == 1 ? pack_rows(p, a, first, out) : pack_columns(p, a, first, out);
  for (; pair < pairs; ++pair)
    for (int64_t i = 0; i < kPanel; ++i) out[pair * kPanel + i] = pair_at(p, a, first + i, pair);
}

void multiply(const SymmetricProduct<bf16>& p, int64_t panel, const uint32_t* left, const uint32_t* right) {
  for (int64_t row = panel * kPanel; row < p.m; row += kTileRows) tile(p, row, panel, left, right);
}

// The rows of one panel, right of the computed triangle, from the columns below it.
void mirror(const SymmetricProduct<bf16>& p, int64_t panel) {
  bf16* out = p.out;
  const int64_t first = panel * kPanel, last = first + kPanel < p.m ? first + kPanel : p.m;
  int64_t column = last;
  if (last == first + kPanel)
    for (; column + 8 <= p.m; column += 8)
      for (int64_t row = first; row < last; row += 8)
        transpose8(out + column * p.m + row, out + row * p.m + column, p.m);
  for (; column < p.m; ++column)
    for (int64_t row = first; row < last; ++row) out[row * p.m + column] = out[column * p.m + row];
}

constexpr SymmetricKernels<bf16> kSymmetricBF16 = {pack, multiply, mirror};

#else

constexpr SymmetricKernels<bf16> kSymmetricBF16 = {};

#endif

}  // namespace
}  // namespace GOLF_ISA_NS
}  // namespace golf
