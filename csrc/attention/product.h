// Products of packed operands, a register block at a time: of vectors here, of bf16 tiles in product_amx.h. Both have
//   multiply      acc = left right
//   put_product   the same, into f32 numbers kOut apart by row
//   add_product   added to those, or put where this is the first term
//   Columns       the left operand of a product that reduces over rows
//   ProductState  what has to live on a thread while it multiplies
// with left[r][step] at left + r * kLeftRow + step * kLeftStep and right[step][c] at right + step * kRightStep + c *
// P::kDepth, in elements of P::E; a step is a unit of P::kDepth numbers.
#pragma once

#include "attention/pack.h"

#if defined(__AMX_BF16__)
#include "attention/product_amx.h"
#else

namespace golf {
namespace GOLF_ISA_NS {
namespace {

struct ProductState {};

template <int kR>
GOLF_INLINE void clear(V (&acc)[kR][kCols]) {
#pragma GCC unroll 16
  for (int r = 0; r < kR; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) acc[r][c] = zero();
}

// acc[r][c] = sum over `steps` units of left[r][step] right[step][c], in one chain. Strides in elements of P::E.
template <class P, int kR, int kLeftRow, int kLeftStep, int kRightStep>
GOLF_PRODUCT void multiply_chain(int steps, const typename P::E* left, const typename P::E* right,
                                 V (&acc)[kR][kCols]) {
  V sums[kR][kCols];  // acc's own place may be memory
  clear(sums);
  for (int s = 0; s < steps; ++s) {
    typename P::Operand b[kCols];
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) b[c] = P::operand(right + c * kLanes * P::kDepth);
#pragma GCC unroll 16
    for (int r = 0; r < kR; ++r) {
      const typename P::Operand a = P::broadcast(left + r * kLeftRow);
#pragma GCC unroll 8
      for (int c = 0; c < kCols; ++c) sums[r][c] = P::dot(sums[r][c], a, b[c]);
    }
    left += kLeftStep;
    right += kRightStep;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kR; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) acc[r][c] = sums[r][c];
}

// The same in chains of at most kChain numbers in f32: what a chain of roundings loses grows with its length, and one
// over a head of 128 lost more than twice what plain torch does. In bf16 the operands' rounding rules. Every product of
// queries and keys must be cut alike: the backward pass has to find the scores of the forward pass.
constexpr int kChain = 32;

template <class P, int kR, int kLeftRow, int kLeftStep, int kRightStep>
GOLF_INLINE void multiply(int steps, const typename P::E* left, const typename P::E* right, V (&acc)[kR][kCols]) {
  constexpr auto chain = &multiply_chain<P, kR, kLeftRow, kLeftStep, kRightStep>;
  const int first = P::kExact && steps > kChain ? kChain : steps;
  chain(first, left, right, acc);
  for (int done = first; P::kExact && done < steps; done += kChain) {
    V part[kR][kCols];
    chain(steps - done < kChain ? steps - done : kChain, left + done * kLeftStep, right + done * kRightStep, part);
#pragma GCC unroll 16
    for (int r = 0; r < kR; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < kCols; ++c) acc[r][c] = add(acc[r][c], part[r][c]);
  }
}

template <int kR, int kStride>
GOLF_INLINE void put_block(const V (&acc)[kR][kCols], float* out) {
#pragma GCC unroll 16
  for (int r = 0; r < kR; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) store(out + r * kStride + c * kLanes, acc[r][c]);
}

// out += acc, or = where this is the first term. Each tile's terms are summed from zero: one chain through the terms of
// all tiles would lose three times as much in f32 as blocks do.
template <int kR, int kStride>
GOLF_INLINE void add_block(const V (&acc)[kR][kCols], float* out, bool is_first) {
  if (is_first) return put_block<kR, kStride>(acc, out);
#pragma GCC unroll 16
  for (int r = 0; r < kR; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < kCols; ++c) {
      float* to = out + r * kStride + c * kLanes;
      store(to, add(load(to), acc[r][c]));
    }
}

template <class P, int kLeftRow, int kLeftStep, int kRightStep, int kOut>
GOLF_INLINE void put_product(int steps, const typename P::E* left, const typename P::E* right, float* out) {
  V acc[kRows][kCols];
  multiply<P, kRows, kLeftRow, kLeftStep, kRightStep>(steps, left, right, acc);
  put_block<kRows, kOut>(acc, out);
}

template <class P, int kLeftRow, int kLeftStep, int kRightStep, int kOut>
GOLF_INLINE void add_product(int steps, const typename P::E* left, const typename P::E* right, float* out,
                             bool is_first) {
  V acc[kRows][kCols];
  multiply<P, kRows, kLeftRow, kLeftStep, kRightStep>(steps, left, right, acc);
  add_block<kRows, kOut>(acc, out, is_first);
}

// Rows [rows][kH] of a tile as a left operand that has a row for each of the kH columns: in pairs of rows.
template <class P, int kH>
struct Columns {
  static constexpr int kRow = P::kDepth, kStep = kH * P::kDepth;
  static GOLF_MEMBER void pack(const typename P::E* in, int rows, typename P::E* out) {
    if constexpr (P::kDepth == 2) pair_rows<P, kH>(in, rows, out);
  }
};

}  // namespace
}  // namespace GOLF_ISA_NS
}  // namespace golf

#endif
