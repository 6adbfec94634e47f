// What attention's kernels for GPUs share: a block's place, who sees whom, tiles in shared memory, and products of
// their fragments (device/ptx.h says which lane holds what).
//
// A tile is rows of kH bf16. Its 16-byte chunks lie permuted within a row, by an exclusive or with the row's number:
// the eight rows of an ldmatrix, the eight chunks of a row and the four bytes a lane that a fragment stores in eight
// rows then all touch every bank once.
#pragma once

#include "attention/attention.h"
#include "device/cuda.h"
#include "device/math.h"
#include "device/memory.h"
#include "device/ptx.h"
#include "device/reduce.h"
#include "device/types.h"

namespace golf {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;

GOLF_DEVICE int least(int a, int b) { return a < b ? a : b; }
GOLF_DEVICE int most(int a, int b) { return a > b ? a : b; }

// --- places ----------------------------------------------------------------------------------------------------------

// Which tile of which head of which row of the batch is a block's. The heads of a tile are neighbors, and a row's
// tiles: what runs at a time reads the same keys out of L2.
struct Place {
  int row, tile, head;
};

GOLF_DEVICE Place place_of_block(int tiles, int heads) {
  const int index = static_cast<int>(blockIdx.x), rest = index / heads;
  return {rest / tiles, rest % tiles, index % heads};
}

// Rows of kH numbers that lie `stride` bytes apart: a head of a row of the batch.
struct Rows {
  const unsigned char* first;
  int stride;
};

GOLF_DEVICE Rows rows_of(const void* base, const Strides& strides, int row, int head) {
  return {reinterpret_cast<const unsigned char*>(static_cast<const bf16*>(base) + row * strides.batch +
                                                 head * strides.head),
          static_cast<int>(strides.token) * 2};
}

// cu_seqlens[0] <= token < cu_seqlens[1] of what is returned.
GOLF_DEVICE const int32_t* document_of(const AttentionArgs& args, int token) {
  int low = 0, high = static_cast<int>(args.documents);
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (__ldg(args.cu_seqlens + middle) <= token ? low : high) = middle;
  }
  return args.cu_seqlens + low;
}

// A query sees keys first_key(query) .. query, a key is seen by queries key .. last_query(key). Neither ever falls.
GOLF_DEVICE int first_key(const AttentionArgs& args, int query) {
  const int window = static_cast<int>(args.window);
  int first = window > 0 ? most(0, query - window + 1) : 0;
  if (args.cu_seqlens != nullptr) first = most(first, least(query, __ldg(document_of(args, query))));
  return first;
}

GOLF_DEVICE int last_query(const AttentionArgs& args, int key) {
  const int window = static_cast<int>(args.window);
  int last = static_cast<int>(args.tokens) - 1;
  if (window > 0) last = least(last, key + window - 1);
  if (args.cu_seqlens != nullptr) last = least(last, most(key + 1, __ldg(document_of(args, key) + 1)) - 1);
  return last;
}

GOLF_DEVICE float gate_of(const AttentionArgs& args, int64_t at) {
  return args.gate_dtype == DType::kF32 ? static_cast<const float*>(args.gate)[at]
                                        : to_float(static_cast<const bf16*>(args.gate)[at]);
}

// --- tiles -----------------------------------------------------------------------------------------------------------

// Bytes from a tile's start to a chunk.
template <int kH>
GOLF_DEVICE int place_in_tile(int row, int chunk) {
  constexpr int kChunks = kH / 8;
  const int turn = kChunks >= 8 ? row % 8 : row / 2 % 4;
  return (row * kChunks + (chunk ^ turn)) * 16;
}

// Starts to copy rows first .. first + kRows - 1; those from `end` on are not read, and zero.
template <int kRows, int kH>
GOLF_DEVICE void copy_rows(unsigned char* tile, const Rows& rows, int first, int end) {
  constexpr int kChunks = kH / 8, kEach = kThreads / kChunks;
  static_assert(kRows % kEach == 0);
  const int thread = static_cast<int>(threadIdx.x), row = thread / kChunks, chunk = thread % kChunks;
#pragma unroll
  for (int i = 0; i < kRows; i += kEach)
    cp_async(tile + place_in_tile<kH>(row + i, chunk), rows.first + int64_t{first + row + i} * rows.stride + chunk * 16,
             first + row + i < end ? 16 : 0);
}

// What a lane adds to the place of a tile's row for ldmatrix: rows of A, or rows of B where it is [k][n] (transposed).
template <int kH>
GOLF_DEVICE int lane_of_rows(int lane) {
  return place_in_tile<kH>(lane % 16, lane / 16);
}
// Rows of B where it is [n][k].
template <int kH>
GOLF_DEVICE int lane_of_columns(int lane) {
  return place_in_tile<kH>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
}
// Columns 16 step .. 16 step + 15 of the rows at `place`, a multiple of a row's bytes and a lane's addition. Written so
// that one exclusive or is all that is left to do in a loop over places, and nothing to keep in registers.
GOLF_DEVICE int at_step(int place, int step) { return place ^ (step * 32); }

template <int kH>
constexpr int kBytesOf16Rows = 16 * kH * 2;

// --- products --------------------------------------------------------------------------------------------------------

template <int kRowTiles>
struct Left {  // 16 kRowTiles rows, 16 columns
  uint32_t at[kRowTiles][4];
};

template <int kRowTiles, int kColumns>
struct Sums {
  float at[kRowTiles][kColumns / 8][4];

  GOLF_DEVICE void clear() {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int j = 0; j < kColumns / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) at[r][j][e] = 0.0f;
  }

  // Columns 16 pair .. 16 pair + 15 from four tiles of B.
  GOLF_DEVICE void add(int pair, const Left<kRowTiles>& left, const uint32_t (&right)[4]) {
    const uint32_t first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      mma_bf16(at[r][2 * pair], left.at[r], first);
      mma_bf16(at[r][2 * pair + 1], left.at[r], second);
    }
  }

  // Numbers outside of columns low(row) .. high(row) become -infinity.
  template <class Low, class High>
  GOLF_DEVICE void keep(const Low& low, const High& high, int lane) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = r * 16 + half * 8 + lane / 4, first = low(row), last = high(row);
#pragma unroll
        for (int j = 0; j < kColumns / 8; ++j)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int column = j * 8 + lane % 4 * 2 + e;
            float& number = at[r][j][2 * half + e];
            number = column >= first && column <= last ? number : -INFINITY;
          }
      }
  }

  // Columns 16 step .. 16 step + 15, rounded, as the left operand of the next product.
  GOLF_DEVICE Left<kRowTiles> left(int step) const {
    Left<kRowTiles> out;
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* const pair = at[r][2 * step + i / 2] + i % 2 * 2;
        out.at[r][i] = to_bf16x2(pair[0], pair[1]);
      }
    return out;
  }
};

// `place` and `right` count from `shared` and include the lane's own.
template <int kH, int kRowTiles>
GOLF_DEVICE Left<kRowTiles> load_left(const unsigned char* shared, int place, int step) {
  Left<kRowTiles> out;
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) ldmatrix_x4(out.at[r], shared + at_step(place, step) + r * kBytesOf16Rows<kH>);
  return out;
}

// sums += left right^T over 16 of the kH columns that both have; `right` is the place of kColumns rows.
template <int kH, int kRowTiles, int kColumns>
GOLF_DEVICE void add_by_columns(Sums<kRowTiles, kColumns>& sums, const Left<kRowTiles>& left,
                                const unsigned char* shared, int right, int step) {
#pragma unroll
  for (int pair = 0; pair < kColumns / 16; ++pair) {
    uint32_t b[4];
    ldmatrix_x4(b, shared + at_step(right, step) + pair * kBytesOf16Rows<kH>);
    sums.add(pair, left, b);
  }
}

// sums += left right; `right` is the place of 16 rows.
template <int kH, int kRowTiles>
GOLF_DEVICE void add_by_rows(Sums<kRowTiles, kH>& sums, const Left<kRowTiles>& left, const unsigned char* shared,
                             int right) {
#pragma unroll
  for (int pair = 0; pair < kH / 16; ++pair) {
    uint32_t b[4];
    ldmatrix_x4_trans(b, shared + at_step(right, pair));
    sums.add(pair, left, b);
  }
}

// A warp's rows of results, rounded, through rows of a tile that no other warp uses; then fn(row, column, eight
// numbers) for the first `count` of them, row by row, so that 16 bytes a lane go to global memory.
template <int kH, int kRowTiles, class Fn>
GOLF_DEVICE void hand_out(unsigned char* rows, const Sums<kRowTiles, kH>& sums, int count, const Fn& fn) {
  constexpr int kChunks = kH / 8;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  __syncwarp();
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
    for (int j = 0; j < kChunks; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        *reinterpret_cast<uint32_t*>(rows + place_in_tile<kH>(r * 16 + half * 8 + lane / 4, j) + lane % 4 * 4) =
            to_bf16x2(sums.at[r][j][2 * half], sums.at[r][j][2 * half + 1]);
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 16 * kRowTiles * kChunks / kWarpSize; ++i) {
    const int at = i * kWarpSize + lane, row = at / kChunks, chunk = at % kChunks;
    if (row < count) fn(row, chunk * 8, load<8>(reinterpret_cast<const bf16*>(rows + place_in_tile<kH>(row, chunk))));
  }
}

}  // namespace
}  // namespace golf
