// The search for the cheapest path of a trellis, for quant_body.h only.
//
// From state s the cosets c = z and z + 2 (z = s & 1) lead to (s >> 1) ^ mask[c]. So state n is reached from even
// states by cosets 0 and 2 where its top bit is clear, from odd ones by 1 and 3 where it is set, and in both cases from
//   s = 2 ((n ^ mask[c]) mod half) + z.
// A choice bit says that the second of the two was cheaper. Costs start at 0 in state 0 and out of reach elsewhere;
// they are lowered by that of state 0 every 64 rows, which keeps them small and changes no comparison but by rounding.
#pragma once

#include "vec.h"

namespace golf {
namespace GOLF_ISA_NS {

constexpr float kOutOfReach = 1e30f;
constexpr int64_t kLower = 64;

// Added and taken away again, it leaves the nearest integer, halves to even, of |x| < 2^22.
constexpr float kNearest = 12582912.0f;
GOLF_INLINE float nearest(float x) { return (x + kNearest) - kNearest; }

// The point nearest to x, in half steps, among those that are c modulo 4.
GOLF_INLINE float coset_point(float x, int c) {
  const float offset = static_cast<float>(c);
  return 4.0f * nearest((x - offset) * 0.25f) + offset;
}

GOLF_INLINE uint32_t cheapest(const float* cost, uint32_t states) {
  uint32_t best = 0;
  for (uint32_t s = 1; s < states; ++s)
    if (cost[s] < cost[best]) best = s;
  return best;
}

#if !defined(__AVX512F__)

// choices: one word of 16 bits for 16 states, in ascending order. Returns the cheapest last state.
inline uint32_t viterbi_plain(const TrellisCode& t, const float* cost, int64_t n, uint16_t* choices) {
  const uint32_t states = 1u << t.bits, half = states / 2, words = (states + 15) / 16;
  float now[1 << kMaxTrellis], next[1 << kMaxTrellis];
  for (uint32_t s = 0; s < states; ++s) now[s] = s == 0 ? 0 : kOutOfReach;
  for (int64_t r = 0; r < n; ++r) {
    if (r % kLower == 0 && r > 0) {
      const float base = now[0];
      for (uint32_t s = 0; s < states; ++s) now[s] -= base;
    }
    for (uint32_t word = 0; word < words; ++word) {
      uint32_t chosen = 0;
      for (uint32_t s = 16 * word; s < states && s < 16 * word + 16; ++s) {
        const uint32_t z = s >= half;
        const float a = now[2 * ((s ^ t.mask[z]) & (half - 1)) + z] + cost[z * n + r];
        const float b = now[2 * ((s ^ t.mask[z + 2]) & (half - 1)) + z] + cost[(z + 2) * n + r];
        chosen |= static_cast<uint32_t>(b < a) << (s & 15);
        next[s] = b < a ? b : a;
      }
      choices[r * words + word] = static_cast<uint16_t>(chosen);
    }
    __builtin_memcpy(now, next, states * sizeof(float));
  }
  return cheapest(now, states);
}

#endif

#if defined(__AVX512F__)

// Up to 16 states: all of them in one register.
GOLF_INLINE uint32_t viterbi_small(const TrellisCode& t, const float* cost, int64_t n, uint16_t* choices) {
  const uint32_t states = 1u << t.bits, half = states / 2;
  alignas(64) int32_t first[16], second[16];
  alignas(64) float start[16];
  for (uint32_t i = 0; i < 16; ++i) {
    const uint32_t z = (i & half) != 0;
    first[i] = static_cast<int32_t>(i < states ? 2 * ((i ^ t.mask[z]) & (half - 1)) + z : i);
    second[i] = static_cast<int32_t>(i < states ? 2 * ((i ^ t.mask[z + 2]) & (half - 1)) + z : i);
    start[i] = i == 0 ? 0 : kOutOfReach;
  }
  const __m512i from_a = _mm512_load_si512(first), from_b = _mm512_load_si512(second);
  const __mmask16 upper = static_cast<__mmask16>(((1u << states) - 1) & ~((1u << half) - 1));
  __m512 now = _mm512_load_ps(start);
  for (int64_t r = 0; r < n; ++r) {
    if (r % kLower == 0 && r > 0) now = _mm512_sub_ps(now, _mm512_permutexvar_ps(_mm512_setzero_si512(), now));
    const __m512 add_a = _mm512_mask_mov_ps(_mm512_set1_ps(cost[r]), upper, _mm512_set1_ps(cost[n + r]));
    const __m512 add_b = _mm512_mask_mov_ps(_mm512_set1_ps(cost[2 * n + r]), upper, _mm512_set1_ps(cost[3 * n + r]));
    const __m512 a = _mm512_add_ps(_mm512_permutexvar_ps(from_a, now), add_a);
    const __m512 b = _mm512_add_ps(_mm512_permutexvar_ps(from_b, now), add_b);
    choices[r] = static_cast<uint16_t>(_mm512_cmp_ps_mask(b, a, _CMP_LT_OQ));
    now = _mm512_min_ps(b, a);  // a where they are equal
  }
  _mm512_store_ps(start, now);
  return cheapest(start, states);
}

template <uint32_t kBits>
GOLF_INLINE uint32_t viterbi_large(const TrellisCode& t, const float* cost, int64_t n, uint16_t* choices) {
  constexpr uint32_t kStates = 1u << kBits, kHalf = kStates / 2, kBlocks = kStates / 16;
  alignas(64) float now[kStates], next[kStates];
  for (uint32_t s = 0; s < kStates; ++s) now[s] = s == 0 ? 0 : kOutOfReach;
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512i pick[4];  // lanes of two neighboring registers that hold the states of parity c & 1
  for (uint32_t c = 0; c < 4; ++c) {
    const __m512i flipped = _mm512_xor_si512(lane, _mm512_set1_epi32(static_cast<int32_t>(t.mask[c] & 15)));
    pick[c] = _mm512_add_epi32(_mm512_slli_epi32(flipped, 1), _mm512_set1_epi32(static_cast<int32_t>(c & 1)));
  }
  for (int64_t r = 0; r < n; ++r) {
    if (r % kLower == 0 && r > 0) {
      const __m512 base = _mm512_set1_ps(now[0]);
      for (uint32_t b = 0; b < kBlocks; ++b)
        _mm512_store_ps(now + 16 * b, _mm512_sub_ps(_mm512_load_ps(now + 16 * b), base));
    }
    __m512 step[4];
    for (uint32_t c = 0; c < 4; ++c) step[c] = _mm512_set1_ps(cost[c * n + r]);
    for (uint32_t block = 0; block < kBlocks; ++block) {
      const uint32_t z = block >= kBlocks / 2, at = (16 * block) & (kHalf - 1);
      __m512 sums[2];
      for (uint32_t second = 0; second < 2; ++second) {
        const uint32_t c = z + 2 * second;
        const float* const from = now + 2 * ((at ^ t.mask[c]) & (kHalf - 1) & ~15u);
        sums[second] =
            _mm512_add_ps(_mm512_permutex2var_ps(_mm512_load_ps(from), pick[c], _mm512_load_ps(from + 16)), step[c]);
      }
      choices[r * kBlocks + block] = static_cast<uint16_t>(_mm512_cmp_ps_mask(sums[1], sums[0], _CMP_LT_OQ));
      _mm512_store_ps(next + 16 * block, _mm512_min_ps(sums[1], sums[0]));
    }
    __builtin_memcpy(now, next, sizeof(now));
  }
  return cheapest(now, kStates);
}

GOLF_INLINE uint32_t viterbi(const TrellisCode& t, const float* cost, int64_t n, uint16_t* choices) {
  switch (t.bits) {
    case 5:
      return viterbi_large<5>(t, cost, n, choices);
    case 6:
      return viterbi_large<6>(t, cost, n, choices);
    case 7:
      return viterbi_large<7>(t, cost, n, choices);
    case 8:
      return viterbi_large<8>(t, cost, n, choices);
    default:
      return viterbi_small(t, cost, n, choices);
  }
}

#elif defined(GOLF_NEON)

// Bytes that put lanes `lane` of two neighboring registers in order.
GOLF_INLINE uint8x16_t bytes_of_lanes(const uint32_t (&lane)[4]) {
  uint8_t bytes[16];
  for (uint32_t i = 0; i < 16; ++i) bytes[i] = static_cast<uint8_t>(4 * lane[i / 4] + i % 4);
  return vld1q_u8(bytes);
}

// From 8 states on: four of them in a register, whose predecessors of one parity lie in two neighboring ones.
template <uint32_t kBits>
GOLF_INLINE uint32_t viterbi_lanes(const TrellisCode& t, const float* cost, int64_t n, uint16_t* choices) {
  constexpr uint32_t kStates = 1u << kBits, kHalf = kStates / 2, kWords = (kStates + 15) / 16;
  float now[kStates], next[kStates];
  for (uint32_t s = 0; s < kStates; ++s) now[s] = s == 0 ? 0 : kOutOfReach;
  uint8x16_t pick[4];  // lanes of two registers that hold the states of parity c & 1
  for (uint32_t c = 0; c < 4; ++c) {
    const uint32_t flip = t.mask[c] & 3, z = c & 1;
    pick[c] = bytes_of_lanes({2 * (0 ^ flip) + z, 2 * (1 ^ flip) + z, 2 * (2 ^ flip) + z, 2 * (3 ^ flip) + z});
  }
  constexpr uint32_t kBit[4] = {1, 2, 4, 8};
  const uint32x4_t bit = vld1q_u32(kBit);
  for (int64_t r = 0; r < n; ++r) {
    if (r % kLower == 0 && r > 0) {
      const float32x4_t base = vdupq_n_f32(now[0]);
      for (uint32_t s = 0; s < kStates; s += 4) vst1q_f32(now + s, vsubq_f32(vld1q_f32(now + s), base));
    }
    float32x4_t step[4];
    for (uint32_t c = 0; c < 4; ++c) step[c] = vdupq_n_f32(cost[c * n + r]);
    for (uint32_t word = 0; word < kWords; ++word) {
      uint32x4_t chosen = vdupq_n_u32(0);
#pragma GCC unroll 4
      for (uint32_t part = 0; part < (kStates < 16 ? kStates / 4 : 4); ++part) {
        const uint32_t at = 16 * word + 4 * part, z = at >= kHalf;
        float32x4_t sums[2];
#pragma GCC unroll 2
        for (uint32_t second = 0; second < 2; ++second) {
          const uint32_t c = z + 2 * second;
          const float* const from = now + 2 * ((at ^ t.mask[c]) & (kHalf - 1) & ~3u);
          const uint8x16x2_t both = {
              {vreinterpretq_u8_f32(vld1q_f32(from)), vreinterpretq_u8_f32(vld1q_f32(from + 4))}};
          sums[second] = vaddq_f32(vreinterpretq_f32_u8(vqtbl2q_u8(both, pick[c])), step[c]);
        }
        const uint32x4_t cheaper = vcltq_f32(sums[1], sums[0]);
        chosen = vorrq_u32(chosen, vandq_u32(cheaper, vshlq_u32(bit, vdupq_n_s32(static_cast<int32_t>(4 * part)))));
        vst1q_f32(next + at, vbslq_f32(cheaper, sums[1], sums[0]));
      }
      choices[r * kWords + word] = static_cast<uint16_t>(vaddvq_u32(chosen));
    }
    __builtin_memcpy(now, next, sizeof(now));
  }
  return cheapest(now, kStates);
}

GOLF_INLINE uint32_t viterbi(const TrellisCode& t, const float* cost, int64_t n, uint16_t* choices) {
  switch (t.bits) {
    case 3:
      return viterbi_lanes<3>(t, cost, n, choices);
    case 4:
      return viterbi_lanes<4>(t, cost, n, choices);
    case 5:
      return viterbi_lanes<5>(t, cost, n, choices);
    case 6:
      return viterbi_lanes<6>(t, cost, n, choices);
    case 7:
      return viterbi_lanes<7>(t, cost, n, choices);
    case 8:
      return viterbi_lanes<8>(t, cost, n, choices);
    default:
      return viterbi_plain(t, cost, n, choices);
  }
}

#else

GOLF_INLINE uint32_t viterbi(const TrellisCode& t, const float* cost, int64_t n, uint16_t* choices) {
  return viterbi_plain(t, cost, n, choices);
}

#endif

// use(r, coset) for every row of the path that ends in `state`, the last row first.
template <class Use>
GOLF_INLINE void trace_back(const TrellisCode& t, uint32_t state, int64_t n, const uint16_t* choices, const Use& use) {
  const uint32_t half = 1u << (t.bits - 1), words = ((1u << t.bits) + 15) / 16;
  for (int64_t r = n - 1; r >= 0; --r) {
    const uint32_t z = state >= half, second = choices[r * words + state / 16] >> (state % 16) & 1u;
    const uint32_t coset = z + 2 * second;
    use(r, coset);
    state = 2 * ((state ^ t.mask[coset]) & (half - 1)) + z;
  }
}

}  // namespace GOLF_ISA_NS
}  // namespace golf
