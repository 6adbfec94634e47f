// Forward: for each tile of queries, over its tiles of keys, scores -> softmax against a running maximum -> values.
#pragma once

#include "attention/product.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

template <class P, int kH>
struct ForwardScratch {
  using E = typename P::E;
  E *keys, *values;  // by tile: [kH / kDepth][kTile][kDepth], and [kTile / kDepth][kH][kDepth]
  float* inverse;    // 1 / |v|
  E *rows, *q, *p;   // [kTile][kH], [kTile][kH], [kTile][kTile]
  float *o, *total;  // [kTile][kH], [kTile][kLanes]: the sums so far, of p v and of p

  ForwardScratch(Arena& arena, const AttentionArgs& args) {
    const int64_t length = round_up(args.longest, kTile);
    keys = arena.take<E>(length * kH);
    values = arena.take<E>(length * kH);
    inverse = arena.take<float>(args.xsa ? length : 0);
    rows = arena.take<E>(kTile * kH);
    q = arena.take<E>(kTile * kH);
    p = arena.take<E>(kTile * kTile);
    o = arena.take<float>(kTile * kH);
    total = arena.take<float>(kTile * kLanes);
  }
};

template <class P, class In, int kH>
class Forward {
  using E = typename P::E;

 public:
  Forward(const AttentionArgs& args, const Document& document, int32_t kv_head, void* scratch)
      : unit_(args, document, kv_head), arena_(scratch), s_(arena_, args), factor_(args.scale * kLog2E) {}

  void run() {
    pack_keys_and_values();
    for (int32_t h = 0; h < unit_.group; ++h)
      for (int64_t tile = 0; tile < unit_.tiles(); ++tile) query_tile(unit_.kv_head * unit_.group + h, tile);
  }

 private:
  void pack_keys_and_values() {
    const Rows<const In> k = unit_.k(), v = unit_.v();
    for (int64_t tile = 0; tile < unit_.tiles(); ++tile) {
      const int count = unit_.queries(tile), padded = static_cast<int>(round_up(count, kBlock));
      pack_rows<P, kH>(k, tile * kTile, count, padded, s_.rows);
      turn_rows<P, kH>(s_.rows, padded, s_.keys + tile * kTile * kH);
      E* values = s_.values + tile * kTile * kH;
      pack_rows<P, kH>(v, tile * kTile, count, padded, P::kDepth == 1 ? values : s_.rows);
      if constexpr (P::kDepth == 2) pair_rows<P, kH>(s_.rows, padded, values);
    }
    if (unit_.args.xsa) inverse_norms<kH>(v, unit_.length, s_.inverse);
  }

  void query_tile(int32_t head, int64_t tile) {
    const int count = unit_.queries(tile), padded = static_cast<int>(round_up(count, kRows));
    pack_rows<P, kH>(unit_.q(head), tile * kTile, count, padded, s_.q);
    for (int i = 0; i < padded; ++i) {
      top_[i] = kNone;
      limit_[i] = -__builtin_inff();
      store(s_.total + i * kLanes, zero());
    }
    const int64_t oldest = unit_.oldest_tile(tile);
    for (int64_t keys = oldest; keys <= tile; ++keys) {
      const Mask mask = unit_.mask(tile, keys);
      for (int row = 0; row < padded; row += kRows)
        probabilities(mask, row, s_.keys + keys * kTile * kH, keys > oldest);
      for (int row = 0; row < padded; row += kRows)
        weigh_values(mask, row, s_.values + keys * kTile * kH, keys == oldest);
    }
    finish(head, tile, count);
  }

  // p = 2^(factor s - top) for kRows queries and the keys that they see; the sums so far follow where top moves.
  void probabilities(const Mask& mask, int row, const E* keys, bool has_sums) {
    const Range range = mask.keys_of(row);
    if (range.begin >= range.end) return;
    alignas(64) float scores[kRows][kTile];
    for (int column = range.begin; column < range.end; column += kBlock) {
      put_product<P, kH, P::kDepth, kTile * P::kDepth, kTile>(kH / P::kDepth, s_.q + row * kH,
                                                              keys + column * P::kDepth, &scores[0][column]);
      if (mask.hides(row, column)) hide(mask, row, column, scores);
    }
    for (int r = 0; r < kRows; ++r) {
      const int i = row + r;
      V highest = load(&scores[r][range.begin]);
      for (int c = range.begin + kLanes; c < range.end; c += kLanes) highest = max(load(&scores[r][c]), highest);
      if (__builtin_expect(any_above(highest, set1(limit_[i])), 0)) move_top(i, largest(highest), has_sums);
      const V factor = set1(factor_), minus_top = set1(-top_[i]);
      V total = load(s_.total + i * kLanes);
      for (int c = range.begin; c < range.end; c += kBlock) {
        const V p0 = exp2<P::kExact>(fma(load(&scores[r][c]), factor, minus_top));
        const V p1 = exp2<P::kExact>(fma(load(&scores[r][c + kLanes]), factor, minus_top));
        total = add(total, add(p0, p1));
        P::store_row(s_.p + i * kTile + c, p0, p1);
      }
      store(s_.total + i * kLanes, total);
    }
  }

  static void hide(const Mask& mask, int row, int column, float (&scores)[kRows][kTile]) {
    const V nothing = set1(-__builtin_inff());
    for (int r = 0; r < kRows; ++r)
      for (int c = column; c < column + kBlock; c += kLanes)
        store(&scores[r][c], mask.apply(load(&scores[r][c]), row + r, c, nothing));
  }

  // A maximum that trails by less than 2^kSlack costs no accuracy, and following it rarely saves the rescaling.
  void move_top(int i, float highest, bool has_sums) {
    const float top = highest * factor_;
    alignas(64) float shrink[kLanes];
    store(shrink, exp2<P::kExact>(set1(top_[i] - top)));
    top_[i] = top;
    limit_[i] = (top + kSlack) / factor_;
    const V by = set1(shrink[0]);
    store(s_.total + i * kLanes, mul(load(s_.total + i * kLanes), by));
    if (!has_sums) return;
    for (int d = 0; d < kH; d += kLanes) store(s_.o + i * kH + d, mul(load(s_.o + i * kH + d), by));
  }

  void weigh_values(const Mask& mask, int row, const E* values, bool is_first) {
    const Range range = mask.sum_of(row);
    for (int d = 0; d < kH; d += kBlock)
      add_product<P, kTile, P::kDepth, kH * P::kDepth, kH>(
          (range.end - range.begin) / P::kDepth, s_.p + row * kTile + range.begin,
          values + range.begin * kH + d * P::kDepth, s_.o + row * kH + d, is_first);
  }

  void finish(int32_t head, int64_t tile, int count) {
    const AttentionArgs& args = unit_.args;
    const Rows<In> y = unit_.result(args.y, args.heads, head), out = unit_.result(args.out, args.heads, head);
    const Rows<const In> v = unit_.v();
    alignas(64) float share[kTile];  // 1 / total
    finish_softmax(unit_.lse(head) + tile * kTile, share, count);
    for (int r = 0; r < count; ++r) {
      const int64_t i = tile * kTile + r;
      Row<kH> o = Row<kH>::of(s_.o + r * kH).times(set1(share[r]));
      if (args.xsa || args.gate != nullptr) o.put(out.at(i));
      if (args.xsa) {
        const Row<kH> own = Row<kH>::of(v.at(i));
        o = o.plus(set1(-o.dot(own) * s_.inverse[i] * s_.inverse[i]), own);
      }
      if (args.gate != nullptr) o = o.times(set1(unit_.gate(i, head)));
      o.put(y.at(i));
    }
  }

  void finish_softmax(float* lse, float* share, int count) {
    for (int r = 0; r < count; ++r) share[r] = sum(load(s_.total + r * kLanes));
    for (int r = count; r < kTile; ++r) share[r] = top_[r] = 1.0f;
    for (int r = 0; r < count; r += kLanes) {
      const V total = load(share + r);
      const V log = mul(add(load(top_ + r), log2(total)), set1(kLn2));
      store_lanes(lse + r, log, count - r < kLanes ? count - r : kLanes);
      store(share + r, div(set1(1.0f), total));
    }
  }

  static constexpr float kNone = -1e30f;  // finite: a row that has seen no key yet must not make inf - inf
  static constexpr float kSlack = 8.0f;

  Unit<In> unit_;
  Arena arena_;
  ForwardScratch<P, kH> s_;
  float factor_;        // scores in powers of two
  float top_[kTile];    // what p is relative to: the maximum, or a little less
  float limit_[kTile];  // raw scores above this move top
};

}  // namespace
}  // namespace GOLF_ISA_NS
}  // namespace golf
