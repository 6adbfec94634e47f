// A document and a key/value head as a unit sees them, and the packing of its rows for the products.
#pragma once

#include "attention/tile.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

template <int kH>
struct Width {
  static constexpr int kValue = kH;
};

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// The rows of one head, `stride` elements apart.
template <class T>
struct Rows {
  T* base;
  int64_t stride;
  T* at(int64_t i) const { return base + i * stride; }
};

template <class In>
struct Unit {
  const AttentionArgs& args;
  const Document& document;
  int32_t kv_head;
  int64_t length, window;
  int32_t group;  // query heads of this key/value head

  Unit(const AttentionArgs& a, const Document& d, int32_t head)
      : args(a),
        document(d),
        kv_head(head),
        length(d.length),
        window(a.window > 0 && a.window < d.length ? a.window : d.length),
        group(a.heads / a.kv_heads) {}

  int64_t tiles() const { return (length + kTile - 1) / kTile; }
  int queries(int64_t tile) const {
    return static_cast<int>(length - tile * kTile < kTile ? length - tile * kTile : kTile);
  }
  // The first tile of keys that queries of this tile see.
  int64_t oldest_tile(int64_t tile) const {
    const int64_t key = tile * kTile - window + 1;
    return key > 0 ? key / kTile : 0;
  }
  // The last tile of queries that see keys of this tile.
  int64_t newest_tile(int64_t tile) const {
    const int64_t query = tile * kTile + kTile - 1 + window - 1;
    return (query < length ? query : length - 1) / kTile;
  }
  Mask mask(int64_t query_tile, int64_t key_tile) const {
    return {query_tile * kTile, key_tile * kTile, window, static_cast<int>(round_up(queries(query_tile), kRows))};
  }

  // Strided views of the inputs and contiguous results, from the document's first token on.
  Rows<const In> strided(const void* base, const Strides& s, int32_t head) const {
    return {static_cast<const In*>(base) + document.row * s.batch + document.begin * s.token + head * s.head, s.token};
  }
  Rows<const In> q(int32_t n) const { return strided(args.q, args.q_strides, n); }
  Rows<const In> k() const { return strided(args.k, args.k_strides, kv_head); }
  Rows<const In> v() const { return strided(args.v, args.v_strides, kv_head); }
  int64_t token() const { return document.row * args.tokens + document.begin; }
  template <class T>
  Rows<T> dense(T* base, int32_t heads, int32_t head) const {
    const int64_t width = static_cast<int64_t>(heads) * args.head_dim;
    return {base + token() * width + head * args.head_dim, width};
  }
  Rows<In> result(void* base, int32_t heads, int32_t head) const { return dense(static_cast<In*>(base), heads, head); }
  Rows<const In> saved(const void* base, int32_t n) const { return dense(static_cast<const In*>(base), args.heads, n); }
  float* lse(int32_t n) const { return args.lse + n * args.batch * args.tokens + token(); }

  float gate(int64_t i, int32_t n) const {
    if (args.gate == nullptr) return 1.0f;
    const int64_t at = (token() + i) * args.heads + n;
    return args.gate_dtype == DType::kF32 ? static_cast<const float*>(args.gate)[at]
                                          : to_float(static_cast<const bf16*>(args.gate)[at]);
  }
  void put_dgate(int64_t i, int32_t n, float x) const {
    const int64_t at = (token() + i) * args.heads + n;
    if (args.gate_dtype == DType::kF32)
      static_cast<float*>(args.dgate)[at] = x;
    else
      put(static_cast<bf16*>(args.dgate) + at, x);
  }
};

template <int kH, class E, class In>
GOLF_INLINE void copy_row(const In* src, E* dst) {
#pragma GCC unroll 8
  for (int d = 0; d < kH; d += kLanes) store(dst + d, load(src + d));
}

// Rows [first, first + count) in the operand's type, [padded][kH]; rows past `count` are zero.
template <class P, int kH, class In>
GOLF_INLINE void pack_rows(const Rows<const In>& rows, int64_t first, int count, int padded, typename P::E* out) {
  for (int i = 0; i < count; ++i) copy_row<kH>(rows.at(first + i), out + i * kH);
  __builtin_memset(static_cast<void*>(out + count * kH), 0,
                   sizeof(out[0]) * static_cast<size_t>((padded - count) * kH));
}

// [rows][kH] -> [rows / kDepth][kH][kDepth], to reduce over rows. Where kDepth is 1 that is a copy; callers alias.
template <class P, int kH>
GOLF_INLINE void pair_rows(const typename P::E* in, int rows, typename P::E* out) {
  static_assert(P::kDepth == 2, "single rows need no pairing");
  for (int i = 0; i < rows; i += 2) P::interleave(in + i * kH, kH, out + i * kH);
}

// [kTile][kH] -> [kH / kDepth][kTile][kDepth], to reduce over kH; only the first `rows` (a multiple of kLanes) rows.
template <class P, int kH>
GOLF_INLINE void turn_rows(const typename P::E* in, int rows, typename P::E* out) {
  constexpr int kUnits = kH / P::kDepth;
  for (int i = 0; i < rows; i += kLanes)
    for (int u = 0; u < kUnits; u += kLanes)
      transpose_block(in + i * kH + u * P::kDepth, kUnits, out + (u * kTile + i) * P::kDepth, kTile);
}

template <int kH, class A, class B>
GOLF_INLINE float dot_rows(const A* a, const B* b) {
  V total = zero();
#pragma GCC unroll 8
  for (int d = 0; d < kH; d += kLanes) total = fma(load(a + d), load(b + d), total);
  return sum(total);
}

// 1 / |v|, bounded as torch.nn.functional.normalize bounds it.
template <int kH, class In>
GOLF_INLINE float inverse_norm(const In* v) {
  constexpr float kSmallest = 1e-12f;
  const float norm = __builtin_sqrtf(dot_rows<kH>(v, v));
  return 1.0f / (norm < kSmallest ? kSmallest : norm);
}

}  // namespace
}  // namespace GOLF_ISA_NS
}  // namespace golf
