#include "bitpack/bitpack.h"
#include "vec.h"
#include "vec_math.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

// constexpr functions of bitpack.h are used in constant expressions only: an inline copy would carry this file's flags.
GOLF_INLINE int64_t values_of(BitFormat f) { return f.bits == 0 ? kTernaryBlock : kIntBlock; }
GOLF_INLINE int64_t bytes_of(BitFormat f) { return f.bits == 0 ? kTernaryBytes : 8 * f.bits; }
GOLF_INLINE int64_t row_bytes(BitFormat f, int64_t columns) {
  return (columns + values_of(f) - 1) / values_of(f) * bytes_of(f);
}
GOLF_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

template <int W>
GOLF_INLINE void pack_plane(const uint8_t* u, int shift, uint8_t* out) {
  for (int j = 0; j < 8 * W; ++j) {
    unsigned byte = 0;
    for (int s = 0; s < 8 / W; ++s) byte |= ((u[j + 8 * W * s] >> shift) & ((1u << W) - 1)) << (W * s);
    out[j] = static_cast<uint8_t>(byte);
  }
}

template <int W>
GOLF_INLINE void unpack_plane(const uint8_t* in, int shift, uint8_t* u) {
  for (int s = 0; s < 8 / W; ++s)
    for (int j = 0; j < 8 * W; ++j)
      u[j + 8 * W * s] = static_cast<uint8_t>(u[j + 8 * W * s] | ((in[j] >> (W * s)) & ((1 << W) - 1)) << shift);
}

void pack_block(const uint8_t* u, int bits, uint8_t* out) {
  if (bits == 8) return pack_plane<8>(u, 0, out);
  int shift = 0;
  if (bits & 4) pack_plane<4>(u, shift, out), shift += 4, out += 32;
  if (bits & 2) pack_plane<2>(u, shift, out), shift += 2, out += 16;
  if (bits & 1) pack_plane<1>(u, shift, out);
}

void unpack_block(const uint8_t* in, int bits, int8_t* q) {
  uint8_t u[kIntBlock] = {};
  int shift = 0;
  if (bits == 8) unpack_plane<8>(in, 0, u);
  if (bits < 8 && bits & 4) unpack_plane<4>(in, shift, u), shift += 4, in += 32;
  if (bits < 8 && bits & 2) unpack_plane<2>(in, shift, u), shift += 2, in += 16;
  if (bits < 8 && bits & 1) unpack_plane<1>(in, shift, u);
  for (int j = 0; j < kIntBlock; ++j) q[j] = static_cast<int8_t>(u[j] - (1 << (bits - 1)));
}

void pack_ternary(const uint8_t* u, uint8_t* out) {
  for (int j = 0; j < 16; ++j) {
    unsigned n = 0;
    for (int s = 0; s < 5; ++s) n = 3 * n + u[j + 16 * s];
    out[j] = static_cast<uint8_t>((256 * n + 242) / 243);
  }
}

void unpack_ternary(const uint8_t* in, int8_t* q) {
  uint8_t rest[16];
  __builtin_memcpy(rest, in, 16);
  for (int s = 0; s < 5; ++s)
    for (int j = 0; j < 16; ++j) {
      const unsigned tripled = 3u * rest[j];
      q[j + 16 * s] = static_cast<int8_t>(static_cast<int>(tripled >> 8) - 1);
      rest[j] = static_cast<uint8_t>(tripled);
    }
}

void pack(const int8_t* q, BitFormat f, int64_t columns, uint8_t* data, int64_t begin, int64_t end) {
  const int64_t values = values_of(f);
  const int offset = f.bits == 0 ? 1 : 1 << (f.bits - 1);
  for (int64_t row = begin; row < end; ++row) {
    uint8_t* out = data + row * row_bytes(f, columns);
    for (int64_t first = 0; first < columns; first += values, out += bytes_of(f)) {
      uint8_t u[kTernaryBlock] = {};
      const int8_t* in = q + row * columns + first;
      for (int64_t j = 0; j < least(values, columns - first); ++j) u[j] = static_cast<uint8_t>(in[j] + offset);
      f.bits == 0 ? pack_ternary(u, out) : pack_block(u, f.bits, out);
    }
  }
}

// fn(first column, count, codes) over the panels of a row; codes past `count` are padding or zero.
template <class Fn>
GOLF_INLINE void for_panels(const PackedMatrix& m, int64_t row, const Fn& fn) {
  const uint8_t* in = m.data + row * row_bytes(m.format, m.columns);
  const int64_t values = values_of(m.format);
  for (int64_t first = 0; first < m.columns; first += kPanelValues) {
    int8_t q[kPanelValues] = {};
    const int64_t count = least(kPanelValues, m.columns - first);
    for (int64_t j = 0; j < count; j += values, in += bytes_of(m.format))
      m.format.bits == 0 ? unpack_ternary(in, q + j) : unpack_block(in, m.format.bits, q + j);
    fn(first, count, q);
  }
}

// fn(begin, end, scale) over the pieces of [first, first + count) that share a group's scale.
template <class Fn>
GOLF_INLINE void for_groups(const float* scales, int64_t group, int64_t first, int64_t count, const Fn& fn) {
  for (int64_t at = first; at < first + count;) {
    const int64_t end = least(first + count, (at / group + 1) * group);
    fn(at, end, scales[at / group]);
    at = end;
  }
}

GOLF_INLINE const float* row_scales(const float* scales, int64_t row, int64_t columns, int64_t group) {
  return scales + row * ((columns + group - 1) / group);
}

void unpack(const PackedMatrix& m, int8_t* q, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row)
    for_panels(m, row, [&](int64_t first, int64_t count, const int8_t* codes) {
      __builtin_memcpy(q + row * m.columns + first, codes, static_cast<size_t>(count));
    });
}

GOLF_INLINE void widen_codes(const int8_t* q, float* out) {
  for (int64_t j = 0; j < kPanelValues; ++j) out[j] = static_cast<float>(q[j]);
}

template <class T>
void dequantize(const PackedMatrix& m, T* w, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* scales = row_scales(m.scales, row, m.columns, m.group);
    for_panels(m, row, [&](int64_t first, int64_t count, const int8_t* codes) {
      float wide[kPanelValues];
      widen_codes(codes, wide);
      for_groups(scales, m.group, first, count, [&](int64_t at, int64_t stop, float scale) {
        T* out = w + row * m.columns + at;
        for_lanes(stop - at, [&](int64_t j, int lanes) {
          store_lanes(out + j, mul(load_lanes(wide + (at - first) + j, lanes), set1(scale)), lanes);
        });
      });
    });
  }
}

template <class T>
void fake(const T* w, const float* scales, T* y, CodeRange range, int64_t columns, int64_t group, int64_t begin,
          int64_t end) {
  const V low = set1(static_cast<float>(range.low)), high = set1(static_cast<float>(range.high));
  for (int64_t row = begin; row < end; ++row)
    for_groups(row_scales(scales, row, columns, group), group, 0, columns, [&](int64_t at, int64_t stop, float scale) {
      const V step = set1(scale), divisor = set1(scale == 0.0f ? 1.0f : scale);
      const int64_t first = row * columns + at;
      for_lanes(stop - at, [&](int64_t j, int lanes) {
        const V code = round_even(div(load_lanes(w + first + j, lanes), divisor));
        store_lanes(y + first + j, mul(min(high, max(low, code)), step), lanes);
      });
    });
}

// --- products: x as f32 rows, padded with zeros to whole panels
// -------------------------------------------------------

GOLF_INLINE int64_t padded(int64_t columns) { return (columns + kPanelValues - 1) / kPanelValues * kPanelValues; }

template <class T>
void prepare_wide(const PackedMatrix& m, const T* x, int64_t batch, float* out) {
  for (int64_t b = 0; b < batch; ++b) {
    float* to = out + b * padded(m.columns);
    for_lanes(m.columns,
              [&](int64_t i, int lanes) { store_lanes(to + i, load_lanes(x + b * m.columns + i, lanes), lanes); });
    for (int64_t i = m.columns; i < padded(m.columns); ++i) to[i] = 0.0f;
  }
}

constexpr int64_t kBatch = 4;  // rows of x for which a panel is unpacked once

void product_wide(const PackedMatrix& m, const float* x, float* y, int64_t batch, int64_t begin, int64_t end) {
  for (int64_t b0 = 0; b0 < batch; b0 += kBatch)
    for (int64_t row = begin; row < end; ++row) {
      const float* scales = row_scales(m.scales, row, m.columns, m.group);
      const int64_t here = least(kBatch, batch - b0);
      V total[kBatch] = {zero(), zero(), zero(), zero()};
      for_panels(m, row, [&](int64_t first, int64_t count, const int8_t* codes) {
        float wide[kPanelValues];
        widen_codes(codes, wide);
        for_groups(scales, m.group, first, count, [&](int64_t at, int64_t stop, float scale) {
          for (int64_t b = 0; b < here; ++b) {
            const float* from = x + (b0 + b) * padded(m.columns) + at;
            V part = zero();
            for_lanes(stop - at, [&](int64_t j, int lanes) {
              part = fma(load_lanes(wide + (at - first) + j, lanes), load_lanes(from + j, lanes), part);
            });
            total[b] = fma(part, set1(scale), total[b]);
          }
        });
      });
      for (int64_t b = 0; b < here; ++b) y[(b0 + b) * m.rows + row] = sum(total[b]);
    }
}

}  // namespace
}  // namespace GOLF_ISA_NS
}  // namespace golf

#include "bitpack/dot.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

template <class T>
void prepare(const PackedMatrix& m, const T* x, int64_t batch, void* prepared) {
  if (has_dot(m)) return prepare_dot(m, x, batch, static_cast<bf16*>(prepared));
  prepare_wide(m, x, batch, static_cast<float*>(prepared));
}

void product(const PackedMatrix& m, DType dtype, const void* prepared, float* y, int64_t batch, int64_t begin,
             int64_t end) {
  if (has_dot(m)) return product_dot(m, dtype, static_cast<const bf16*>(prepared), y, batch, begin, end);
  product_wide(m, static_cast<const float*>(prepared), y, batch, begin, end);
}

}  // namespace

const BitpackKernels bitpack_kernels = {
    pack, unpack, dequantize<float>, dequantize<bf16>, fake<float>, fake<bf16>, prepare<float>, prepare<bf16>, product,
};

}  // namespace GOLF_ISA_NS
}  // namespace golf
