// Products of up to 6-bit codes by the processor's bf16 dot product, where it has one. A code is exact in bf16, and an
// f32 input is the sum of three bf16 numbers, so the terms are exact and only their sum is rounded, as in f32.
#pragma once

#include "bitpack/bitpack.h"
#include "vec.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

#if defined(__AVX512BF16__)

GOLF_INLINE bool has_dot(const PackedMatrix& m) {
  return m.format.bits >= 2 && m.format.bits <= 6 && (m.group >= m.columns || m.group % kIntBlock == 0);
}
GOLF_INLINE int parts_of(const float*) { return 3; }
GOLF_INLINE int parts_of(const bf16*) { return 1; }

// out [batch, parts, padded], of each block the even columns before the odd ones, as tile() takes the codes apart.
template <class T>
void prepare_dot(const PackedMatrix& m, const T* x, int64_t batch, bf16* out) {
  const int64_t width = padded(m.columns);
  const int parts = parts_of(x);
  uint16_t places[kIntBlock];
  for (int i = 0; i < kIntBlock; ++i) places[i] = static_cast<uint16_t>(2 * i % kIntBlock + 2 * i / kIntBlock);
  const __m512i even = _mm512_loadu_si512(places), odd = _mm512_loadu_si512(places + kIntBlock / 2);
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t first = 0; first < m.columns; first += kIntBlock) {
      bf16 block[3][kIntBlock] = {};
      for_lanes(least(kIntBlock, m.columns - first), [&](int64_t i, int lanes) {
        V rest = load_lanes(x + b * m.columns + first + i, lanes);
        for (int part = 0; part < parts; ++part) {
          store_lanes(block[part] + i, rest, lanes);
          rest = sub(rest, load_lanes(block[part] + i, lanes));
        }
      });
      for (int part = 0; part < parts; ++part) {
        bf16* to = out + (b * parts + part) * width + first;
        const __m512i low = _mm512_loadu_si512(block[part]), high = _mm512_loadu_si512(block[part] + kIntBlock / 2);
        _mm512_storeu_si512(to, _mm512_permutex2var_epi16(low, even, high));
        _mm512_storeu_si512(to + kIntBlock / 2, _mm512_permutex2var_epi16(low, odd, high));
      }
    }
}

// The plane of W bits of 64 codes, at bit `kShift` of each byte: the 8 W bytes are repeated over the register, and the
// rotation of copy s brings the bits of its values there. The other bits of a byte are its neighbors'.
template <int W, int kShift>
GOLF_INLINE __m512i plane(const uint8_t* in) {
  __m512i copies;
  if (W == 4) copies = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in)));
  if (W == 2) copies = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
  if (W == 1) copies = _mm512_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(in)));
  const auto turn = [](int s) { return (W * (s / W) - kShift + 64) % 64; };  // 64-bit element s is in copy s / W
  const __m512i turns = _mm512_setr_epi64(turn(0), turn(1), turn(2), turn(3), turn(4), turn(5), turn(6), turn(7));
  return _mm512_rorv_epi64(copies, turns);
}

// The lowest kShift bits of each byte from `low`, the others from `high`.
template <int kShift>
GOLF_INLINE __m512i join(__m512i low, __m512i high) {
  return _mm512_ternarylogic_epi64(_mm512_set1_epi8((1 << kShift) - 1), low, high, 0xca);
}

// 64 codes, each in the low bits of its byte.
template <int kBits>
GOLF_INLINE __m512i codes64(const uint8_t* in) {
  constexpr int k4 = kBits & 4, k2 = kBits & 2, k1 = kBits & 1;
  __m512i u;
  if (k4) u = plane<4, 0>(in);
  if (k2) u = k4 ? join<k4>(u, plane<2, k4>(in + 8 * k4)) : plane<2, 0>(in);
  if (k1) u = join<k4 + k2>(u, plane<1, k4 + k2>(in + 8 * (k4 + k2)));
  return u;
}

// Two registers of 32 bf16 numbers each: code u -> u - 2^(bits - 1), for all that the six bits which choose can be.
struct Table {
  __m512i low, high;
};

template <int kBits>
GOLF_INLINE Table table() {
  bf16 values[64];
  for (int u = 0; u < 64; ++u) put(values + u, static_cast<float>((u & ((1 << kBits) - 1)) - (1 << (kBits - 1))));
  return {_mm512_loadu_si512(values), _mm512_loadu_si512(values + 32)};
}

// The numbers of the codes in the low bytes of 32 words.
GOLF_INLINE __m512bh weights(const Table& t, __m512i codes) {
  return (__m512bh)_mm512_permutex2var_epi16(t.low, codes, t.high);
}
GOLF_INLINE __m512bh numbers(const bf16* x) { return (__m512bh)_mm512_loadu_si512(x); }

constexpr int64_t kAhead = 4096;

// kRows rows of m with kWidth rows of x.
template <int kBits, int kParts, int kRows, int kWidth>
void tile(const PackedMatrix& m, const Table& t, const bf16* x, float* y, int64_t row) {
  const int64_t width = padded(m.columns), stride = row_bytes(m.format, m.columns);
  const int64_t blocks = (m.columns + kIntBlock - 1) / kIntBlock;
  const int64_t per_scale = m.group >= m.columns ? blocks : m.group / kIntBlock;
  // The same place some KB on, in rows that this thread will come to: the processor's own prefetchers stop at each
  // page.
  const int64_t ahead = kRows * stride * (1 + kAhead / (kRows * stride));
  const uint8_t* in = m.data + row * stride;
  V total[kRows][kWidth];
  for (int r = 0; r < kRows; ++r)
    for (int b = 0; b < kWidth; ++b) total[r][b] = zero();
  for (int64_t first = 0; first < blocks; first += per_scale) {
    V part[kRows][kWidth][2];  // even and odd columns: more sums at a time than one product's latency
    for (int r = 0; r < kRows; ++r)
      for (int b = 0; b < kWidth; ++b) part[r][b][0] = part[r][b][1] = zero();
    for (int64_t block = first; block < least(first + per_scale, blocks); ++block)
      for (int r = 0; r < kRows; ++r) {
        const uint8_t* at = in + r * stride + block * 8 * kBits;
        __builtin_prefetch(at + ahead);
        const __m512i u = codes64<kBits>(at);
        const __m512bh even = weights(t, u), odd = weights(t, _mm512_srli_epi16(u, 8));
        for (int b = 0; b < kWidth; ++b)
          for (int p = 0; p < kParts; ++p) {
            const bf16* from = x + (b * kParts + p) * width + block * kIntBlock;
            part[r][b][0] = _mm512_dpbf16_ps(part[r][b][0], even, numbers(from));
            part[r][b][1] = _mm512_dpbf16_ps(part[r][b][1], odd, numbers(from + 32));
          }
      }
    for (int r = 0; r < kRows; ++r)
      for (int b = 0; b < kWidth; ++b) {
        const float scale = row_scales(m.scales, row + r, m.columns, m.group)[first / per_scale];
        total[r][b] = fma(add(part[r][b][0], part[r][b][1]), set1(scale), total[r][b]);
      }
  }
  for (int r = 0; r < kRows; ++r)
    for (int b = 0; b < kWidth; ++b) y[b * m.rows + row + r] = sum(total[r][b]);
}

template <int kBits, int kParts>
void product_parts(const PackedMatrix& m, const bf16* x, float* y, int64_t batch, int64_t begin, int64_t end) {
  const Table t = table<kBits>();
  const int64_t one = kParts * padded(m.columns);
  int64_t b = 0;
  for (; b + 4 <= batch; b += 4)
    for (int64_t row = begin; row < end; ++row) tile<kBits, kParts, 1, 4>(m, t, x + b * one, y + b * m.rows, row);
  for (; b < batch; ++b) {
    int64_t row = begin;
    for (; row + 2 <= end; row += 2) tile<kBits, kParts, 2, 1>(m, t, x + b * one, y + b * m.rows, row);
    for (; row < end; ++row) tile<kBits, kParts, 1, 1>(m, t, x + b * one, y + b * m.rows, row);
  }
}

template <int kBits>
void product_bits(const PackedMatrix& m, DType dtype, const bf16* x, float* y, int64_t batch, int64_t begin,
                  int64_t end) {
  return dtype == DType::kF32 ? product_parts<kBits, 3>(m, x, y, batch, begin, end)
                              : product_parts<kBits, 1>(m, x, y, batch, begin, end);
}

void product_dot(const PackedMatrix& m, DType dtype, const bf16* x, float* y, int64_t batch, int64_t begin,
                 int64_t end) {
  switch (m.format.bits) {
    case 2:
      return product_bits<2>(m, dtype, x, y, batch, begin, end);
    case 3:
      return product_bits<3>(m, dtype, x, y, batch, begin, end);
    case 4:
      return product_bits<4>(m, dtype, x, y, batch, begin, end);
    case 5:
      return product_bits<5>(m, dtype, x, y, batch, begin, end);
    default:
      return product_bits<6>(m, dtype, x, y, batch, begin, end);
  }
}

#else

constexpr bool has_dot(const PackedMatrix&) { return false; }
template <class T>
void prepare_dot(const PackedMatrix&, const T*, int64_t, bf16*) {}
GOLF_INLINE void product_dot(const PackedMatrix&, DType, const bf16*, float*, int64_t, int64_t, int64_t) {}

#endif

}  // namespace
}  // namespace GOLF_ISA_NS
}  // namespace golf
