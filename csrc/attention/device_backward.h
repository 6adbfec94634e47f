// Backward on a GPU, in three kernels (backward.h has the formulas):
//   prepare           the gradient of o, delta = do . o and the gate's gradient, by rows
//   backward_keys     dk and dv: a block takes a tile of keys, and goes over their queries in all heads of the group
//   backward_queries  dq: a block takes a tile of queries of a head, and goes over their keys
// Scores and dp are computed twice, seven products where five would do; for that every number has one owner that sums
// in one order: no atomics, no f32 sums in global memory, the same bits each time. p and ds never leave the registers:
// backward_keys computes them transposed, so that what comes out of one product is the left operand of the next.
#pragma once

#include "attention/device_tile.h"

namespace golf {
namespace {

// The two numbers of each query that prepare leaves behind, for a head of a row of the batch.
struct RowSums {
  float *minus_lse, *delta;  // minus_lse in powers of two
};

GOLF_DEVICE RowSums row_sums_of(const AttentionArgs& args, int row, int head) {
  const int length = (static_cast<int>(args.tokens) + 3) / 4 * 4;
  float* const at = args.row_sums + (head * args.batch + row) * 2 * length;
  return {at, at + length};
}

// --- prepare ---------------------------------------------------------------------------------------------------------

// kLanes lanes share a row, eight numbers each.
template <int kLanes>
GOLF_DEVICE float dot(const Floats<8>& a, const Floats<8>& b) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = fmaf(a.at[i], b.at[i], sum);
  return warp_sum<kLanes>(sum);
}

// a + factor b
GOLF_DEVICE Floats<8> plus(const Floats<8>& a, float factor, const Floats<8>& b) {
  Floats<8> out;
#pragma unroll
  for (int i = 0; i < 8; ++i) out.at[i] = fmaf(factor, b.at[i], a.at[i]);
  return out;
}

// Back through gate and xsa for the heads that share a token's key, in order; what xsa adds to dv goes to dv.
template <int kH>
GOLF_KERNEL(prepare, kThreads, 4, AttentionArgs args) {
  constexpr int kLanes = kH / 8;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, lane = thread % kLanes;
  const int64_t units = args.batch * args.tokens * args.kv_heads, unit = thread / kLanes;
  const bool active = unit < units;
  const int64_t index = (active ? unit : 0) / args.kv_heads, kv_head = (active ? unit : 0) % args.kv_heads;
  const int64_t row = index / args.tokens, token = index % args.tokens, group = args.heads / args.kv_heads;
  Floats<8> u{}, extra{};
  float inverse = 0.0f;
  if (args.xsa) {
    const Strides& v = args.v_strides;
    const bf16* const at = static_cast<const bf16*>(args.v) + row * v.batch + token * v.token + kv_head * v.head;
    const Floats<8> value = load_floats<8>(at + lane * 8);
    inverse = 1.0f / fmaxf(sqrtf(dot<kLanes>(value, value)), 1e-12f);
    u = plus(Floats<8>{}, inverse, value);
  }
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const int64_t at = index * args.heads + head, first = at * kH + lane * 8;
    const Floats<8> dy = load_floats<8>(static_cast<const bf16*>(args.dy) + first);
    const Floats<8> o = load_floats<8>(static_cast<const bf16*>(args.out) + first);
    const float gate = args.gate != nullptr ? gate_of(args, at) : 1.0f;
    const float a = args.xsa ? dot<kLanes>(o, u) : 0.0f, b = args.xsa ? dot<kLanes>(dy, u) : 0.0f;
    const Floats<8> z = plus(o, -a, u);
    Floats<8> rest = plus(Floats<8>{}, gate, plus(dy, -b, u));
    extra = plus(plus(extra, -a * inverse, rest), -gate * b * inverse, z);
    // delta is of do as rounded for the products: a query with a single key then gets the zero gradient it should.
#pragma unroll
    for (int i = 0; i < 8; ++i) rest.at[i] = to_float(to_bf16(rest.at[i]));
    const float delta = dot<kLanes>(rest, o), dgate = dot<kLanes>(dy, o) - a * b;
    if (!active) continue;
    if (args.dout != nullptr) store_floats(static_cast<bf16*>(args.dout) + first, rest);
    if (lane != 0) continue;
    const RowSums sums = row_sums_of(args, static_cast<int>(row), static_cast<int>(head));
    sums.minus_lse[token] = -kLog2E * args.lse[(head * args.batch + row) * args.tokens + token];
    sums.delta[token] = delta;
    if (args.dgate == nullptr) continue;
    if (args.gate_dtype == DType::kF32)
      static_cast<float*>(args.dgate)[at] = dgate;
    else
      static_cast<bf16*>(args.dgate)[at] = to_bf16(dgate);
  }
  if (args.xsa && active)
    store_floats(static_cast<bf16*>(args.dv) + (index * args.kv_heads + kv_head) * kH + lane * 8, extra);
}

// The gradient of o as the products read it.
template <int kH>
GOLF_DEVICE Rows dout_of(const AttentionArgs& args, int row, int head) {
  const void* const base = args.dout != nullptr ? args.dout : args.dy;
  return rows_of(base, {args.tokens * args.heads * kH, int64_t{args.heads} * kH, kH}, row, head);
}

// --- dk and dv -------------------------------------------------------------------------------------------------------

template <int kH>
struct KeyTiles {
  static constexpr int kRowTiles = kH <= 64 ? 2 : 1, kWarpRows = 16 * kRowTiles, kKeys = kWarps * kWarpRows;
  static constexpr int kQueries = kH <= 64 ? 64 : 32, kStep = kH <= 64 ? 32 : 16;  // kStep: that a warp takes at a time
  static constexpr int kKeyBytes = kKeys * kH * 2, kQueryBytes = kQueries * kH * 2, kSumBytes = kQueries * 8;
  static constexpr int kStageBytes = 2 * kQueryBytes + kSumBytes;  // queries, do, minus_lse and delta
  // Shared memory: keys, values, two stages, last_query() of each key.
  static constexpr int kStagesAt = 2 * kKeyBytes, kLastsAt = kStagesAt + 2 * kStageBytes;
  static constexpr int kBytes = kLastsAt + kKeys * static_cast<int>(sizeof(int));
  static_assert(kStageBytes % (kH * 2) == 0);  // at_step()
};

// A warp's keys and the sums of their gradients; rows are keys, columns queries.
template <int kH>
struct KeyRows {
  using Tiles = KeyTiles<kH>;
  static constexpr int kRowTiles = Tiles::kRowTiles;

  Sums<kRowTiles, kH> dk, dv;

  // kStep queries from number `query` on; `key` is the number of the warp's first. `keys` and `queries` are their
  // places in shared memory, `sums` are the queries' row sums, `lasts` the last query that sees each key, null where
  // all of these see all.
  GOLF_DEVICE void add(const unsigned char* shared, int keys, int queries, const float* sums, float scale, int query,
                       int key, const int* lasts, int lane) {
    Sums<kRowTiles, Tiles::kStep> p, ds;
    p.clear();
    ds.clear();
    const int by_rows = lane_of_rows<kH>(lane), by_columns = lane_of_columns<kH>(lane);
    const int values = keys + Tiles::kKeyBytes, douts = queries + Tiles::kQueryBytes;
#pragma unroll
    for (int step = 0; step < kH / 16; ++step)
      add_by_columns<kH>(p, load_left<kH, kRowTiles>(shared, keys + by_rows, step), shared, queries + by_columns, step);
#pragma unroll
    for (int step = 0; step < kH / 16; ++step)
      add_by_columns<kH>(ds, load_left<kH, kRowTiles>(shared, values + by_rows, step), shared, douts + by_columns,
                         step);
    if (lasts != nullptr)
      p.keep([&](int row) { return key + row - query; }, [&](int row) { return lasts[row] - query; }, lane);
#pragma unroll
    for (int j = 0; j < Tiles::kStep / 8; ++j) {
      const Pack<float, 2> exponents = load<2>(sums + j * 8 + lane % 4 * 2);
      const Pack<float, 2> deltas = load<2>(sums + Tiles::kQueries + j * 8 + lane % 4 * 2);
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          p.at[r][j][e] = exp2_fast(fmaf(p.at[r][j][e], scale, exponents.at[e % 2]));
          ds.at[r][j][e] = p.at[r][j][e] * (ds.at[r][j][e] - deltas.at[e % 2]);
        }
    }
#pragma unroll
    for (int step = 0; step < Tiles::kStep / 16; ++step) {
      const int rows = step * kBytesOf16Rows<kH> + by_rows;
      add_by_rows<kH>(dv, p.left(step), shared, douts + rows);
      add_by_rows<kH>(dk, ds.left(step), shared, queries + rows);
    }
  }

  // Row tiles through the warp's rows of the keys' tile to dk and dv, whose rows lie `stride` apart.
  GOLF_DEVICE void put(unsigned char* rows, bf16* dk_out, bf16* dv_out, int64_t stride, float scale, bool adds,
                       int count) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int j = 0; j < kH / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) dk.at[r][j][e] *= scale;
    hand_out(rows, dk, count,
             [&](int i, int column, const Pack<bf16, 8>& numbers) { store(dk_out + i * stride + column, numbers); });
    hand_out(rows, dv, count, [&](int i, int column, Pack<bf16, 8> numbers) {
      bf16* const to = dv_out + i * stride + column;
      if (adds) {
        const Floats<8> extra = load_own_floats<8>(to);
#pragma unroll
        for (int n = 0; n < 8; ++n) numbers.at[n] = to_bf16(to_float(numbers.at[n]) + extra.at[n]);
      }
      store(to, numbers);
    });
  }
};

template <int kH>
GOLF_KERNEL(backward_keys, kThreads, 2, AttentionArgs args) {
  using Tiles = KeyTiles<kH>;
  GOLF_DYNAMIC_SHARED(shared);
  int* const lasts = reinterpret_cast<int*>(shared + Tiles::kLastsAt);
  const int tokens = static_cast<int>(args.tokens), tiles = (tokens + Tiles::kKeys - 1) / Tiles::kKeys;
  const int group = args.heads / args.kv_heads;
  const Place block = place_of_block(tiles, args.kv_heads);  // the oldest keys, which most queries see, first
  const int key = block.tile * Tiles::kKeys;
  copy_rows<Tiles::kKeys, kH>(shared, rows_of(args.k, args.k_strides, block.row, block.head), key, tokens);
  copy_rows<Tiles::kKeys, kH>(shared + Tiles::kKeyBytes, rows_of(args.v, args.v_strides, block.row, block.head), key,
                              tokens);
  for (int i = static_cast<int>(threadIdx.x); i < Tiles::kKeys; i += kThreads)
    lasts[i] = last_query(args, least(key + i, tokens - 1));
  __syncthreads();

  const auto copy_stage = [&](int at, int head, int tile) {
    unsigned char* const stage = shared + Tiles::kStagesAt + at * Tiles::kStageBytes;
    const int query = tile * Tiles::kQueries;
    copy_rows<Tiles::kQueries, kH>(stage, rows_of(args.q, args.q_strides, block.row, head), query, tokens);
    copy_rows<Tiles::kQueries, kH>(stage + Tiles::kQueryBytes, dout_of<kH>(args, block.row, head), query, tokens);
    constexpr int kPacks = Tiles::kQueries / 4;  // of each of the two sums
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < 2 * kPacks) {
      const RowSums sums = row_sums_of(args, block.row, head);
      const int first = query + thread % kPacks * 4, valid = most(0, least(4, tokens - first));
      cp_async(stage + 2 * Tiles::kQueryBytes + thread * 16,
               (thread < kPacks ? sums.minus_lse : sums.delta) + (valid > 0 ? first : 0),
               static_cast<uint32_t>(valid * 4));
    }
    cp_async_commit();
  };
  const int oldest = key / Tiles::kQueries, newest = lasts[Tiles::kKeys - 1] / Tiles::kQueries;
  int head = block.head * group, tile = oldest;
  copy_stage(0, head, tile);
  cp_async_wait<0>();
  __syncthreads();

  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, row = static_cast<int>(threadIdx.x) - lane;
  const int first_row = row / kWarpSize * Tiles::kWarpRows, mine = key + first_row;
  const int* const my_lasts = lasts + first_row;
  const float scale = args.scale * kLog2E;
  KeyRows<kH> rows;
  rows.dk.clear();
  rows.dv.clear();
  for (int at = 0, head_end = head + group; head < head_end; at ^= 1) {
    const int query = tile * Tiles::kQueries;
    const int stage = Tiles::kStagesAt + at * Tiles::kStageBytes;
    const float* const sums = reinterpret_cast<const float*>(shared + stage + 2 * Tiles::kQueryBytes);
    if (++tile > newest) ++head, tile = oldest;
    if (head < head_end) copy_stage(at ^ 1, head, tile);
#pragma unroll 1
    for (int i = 0; i < Tiles::kQueries; i += Tiles::kStep) {
      const int first = query + i, last = first + Tiles::kStep - 1;
      if (mine >= tokens || last < mine || first > my_lasts[Tiles::kWarpRows - 1]) continue;
      const bool hides = first < mine + Tiles::kWarpRows - 1 || last > my_lasts[0];
      rows.add(shared, first_row * kH * 2, stage + i * kH * 2, sums + i, scale, first, mine, hides ? my_lasts : nullptr,
               lane);
    }
    cp_async_wait<0>();
    __syncthreads();  // the next queries are there, and nobody reads these any more
  }
  if (mine >= tokens) return;
  const int64_t to = ((block.row * args.tokens + mine) * args.kv_heads + block.head) * kH;
  rows.put(shared + first_row * kH * 2, static_cast<bf16*>(args.dk) + to, static_cast<bf16*>(args.dv) + to,
           int64_t{args.kv_heads} * kH, args.scale, args.xsa, least(Tiles::kWarpRows, tokens - mine));
}

// --- dq --------------------------------------------------------------------------------------------------------------

template <int kH>
struct QueryTiles {
  static constexpr int kRowTiles = kH <= 64 ? 2 : 1, kWarpRows = 16 * kRowTiles, kQueries = kWarps * kWarpRows;
  static constexpr int kKeys = kH <= 64 ? 64 : 32, kStep = 16;  // kStep: that a warp takes at a time
  static constexpr int kQueryBytes = kQueries * kH * 2, kKeyBytes = kKeys * kH * 2;
  // Shared memory: queries, their do, two tiles of keys, two of values, first_key() of each query.
  static constexpr int kKeysAt = 2 * kQueryBytes, kValuesAt = kKeysAt + 2 * kKeyBytes;
  static constexpr int kFirstsAt = kValuesAt + 2 * kKeyBytes;
  static constexpr int kBytes = kFirstsAt + kQueries * static_cast<int>(sizeof(int));
};

// A warp's queries and the sums of their gradients.
template <int kH>
struct QueryRows {
  using Tiles = QueryTiles<kH>;
  static constexpr int kRowTiles = Tiles::kRowTiles;

  Left<kRowTiles> q[kH / 16], dout[kH / 16];
  Sums<kRowTiles, kH> dq;
  float minus_lse[kRowTiles][2], delta[kRowTiles][2];

  GOLF_DEVICE void start(const unsigned char* shared, int queries, const RowSums& sums, int count, int lane) {
    const int by_rows = queries + lane_of_rows<kH>(lane);
#pragma unroll
    for (int step = 0; step < kH / 16; ++step) {
      q[step] = load_left<kH, kRowTiles>(shared, by_rows, step);
      dout[step] = load_left<kH, kRowTiles>(shared, Tiles::kQueryBytes + by_rows, step);
    }
    dq.clear();
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = r * 16 + half * 8 + lane / 4;
        minus_lse[r][half] = row < count ? sums.minus_lse[row] : 0.0f;
        delta[r][half] = row < count ? sums.delta[row] : 0.0f;
      }
  }

  // kStep keys from number `key` on; `query` is the number of the warp's first. `keys` is their place in shared memory,
  // `firsts` the first key that each row sees, null where all of these are for every row.
  GOLF_DEVICE void add(const unsigned char* shared, int keys, float scale, int key, int query, const int* firsts,
                       int lane) {
    Sums<kRowTiles, Tiles::kStep> p, ds;
    p.clear();
    ds.clear();
    const int by_columns = keys + lane_of_columns<kH>(lane);
#pragma unroll
    for (int step = 0; step < kH / 16; ++step) {
      add_by_columns<kH>(p, q[step], shared, by_columns, step);
      add_by_columns<kH>(ds, dout[step], shared, 2 * Tiles::kKeyBytes + by_columns, step);
    }
    if (firsts != nullptr)
      p.keep([&](int row) { return firsts[row] - key; }, [&](int row) { return query + row - key; }, lane);
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int j = 0; j < Tiles::kStep / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float probability = exp2_fast(fmaf(p.at[r][j][e], scale, minus_lse[r][e / 2]));
          ds.at[r][j][e] = probability * (ds.at[r][j][e] - delta[r][e / 2]);
        }
#pragma unroll
    for (int step = 0; step < Tiles::kStep / 16; ++step)
      add_by_rows<kH>(dq, ds.left(step), shared, keys + step * kBytesOf16Rows<kH> + lane_of_rows<kH>(lane));
  }

  GOLF_DEVICE void put(unsigned char* rows, bf16* out, int64_t stride, float scale, int count) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int j = 0; j < kH / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) dq.at[r][j][e] *= scale;
    hand_out(rows, dq, count,
             [&](int i, int column, const Pack<bf16, 8>& numbers) { store(out + i * stride + column, numbers); });
  }
};

template <int kH>
GOLF_KERNEL(backward_queries, kThreads, 2, AttentionArgs args) {
  using Tiles = QueryTiles<kH>;
  GOLF_DYNAMIC_SHARED(shared);
  int* const firsts = reinterpret_cast<int*>(shared + Tiles::kFirstsAt);
  const int tokens = static_cast<int>(args.tokens), tiles = (tokens + Tiles::kQueries - 1) / Tiles::kQueries;
  const Place block = place_of_block(tiles, args.heads);
  const int kv_head = block.head / (args.heads / args.kv_heads);
  const int query = (tiles - 1 - block.tile) * Tiles::kQueries;  // the longest rows first
  const int64_t stride = int64_t{args.heads} * kH;
  copy_rows<Tiles::kQueries, kH>(shared, rows_of(args.q, args.q_strides, block.row, block.head), query, tokens);
  copy_rows<Tiles::kQueries, kH>(shared + Tiles::kQueryBytes, dout_of<kH>(args, block.row, block.head), query, tokens);
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
  const int first_row = row / kWarpSize * Tiles::kWarpRows, mine = query + first_row;
  const int count = least(Tiles::kWarpRows, tokens - mine);  // the warp's queries; may be none
  const int my_queries = first_row * kH * 2;
  const int first_seen = firsts[first_row], seen_by_all = firsts[first_row + Tiles::kWarpRows - 1];
  const float scale = args.scale * kLog2E;
  const RowSums sums = row_sums_of(args, block.row, block.head);
  QueryRows<kH> rows;
  rows.start(shared, my_queries, {sums.minus_lse + mine, sums.delta + mine}, count, lane);
  for (int tile = oldest; tile <= newest; ++tile) {
    if (tile < newest) copy_tile(tile + 1);
    const int keys = Tiles::kKeysAt + tile % 2 * Tiles::kKeyBytes;
#pragma unroll 1
    for (int i = 0; i < Tiles::kKeys; i += Tiles::kStep) {
      const int first = tile * Tiles::kKeys + i, last = first + Tiles::kStep - 1;
      if (count <= 0 || first >= mine + count || last < first_seen) continue;
      const bool hides = first < seen_by_all || last > mine;
      rows.add(shared, keys + i * kH * 2, scale, first, mine, hides ? firsts + first_row : nullptr, lane);
    }
    cp_async_wait<0>();
    __syncthreads();  // the next keys are there, and nobody reads these any more
  }
  if (count <= 0) return;
  rows.put(shared + my_queries,
           static_cast<bf16*>(args.dq) + ((block.row * args.tokens + mine) * args.heads + block.head) * kH, stride,
           args.scale, count);
}

}  // namespace
}  // namespace golf
