// product.h in tiles of 16 rows of 64 bytes: 16 sums in f32, or 16 units. A register block is two by two of them.
//
// A left tile is 16 rows that are contiguous along the reduction, a right one 16 steps: PackBF16's layouts as they are.
#pragma once

#include "attention/pack.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

// The shapes of this thread's tiles. Nobody's outlive a call: torch's oneDNN sets its own for each product.
class ProductState {
 public:
  ProductState() { _tile_loadconfig(&kShapes); }
  ~ProductState() { _tile_release(); }
  ProductState(const ProductState&) = delete;
  ProductState& operator=(const ProductState&) = delete;

 private:
  struct Shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];  // of a row
    uint8_t rows[16];
  };
  alignas(64) static constexpr Shapes kShapes = {
      1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
};

constexpr int kSide = 16;  // rows of a tile, and sums or units of a row

// Tiles 0 to 3 += left right.
template <class P, int kLeftRow, int kLeftStep, int kRightStep>
GOLF_INLINE void accumulate(int steps, const bf16* left, const bf16* right) {
  static_assert(P::kDepth == 2 && kLeftStep == 2, "the left operand is contiguous along the reduction");
  constexpr int64_t kLeftBytes = kLeftRow * 2, kRightBytes = kRightStep * 2;
  __asm__ volatile("" ::: "memory");  // gcc does not know that loading a tile reads what was stored
  for (int s = 0; s < steps; s += kSide) {
    _tile_loadd(4, left, kLeftBytes);
    _tile_loadd(6, right, kRightBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, right + kSide * 2, kRightBytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, left + kSide * kLeftRow, kLeftBytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    left += kSide * kLeftStep;
    right += kSide * kRightStep;
  }
}

GOLF_INLINE void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}
template <int kOut>
GOLF_INLINE void load_sums(const float* out) {
  __asm__ volatile("" ::: "memory");
  _tile_loadd(0, out, kOut * 4);
  _tile_loadd(1, out + kSide, kOut * 4);
  _tile_loadd(2, out + kSide * kOut, kOut * 4);
  _tile_loadd(3, out + kSide * kOut + kSide, kOut * 4);
}
template <int kOut>
GOLF_INLINE void store_sums(float* out) {
  _tile_stored(0, out, kOut * 4);
  _tile_stored(1, out + kSide, kOut * 4);
  _tile_stored(2, out + kSide * kOut, kOut * 4);
  _tile_stored(3, out + kSide * kOut + kSide, kOut * 4);
}

template <class P, int kLeftRow, int kLeftStep, int kRightStep, int kOut>
GOLF_INLINE void put_product(int steps, const bf16* left, const bf16* right, float* out) {
  clear_sums();
  accumulate<P, kLeftRow, kLeftStep, kRightStep>(steps, left, right);
  store_sums<kOut>(out);
}

// In one chain through the terms of all tiles: the rounding of the operands outweighs what that loses.
template <class P, int kLeftRow, int kLeftStep, int kRightStep, int kOut>
GOLF_INLINE void add_product(int steps, const bf16* left, const bf16* right, float* out, bool is_first) {
  if (is_first)
    clear_sums();
  else
    load_sums<kOut>(out);
  accumulate<P, kLeftRow, kLeftStep, kRightStep>(steps, left, right);
  store_sums<kOut>(out);
}

template <class P, int kR, int kLeftRow, int kLeftStep, int kRightStep>
GOLF_INLINE void multiply(int steps, const bf16* left, const bf16* right, V (&acc)[kR][kCols]) {
  static_assert(kR == 2 * kSide && kBlock == 2 * kSide, "a register block is two by two tiles");
  put_product<P, kLeftRow, kLeftStep, kRightStep, kBlock>(steps, left, right, reinterpret_cast<float*>(acc));
}

// Rows [rows][kH] of a tile as a left operand that has a row for each of the kH columns: [kH][kTile], transposed.
template <class P, int kH>
struct Columns {
  static constexpr int kRow = kTile, kStep = P::kDepth;
  static GOLF_MEMBER void pack(const bf16* in, int rows, bf16* out) {
    alignas(64) bf16 pairs[kTile * kH];
    pair_rows<P, kH>(in, rows, pairs);
    for (int i = 0; i < rows; i += 2 * kSide)
      for (int d = 0; d < kH; d += kSide) transpose_block(pairs + i * kH + d * 2, kH, out + d * kTile + i, kTile / 2);
  }
};

}  // namespace
}  // namespace GOLF_ISA_NS
}  // namespace golf
