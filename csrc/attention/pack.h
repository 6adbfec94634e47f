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

template <int kH, class T>
GOLF_INLINE void copy_row(const T* src, T* dst) {
  __builtin_memcpy(static_cast<void*>(dst), src, kH * sizeof(T));
}
template <int kH>
GOLF_INLINE void copy_row(const bf16* src, float* dst) {
#pragma GCC unroll 16
  for (int d = 0; d < kH; d += kLanes) store(dst + d, load(src + d));
}

// Rows [first, first + count) in the operand's type, [padded][kH]; rows past `count` are zero.
template <class P, int kH, class In>
GOLF_INLINE void pack_rows(const Rows<const In>& rows, int64_t first, int count, int padded, typename P::E* out) {
  for (int i = 0; i < count; ++i) copy_row<kH>(rows.at(first + i), out + i * kH);
  __builtin_memset(static_cast<void*>(out + count * kH), 0,
                   sizeof(out[0]) * static_cast<size_t>((padded - count) * kH));
}

// [rows][kH] -> [rows / 2][kH][2], to reduce over rows in pairs. Operands of depth 1 need none of it: callers alias.
template <class P, int kH>
GOLF_INLINE void pair_rows(const typename P::E* in, int rows, typename P::E* out) {
  static_assert(P::kDepth == 2, "single rows need no pairing");
  for (int i = 0; i < rows; i += 2)
    for (int d = 0; d < kH; d += kBlock)
      P::store_pairs(out + i * kH + 2 * d, P::load_line(in + i * kH + d), P::load_line(in + (i + 1) * kH + d));
}

// [kTile][kH] -> [kH / kDepth][kTile][kDepth], to reduce over kH; only the first `rows` (a multiple of kLanes) rows.
template <class P, int kH>
GOLF_INLINE void turn_rows(const typename P::E* in, int rows, typename P::E* out) {
  constexpr int kUnits = kH / P::kDepth;
  for (int i = 0; i < rows; i += kLanes)
    for (int u = 0; u < kUnits; u += kLanes)
      transpose_block(in + i * kH + u * P::kDepth, kUnits, out + (u * kTile + i) * P::kDepth, kTile);
}

// One row in registers.
template <int kH>
struct Row {
  static constexpr int kCount = kH / kLanes;
  V x[kCount];

  template <class T>
  static GOLF_MEMBER Row of(const T* p) {
    Row row;
#pragma GCC unroll 16
    for (int c = 0; c < kCount; ++c) row.x[c] = load(p + c * kLanes);
    return row;
  }
  template <class T>
  GOLF_MEMBER void put(T* p) const {
#pragma GCC unroll 16
    for (int c = 0; c < kCount; ++c) store(p + c * kLanes, x[c]);
  }
  GOLF_MEMBER Row times(V by) const {
    Row row;
#pragma GCC unroll 16
    for (int c = 0; c < kCount; ++c) row.x[c] = mul(x[c], by);
    return row;
  }
  GOLF_MEMBER Row plus(V by, const Row& other) const {  // x + by other
    Row row;
#pragma GCC unroll 16
    for (int c = 0; c < kCount; ++c) row.x[c] = fma(by, other.x[c], x[c]);
    return row;
  }
  GOLF_MEMBER float dot(const Row& other) const {
    V total = zero();
#pragma GCC unroll 16
    for (int c = 0; c < kCount; ++c) total = fma(x[c], other.x[c], total);
    return sum(total);
  }
};

// 1 / |v| of every row, bounded as torch.nn.functional.normalize bounds it.
template <int kH, class In>
GOLF_INLINE void inverse_norms(const Rows<const In>& v, int64_t length, float* out) {
  constexpr float kSmallest = 1e-24f;  // of the square
  for (int64_t i = 0; i < length; ++i) {
    const Row<kH> row = Row<kH>::of(v.at(i));
    out[i] = row.dot(row);
  }
  for (int64_t i = 0; i < length; ++i) out[i] = 1.0f / __builtin_sqrtf(out[i] < kSmallest ? kSmallest : out[i]);
}

}  // namespace
}  // namespace GOLF_ISA_NS
}  // namespace golf
