// Backward: for each tile of keys, over query heads and tiles of queries, p again from the scores and lse, then
//   dv += p^T dz',  ds = p (dz' v^T - delta),  dk += scale ds^T q,  dq += scale ds k
// with dz' the gradient of o and delta_i = dz'_i . o_i. dk and dv of the tile are summed transposed, in the cache.
#pragma once

#include "attention/product.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

// One query head of a unit: rows in the operand's type, plain and, by tile, as Columns (where kDepth is 1 both are the
// same memory).
template <class E>
struct HeadScratch {
  E *q, *q_columns, *dout, *dout_columns;  // [rows][kH]
  float *minus_lse, *delta;                // minus_lse in powers of two
  float* dq;                               // [rows][kH]: the sums so far
};

template <class P, int kH>
struct BackwardScratch {
  using E = typename P::E;
  E *keys, *values, *key_rows;  // by tile: [kH / kDepth][kTile][kDepth] twice, [kTile / kDepth][kH][kDepth]
  float *inverse, *dv_extra;    // 1 / |v|, and what xsa adds to dv [rows][kH]
  E *rows, *p, *ds, *ds_pairs;  // [kTile][kH], then [kTile][kTile] each; pairs along queries, ds along keys
  float *dk, *dv, *turned;      // [kH][kTile] twice, [kTile][kH]
  int64_t length, group;
  HeadScratch<E> first;  // of the group; the others follow, `length` rows apart: head()

  BackwardScratch(Arena& arena, const AttentionArgs& args)
      : length(round_up(args.longest, kTile)), group(args.heads / args.kv_heads) {
    keys = arena.take<E>(length * kH);
    values = arena.take<E>(length * kH);
    key_rows = arena.take<E>(length * kH);
    inverse = arena.take<float>(args.xsa ? length : 0);
    dv_extra = arena.take<float>(args.xsa ? length * kH : 0);
    rows = arena.take<E>(kTile * kH);
    p = arena.take<E>(kTile * kTile);
    ds = arena.take<E>(kTile * kTile);
    ds_pairs = P::kDepth == 1 ? ds : arena.take<E>(kTile * kTile);
    dk = arena.take<float>(kH * kTile);
    dv = arena.take<float>(kH * kTile);
    turned = arena.take<float>(kTile * kH);
    first.q = arena.take<E>(group * length * kH);
    first.dout = arena.take<E>(group * length * kH);
    first.q_columns = P::kDepth == 1 ? first.q : arena.take<E>(group * length * kH);
    first.dout_columns = P::kDepth == 1 ? first.dout : arena.take<E>(group * length * kH);
    first.minus_lse = arena.take<float>(group * length);
    first.delta = arena.take<float>(group * length);
    first.dq = arena.take<float>(group * length * kH);
  }

  // Head h of the group, from row `row` on.
  HeadScratch<E> head(int32_t h, int64_t row) const {
    const int64_t at = h * length + row;
    return {first.q + at * kH,    first.q_columns + at * kH, first.dout + at * kH, first.dout_columns + at * kH,
            first.minus_lse + at, first.delta + at,          first.dq + at * kH};
  }
};

template <class P, class In, int kH>
class Backward {
  using E = typename P::E;
  using Head = HeadScratch<E>;

 public:
  Backward(const AttentionArgs& args, const Document& document, int32_t kv_head, void* scratch)
      : unit_(args, document, kv_head), arena_(scratch), s_(arena_, args) {}

  void run() {
    pack_keys_and_values();
    for (int32_t h = 0; h < unit_.group; ++h)
      for (int64_t tile = 0; tile < unit_.tiles(); ++tile) pack_queries(h, tile);
    for (int64_t keys = 0; keys < unit_.tiles(); ++keys) {
      const int64_t newest = unit_.newest_tile(keys);
      for (int32_t h = 0; h < unit_.group; ++h)
        for (int64_t queries = keys; queries <= newest; ++queries) tile_pair(h, queries, keys);
      finish_keys(keys);
    }
  }

 private:
  void pack_keys_and_values() {
    const Rows<const In> k = unit_.k(), v = unit_.v();
    for (int64_t tile = 0; tile < unit_.tiles(); ++tile) {
      const int64_t at = tile * kTile * kH;
      const int count = unit_.queries(tile), padded = static_cast<int>(round_up(count, kBlock));
      E* rows = P::kDepth == 1 ? s_.key_rows + at : s_.rows;
      pack_rows<P, kH>(k, tile * kTile, count, padded, rows);
      turn_rows<P, kH>(rows, padded, s_.keys + at);
      if constexpr (P::kDepth == 2) pair_rows<P, kH>(rows, padded, s_.key_rows + at);
      pack_rows<P, kH>(v, tile * kTile, count, padded, s_.rows);
      turn_rows<P, kH>(s_.rows, padded, s_.values + at);
    }
    if (!unit_.args.xsa) return;
    inverse_norms<kH>(v, unit_.length, s_.inverse);
    __builtin_memset(s_.dv_extra, 0, sizeof(float) * static_cast<size_t>(unit_.length * kH));
  }

  void pack_queries(int32_t h, int64_t tile) {
    const AttentionArgs& args = unit_.args;
    const int32_t n = unit_.kv_head * unit_.group + h;
    const int count = unit_.queries(tile), padded = static_cast<int>(round_up(count, kRows));
    const Head head = s_.head(h, tile * kTile);
    const Rows<const In> dy = unit_.saved(args.dy, n), out = unit_.saved(args.out, n);
    const float* lse = unit_.lse(n) + tile * kTile;
    pack_rows<P, kH>(unit_.q(n), tile * kTile, count, padded, head.q);
    for (int r = 0; r < padded; ++r) {
      head.minus_lse[r] = r < count ? -lse[r] * kLog2E : 0.0f;
      head.delta[r] = 0.0f;
      if (r < count)
        gradient_of_o(dy.at(tile * kTile + r), out.at(tile * kTile + r), tile * kTile + r, n, head.dout + r * kH,
                      head.delta + r);
      else
        __builtin_memset(static_cast<void*>(head.dout + r * kH), 0, sizeof(E) * kH);
    }
    Columns<P, kH>::pack(head.q, padded, head.q_columns);
    Columns<P, kH>::pack(head.dout, padded, head.dout_columns);
  }

  // Back through gate and xsa. With u = v / |v|, a = o . u and b = dy . u:
  //   do = gate (dy - b u),  dgate = dy . z = dy . o - a b,
  //   dv gets -(a do + gate b z) / |v|, summed over the heads of the group.
  // delta is of do as rounded for the products: a query with a single key then gets the zero gradient that it should.
  GOLF_MEMBER void gradient_of_o(const In* dy, const In* o, int64_t i, int32_t n, E* dout, float* delta) {
    const AttentionArgs& args = unit_.args;
    const float gate = unit_.gate(i, n);
    const Row<kH> gradient = Row<kH>::of(dy), result = Row<kH>::of(o);
    float ab = 0.0f;
    if (!args.xsa) {
      gradient.times(set1(gate)).put(dout);
    } else {
      const float inverse = s_.inverse[i];
      const Row<kH> unit = Row<kH>::of(unit_.v().at(i)).times(set1(inverse));
      const float a = result.dot(unit), b = gradient.dot(unit);
      const Row<kH> rest = gradient.plus(set1(-b), unit).times(set1(gate));
      const Row<kH> z = result.plus(set1(-a), unit);
      rest.put(dout);
      float* extra = s_.dv_extra + i * kH;
      Row<kH>::of(extra).plus(set1(-a * inverse), rest).plus(set1(-gate * b * inverse), z).put(extra);
      ab = a * b;
    }
    *delta = Row<kH>::of(dout).dot(result);
    if (args.dgate != nullptr) unit_.put_dgate(i, n, gradient.dot(result) - ab);
  }

  void tile_pair(int32_t h, int64_t queries, int64_t keys) {
    const Mask mask = unit_.mask(queries, keys);
    const Head head = s_.head(h, queries * kTile);
    const int64_t at = keys * kTile * kH;
    for (int row = 0; row < mask.queries; row += kRows) {
      const Range range = mask.keys_of(row);
      for (int column = range.begin; column < range.end; column += kBlock)
        probabilities(mask, head, row, column, s_.keys + at, s_.values + at);
    }
    const bool is_first = h == 0 && queries == keys;
    const int columns = static_cast<int>(round_up(unit_.queries(keys), kBlock));
    for (int column = 0; column < columns; column += kBlock) {
      const Range range = mask.queries_of(column);
      add_turned(range, column, s_.p, head.dout_columns, s_.dv, is_first);
      add_turned(range, column, s_.ds_pairs, head.q_columns, s_.dk, is_first);
    }
    const bool is_oldest = keys == unit_.oldest_tile(queries), is_newest = keys == queries;
    for (int row = 0; row < mask.queries; row += kRows) add_dq(mask, head, row, s_.key_rows + at, is_oldest);
    if (is_newest) finish_queries(h, queries);
  }

  // p and ds for kRows queries and kBlock keys, kept for the three products.
  GOLF_MEMBER void probabilities(const Mask& mask, const Head& head, int row, int column, const E* keys,
                                 const E* values) {
    V scores[kRows][kCols], products[kRows][kCols];
    constexpr int kSteps = kH / P::kDepth;
    multiply<P, kRows, kH, P::kDepth, kTile * P::kDepth>(kSteps, head.q + row * kH, keys + column * P::kDepth, scores);
    multiply<P, kRows, kH, P::kDepth, kTile * P::kDepth>(kSteps, head.dout + row * kH, values + column * P::kDepth,
                                                         products);
    const V factor = set1(unit_.args.scale * kLog2E);
    const bool hides = mask.hides(row, column);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r += P::kDepth) {
      V p[P::kDepth][kCols], ds[P::kDepth][kCols];
#pragma GCC unroll 2
      for (int i = 0; i < P::kDepth; ++i) {
        const int query = row + r + i;
#pragma GCC unroll 2
        for (int c = 0; c < kCols; ++c) {
          p[i][c] = exp2<P::kExact>(fma(scores[r + i][c], factor, set1(head.minus_lse[query])));
          if (hides) p[i][c] = mask.apply(p[i][c], query, column + c * kLanes, zero());
          ds[i][c] = mul(p[i][c], sub(products[r + i][c], set1(head.delta[query])));
        }
      }
      keep(row + r, column, p, ds);
    }
  }

  // kDepth rows: p paired along queries for dv; ds paired for dk and by rows for dq.
  GOLF_MEMBER void keep(int row, int column, const V (&p)[P::kDepth][kCols], const V (&ds)[P::kDepth][kCols]) {
    if constexpr (P::kDepth == 1) {
      P::store_row(s_.p + row * kTile + column, p[0][0], p[0][1]);
      P::store_row(s_.ds + row * kTile + column, ds[0][0], ds[0][1]);
    } else {
      E *rows = s_.ds + row * kTile + column, *pairs = s_.ds_pairs + row * kTile + column * 2;
      P::store_pairs(s_.p + row * kTile + column * 2, P::narrow_row(p[0][0], p[0][1]), P::narrow_row(p[1][0], p[1][1]));
      const auto ds0 = P::narrow_row(ds[0][0], ds[0][1]), ds1 = P::narrow_row(ds[1][0], ds[1][1]);
      P::store_pairs(pairs, ds0, ds1);
      P::store_line(rows, ds0);
      P::store_line(rows + kTile, ds1);
    }
  }

  // sums[d][key] += sum over queries of left[query][d] right[query][key], for kBlock keys.
  GOLF_MEMBER void add_turned(Range range, int column, const E* right, const E* left, float* sums, bool is_first) {
    using Left = Columns<P, kH>;
    left += range.begin / P::kDepth * Left::kStep;
    right += range.begin * kTile + column * P::kDepth;
    for (int d = 0; d < kH; d += kRows)
      add_product<P, Left::kRow, Left::kStep, kTile * P::kDepth, kTile>(
          (range.end - range.begin) / P::kDepth, left + d * Left::kRow, right, sums + d * kTile + column, is_first);
  }

  GOLF_MEMBER void add_dq(const Mask& mask, const Head& head, int row, const E* key_rows, bool is_first) {
    const Range range = mask.sum_of(row);
    for (int d = 0; d < kH; d += kBlock)
      add_product<P, kTile, P::kDepth, kH * P::kDepth, kH>(
          (range.end - range.begin) / P::kDepth, s_.ds + row * kTile + range.begin,
          key_rows + range.begin * kH + d * P::kDepth, head.dq + row * kH + d, is_first);
  }

  void finish_queries(int32_t h, int64_t tile) {
    const int32_t n = unit_.kv_head * unit_.group + h;
    const Rows<In> dq = unit_.result(unit_.args.dq, unit_.args.heads, n);
    const float* sums = s_.head(h, tile * kTile).dq;
    const V scale = set1(unit_.args.scale);
    for (int r = 0; r < unit_.queries(tile); ++r)
      for (int d = 0; d < kH; d += kLanes) store(dq.at(tile * kTile + r) + d, mul(load(sums + r * kH + d), scale));
  }

  void finish_keys(int64_t tile) {
    const AttentionArgs& args = unit_.args;
    const Rows<In> dk = unit_.result(args.dk, args.kv_heads, unit_.kv_head);
    const Rows<In> dv = unit_.result(args.dv, args.kv_heads, unit_.kv_head);
    const int count = unit_.queries(tile);
    turn_sums(s_.dk, count);
    for (int r = 0; r < count; ++r)
      for (int d = 0; d < kH; d += kLanes)
        store(dk.at(tile * kTile + r) + d, mul(load(s_.turned + r * kH + d), set1(args.scale)));
    turn_sums(s_.dv, count);
    for (int r = 0; r < count; ++r)
      for (int d = 0; d < kH; d += kLanes) {
        const V sum = load(s_.turned + r * kH + d);
        const int64_t i = tile * kTile + r;
        store(dv.at(i) + d, args.xsa ? add(sum, load(s_.dv_extra + i * kH + d)) : sum);
      }
  }

  void turn_sums(const float* sums, int count) {
    for (int d = 0; d < kH; d += kLanes)
      for (int r = 0; r < count; r += kLanes) transpose_block(sums + d * kTile + r, kTile, s_.turned + r * kH + d, kH);
  }

  Unit<In> unit_;
  Arena arena_;
  BackwardScratch<P, kH> s_;
};

}  // namespace
}  // namespace GOLF_ISA_NS
}  // namespace golf
