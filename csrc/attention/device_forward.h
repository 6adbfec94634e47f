// Forward on a GPU: FlashAttention-2's loop (arXiv:2307.08691). A block takes 128 queries of a head, 32 a warp; keys
// and values come in tiles of 64, the next one under way while this one is multiplied. Tiles go from the oldest key to
// the newest, so that at the end the tokens' own values, which xsa needs, are still there.
#pragma once

#include "attention/device_tile.h"

namespace golf {
namespace {

template <int kH>
struct ForwardTiles {
  static constexpr int kRowTiles = 2, kWarpRows = 16 * kRowTiles, kQueries = kWarps * kWarpRows, kKeys = 64;
  static constexpr int kStep = kH <= 64 ? kKeys : 32;  // keys whose scores a warp holds at a time
  static constexpr bool kKeepsQueries = kH <= 64;      // in registers; else they are read again for each tile of keys
  static constexpr int kQueryBytes = kQueries * kH * 2, kKeyBytes = kKeys * kH * 2;
  // Shared memory: queries, two tiles of keys, two of values, first_key() of each query.
  static constexpr int kKeysAt = kQueryBytes, kValuesAt = kKeysAt + 2 * kKeyBytes,
                       kFirstsAt = kValuesAt + 2 * kKeyBytes;
  static constexpr int kBytes = kFirstsAt + kQueries * static_cast<int>(sizeof(int));
  static_assert(kStep % kWarpRows == 0 && kQueries <= 2 * kKeys);  // a warp's own values: one tile, of the last two
};

// A warp's queries and their results so far. A lane has rows lane / 4 + 8 half of each 16, in each its columns.
template <int kH>
struct ForwardRows {
  using Tiles = ForwardTiles<kH>;
  static constexpr int kRowTiles = Tiles::kRowTiles;

  Left<kRowTiles> q[Tiles::kKeepsQueries ? kH / 16 : 1];
  Sums<kRowTiles, kH> o;
  float top[kRowTiles][2], total[kRowTiles][2];  // of the scores, in powers of two; of the lane's probabilities

  GOLF_DEVICE void start(const unsigned char* shared, int queries, int lane) {
    if constexpr (Tiles::kKeepsQueries) {
#pragma unroll
      for (int step = 0; step < kH / 16; ++step)
        q[step] = load_left<kH, kRowTiles>(shared, queries + lane_of_rows<kH>(lane), step);
    }
    o.clear();
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        top[r][half] = -INFINITY;
        total[r][half] = 0.0f;
      }
  }

  // kStep keys from number `key` on; `query` is the number of the warp's first. `queries`, `keys` and `values` are
  // their places, `firsts` the first key that each row sees, null where all of these are for every row.
  GOLF_DEVICE void add(const unsigned char* shared, int queries, int keys, int values, float scale, int key, int query,
                       const int* firsts, int lane) {
    Sums<kRowTiles, Tiles::kStep> s;
    s.clear();
#pragma unroll
    for (int step = 0; step < kH / 16; ++step) {
      Left<kRowTiles> left;
      if constexpr (Tiles::kKeepsQueries)
        left = q[step];
      else
        left = load_left<kH, kRowTiles>(shared, queries + lane_of_rows<kH>(lane), step);
      add_by_columns<kH>(s, left, shared, keys + lane_of_columns<kH>(lane), step);
    }
    if (firsts != nullptr)
      s.keep([&](int row) { return firsts[row] - key; }, [&](int row) { return query + row - key; }, lane);
    exponentials(s, scale);
#pragma unroll
    for (int step = 0; step < Tiles::kStep / 16; ++step)
      add_by_rows<kH>(o, s.left(step), shared, values + step * kBytesOf16Rows<kH> + lane_of_rows<kH>(lane));
  }

  // Scores become 2^(score scale - top); what was summed under an older top is brought to the new one.
  GOLF_DEVICE void exponentials(Sums<kRowTiles, Tiles::kStep>& s, float scale) {
    float decay[kRowTiles][2];
    bool rises = false;
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float largest = -INFINITY;
#pragma unroll
        for (int j = 0; j < Tiles::kStep / 8; ++j)
          largest = fmaxf(largest, fmaxf(s.at[r][j][2 * half], s.at[r][j][2 * half + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
        const float newest = fmaxf(top[r][half], largest * scale);
        const float base = newest == -INFINITY ? 0.0f : newest;  // no key yet: every score is -infinity
        decay[r][half] = exp2_fast(top[r][half] - base);
        rises = rises || top[r][half] != newest;
        top[r][half] = newest;
        float sum = total[r][half] * decay[r][half];
#pragma unroll
        for (int j = 0; j < Tiles::kStep / 8; ++j)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            s.at[r][j][e] = exp2_fast(fmaf(s.at[r][j][e], scale, -base));
            sum += s.at[r][j][e];
          }
        total[r][half] = sum;
      }
    if (!__any_sync(kAllLanes, rises)) return;  // most tiles after the first few: no row has a new largest score
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) times(r, half, decay[r][half]);
  }

  // o by its denominator, and the denominators' logarithms to lse, for `count` rows.
  GOLF_DEVICE void divide(float* lse, int count, int lane) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float sum = total[r][half];
        sum += __shfl_xor_sync(kAllLanes, sum, 1);
        sum += __shfl_xor_sync(kAllLanes, sum, 2);
        const int row = r * 16 + half * 8 + lane / 4;
        if (lane % 4 == 0 && row < count) lse[row] = fmaf(top[r][half], kLn2, logf(sum));
        times(r, half, 1.0f / sum);
      }
  }

  // Takes the component along the tokens' own values out; `values`: the warp's rows of a tile.
  GOLF_DEVICE void exclude(const unsigned char* values, int lane) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const auto value = [&](int j) {
          return *reinterpret_cast<const uint32_t*>(values + place_in_tile<kH>(r * 16 + half * 8 + lane / 4, j) +
                                                    lane % 4 * 4);
        };
        float dot = 0.0f, squares = 0.0f;
#pragma unroll
        for (int j = 0; j < kH / 8; ++j) {
          const float low = low_float(value(j)), high = high_float(value(j));
          dot = fmaf(o.at[r][j][2 * half], low, fmaf(o.at[r][j][2 * half + 1], high, dot));
          squares = fmaf(low, low, fmaf(high, high, squares));
        }
        dot += __shfl_xor_sync(kAllLanes, dot, 1);
        squares += __shfl_xor_sync(kAllLanes, squares, 1);
        dot += __shfl_xor_sync(kAllLanes, dot, 2);
        squares += __shfl_xor_sync(kAllLanes, squares, 2);
        const float inverse = 1.0f / fmaxf(sqrtf(squares), 1e-12f), along = dot * inverse * inverse;
#pragma unroll
        for (int j = 0; j < kH / 8; ++j) {
          o.at[r][j][2 * half] = fmaf(-along, low_float(value(j)), o.at[r][j][2 * half]);
          o.at[r][j][2 * half + 1] = fmaf(-along, high_float(value(j)), o.at[r][j][2 * half + 1]);
        }
      }
  }

  GOLF_DEVICE void times(int r, int half, float factor) {
#pragma unroll
    for (int j = 0; j < kH / 8; ++j) {
      o.at[r][j][2 * half] *= factor;
      o.at[r][j][2 * half + 1] *= factor;
    }
  }

  // `at`: of the gate of the first row, those of the others lie `heads` apart.
  GOLF_DEVICE void apply_gate(const AttentionArgs& args, int64_t at, int count, int lane) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = least(r * 16 + half * 8 + lane / 4, count - 1);
        times(r, half, gate_of(args, at + int64_t{row} * args.heads));
      }
  }
};

template <int kH>
GOLF_KERNEL(forward, kThreads, 2, AttentionArgs args) {
  using Tiles = ForwardTiles<kH>;
  GOLF_DYNAMIC_SHARED(shared);
  int* const firsts = reinterpret_cast<int*>(shared + Tiles::kFirstsAt);
  const int tokens = static_cast<int>(args.tokens), tiles = (tokens + Tiles::kQueries - 1) / Tiles::kQueries;
  const Place block = place_of_block(tiles, args.heads);
  const int kv_head = block.head / (args.heads / args.kv_heads);
  const int query = (tiles - 1 - block.tile) * Tiles::kQueries;  // the longest rows first
  copy_rows<Tiles::kQueries, kH>(shared, rows_of(args.q, args.q_strides, block.row, block.head), query, tokens);
  for (int i = static_cast<int>(threadIdx.x); i < Tiles::kQueries; i += kThreads)
    firsts[i] = first_key(args, least(query + i, tokens - 1));
  __syncthreads();

  const Rows k = rows_of(args.k, args.k_strides, block.row, kv_head);
  const Rows v = rows_of(args.v, args.v_strides, block.row, kv_head);
  const auto copy_tile = [&](int tile) {
    const int at = tile % 2 * Tiles::kKeyBytes;
    copy_rows<Tiles::kKeys, kH>(shared + Tiles::kKeysAt + at, k, tile * Tiles::kKeys, tokens);
    copy_rows<Tiles::kKeys, kH>(shared + Tiles::kValuesAt + at, v, tile * Tiles::kKeys, tokens);
    cp_async_commit();
  };
  const int oldest = firsts[0] / Tiles::kKeys, newest = (least(query + Tiles::kQueries, tokens) - 1) / Tiles::kKeys;
  copy_tile(oldest);
  cp_async_wait<0>();
  __syncthreads();

  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, row = static_cast<int>(threadIdx.x) - lane;
  const int mine = query + row, count = least(Tiles::kWarpRows, tokens - mine);  // the warp's rows; may be none
  const int my_queries = row * kH * 2;
  const int first_seen = firsts[row], seen_by_all = firsts[row + Tiles::kWarpRows - 1];
  const float scale = args.scale * kLog2E;
  ForwardRows<kH> rows;
  rows.start(shared, my_queries, lane);
  for (int tile = oldest; tile <= newest; ++tile) {
    if (tile < newest) copy_tile(tile + 1);
    const int at = tile % 2 * Tiles::kKeyBytes;
#pragma unroll 1
    for (int i = 0; i < Tiles::kKeys; i += Tiles::kStep) {
      const int first = tile * Tiles::kKeys + i, last = first + Tiles::kStep - 1, place = at + i * kH * 2;
      if (count <= 0 || first >= mine + count || last < first_seen) continue;
      const bool hides = first < seen_by_all || last > mine;
      rows.add(shared, my_queries, Tiles::kKeysAt + place, Tiles::kValuesAt + place, scale, first, mine,
               hides ? firsts + row : nullptr, lane);
    }
    cp_async_wait<0>();
    __syncthreads();  // the next tile is there, and nobody reads this one any more
  }
  if (count <= 0) return;

  const int64_t token = block.row * args.tokens + mine;
  const int64_t head_row = static_cast<int64_t>(block.head) * args.batch * args.tokens;
  const auto put = [&](void* to) {
    bf16* const out = static_cast<bf16*>(to) + (token * args.heads + block.head) * kH;
    hand_out(shared + my_queries, rows.o, count, [&](int i, int column, const Pack<bf16, 8>& numbers) {
      store(out + int64_t{i} * args.heads * kH + column, numbers);
    });
  };
  rows.divide(args.lse + head_row + token, count, lane);
  if (args.xsa || args.gate != nullptr) put(args.out);
  if (args.xsa)
    rows.exclude(shared + Tiles::kValuesAt + mine / Tiles::kKeys % 2 * Tiles::kKeyBytes + mine % Tiles::kKeys * kH * 2,
                 lane);
  if (args.gate != nullptr) rows.apply_gate(args, token * args.heads + block.head, count, lane);
  put(args.y);
}

}  // namespace
}  // namespace golf
