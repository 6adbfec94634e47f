// A thread takes an octet: eight neighboring values of a row, at a multiple of eight. They lie in eight neighboring
// bytes of each plane (ternary: of the block), all at the same bits, so a plane is one load of 8 bytes, which other
// octets of the warp share. Eight bf16 values are one store of 16 bytes.
#include "bitpack/bitpack.h"
#include "device/cuda.h"
#include "device/memory.h"
#include "device/reduce.h"
#include "device/types.h"

namespace golf {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;
constexpr int kOctet = 8;
constexpr int kBatch = 4;  // rows of x for which a row of weights is unpacked once

int64_t octets_of(int64_t columns) noexcept { return (columns + kOctet - 1) / kOctet; }

template <int kBits>
constexpr int64_t kBlockBytes = block_bytes({kBits});
template <int kBits>
constexpr uint32_t kBlockOctets = block_values({kBits}) / kOctet;

// The codes u of an octet, a byte each.
struct Codes {
  uint32_t low, high;

  GOLF_DEVICE int32_t operator[](int i) const {
    return static_cast<int32_t>((i < 4 ? low : high) >> (8 * (i % 4)) & 255);
  }
};

GOLF_DEVICE uint2 load_words(const uint8_t* p) { return __ldg(reinterpret_cast<const uint2*>(p)); }

// Adds the plane of kWidth bits at `p` to the codes, at bit kShift.
template <int kWidth, int kShift>
GOLF_DEVICE void add_plane(Codes& codes, const uint8_t* p, uint32_t octet) {
  constexpr uint32_t kMask = ((1u << kWidth) - 1) * 0x01010101u;
  const uint2 words = load_words(p + octet % kWidth * 8);
  const uint32_t down = octet / kWidth * kWidth;
  codes.low |= (words.x >> down & kMask) << kShift;
  codes.high |= (words.y >> down & kMask) << kShift;
}

// Digit of four ternary bytes: the carry of the last of the multiplications by 3; power = 3^(those before).
GOLF_DEVICE uint32_t digits(uint32_t bytes, uint32_t power) {
  const uint32_t even = (bytes & 0x00ff00ffu) * power & 0x00ff00ffu,
                 odd = (bytes >> 8 & 0x00ff00ffu) * power & 0x00ff00ffu;
  return (even * 3 >> 8 & 0x00ff00ffu) | (odd * 3 & 0xff00ff00u);
}

template <int kBits>
GOLF_DEVICE Codes codes_of(const uint8_t* row, uint32_t octet) {
  const uint8_t* const block = row + octet / kBlockOctets<kBits> * kBlockBytes<kBits>;
  octet %= kBlockOctets<kBits>;
  Codes codes{0, 0};
  if constexpr (kBits == 0) {
    const uint2 words = load_words(block + octet % 2 * 8);
    uint32_t power = 1;
    for (uint32_t i = 0; i < octet / 2; ++i) power *= 3;
    return {digits(words.x, power), digits(words.y, power)};
  } else if constexpr (kBits == 8) {
    add_plane<8, 0>(codes, block, octet);
  } else {
    if constexpr ((kBits & 4) != 0) add_plane<4, 0>(codes, block, octet);
    if constexpr ((kBits & 2) != 0) add_plane<2, (kBits & 4)>(codes, block + (kBits & 4) * 8, octet);
    if constexpr ((kBits & 1) != 0) add_plane<1, (kBits & 6)>(codes, block + (kBits & 6) * 8, octet);
  }
  return codes;
}

template <int kBits>
constexpr int32_t kOffset = kBits == 0 ? 1 : 1 << (kBits == 0 ? 0 : kBits - 1);

template <int kBits>
GOLF_DEVICE Floats<kOctet> numbers(const Codes& codes) {
  Floats<kOctet> q;
  // The code in the lowest bits of 2^23 as a float: the subtraction is exact.
#pragma unroll
  for (int i = 0; i < kOctet; ++i)
    q.at[i] =
        __uint_as_float(0x4b000000u | static_cast<uint32_t>(codes[i])) - static_cast<float>((1 << 23) + kOffset<kBits>);
  return q;
}

// The scales of an octet's columns: one, or where groups end inside octets each its own.
struct Scales {
  const float* row;
  uint32_t columns, group;

  GOLF_DEVICE Scales(const float* scales, int64_t at, int64_t columns_, int64_t group_)
      : row(scales + at * ((columns_ + group_ - 1) / group_)),
        columns(static_cast<uint32_t>(columns_)),
        group(static_cast<uint32_t>(group_ < columns_ ? group_ : columns_)) {}

  GOLF_DEVICE bool one_a_row() const { return group == columns; }
  GOLF_DEVICE Floats<kOctet> of(uint32_t octet) const {
    Floats<kOctet> out;
    const uint32_t first = octet * kOctet;
    if (one_a_row() || group % kOctet == 0) {
      const float one = row[one_a_row() ? 0 : first / group];
#pragma unroll
      for (int i = 0; i < kOctet; ++i) out.at[i] = one;
      return out;
    }
#pragma unroll
    for (int i = 0; i < kOctet; ++i) out.at[i] = first + i < columns ? row[(first + i) / group] : 0.0f;
    return out;
  }
};

// An octet of a row of numbers; kPacked: rows of whole octets, in 16-byte accesses. What lies behind the row's end is 0
// and is not stored.
template <bool kPacked, class T>
GOLF_DEVICE Floats<kOctet> load_octet(const T* row, uint32_t octet, uint32_t columns) {
  if constexpr (kPacked) return load_floats<kOctet>(row + octet * kOctet);
  Floats<kOctet> out{};
#pragma unroll
  for (int i = 0; i < kOctet; ++i)
    if (octet * kOctet + i < columns) out.at[i] = load_floats<1>(row + octet * kOctet + i).at[0];
  return out;
}

template <bool kPacked, class T>
GOLF_DEVICE void store_octet(T* row, uint32_t octet, uint32_t columns, const Floats<kOctet>& in) {
  if constexpr (kPacked) {
    store_floats(row + octet * kOctet, in);
  } else {
#pragma unroll
    for (int i = 0; i < kOctet; ++i)
      if (octet * kOctet + i < columns) row[octet * kOctet + i] = from_float<T>(in.at[i]);
  }
}

GOLF_DEVICE uint32_t octets_in(int64_t columns) { return static_cast<uint32_t>((columns + kOctet - 1) / kOctet); }

template <int kBits>
GOLF_DEVICE const uint8_t* packed_row(const PackedMatrix& m, int64_t row) {
  const uint32_t blocks = (octets_in(m.columns) + kBlockOctets<kBits> - 1) / kBlockOctets<kBits>;
  return m.data + row * blocks * kBlockBytes<kBits>;
}

// Calls fn(row, octet) over a matrix, in a grid-stride loop.
template <class Fn>
GOLF_DEVICE void for_octets(int64_t rows, int64_t columns, const Fn& fn) {
  const uint32_t each = octets_in(columns), all = static_cast<uint32_t>(rows) * each;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < all;
       i += static_cast<int64_t>(gridDim.x) * kThreads)
    fn(static_cast<int64_t>(static_cast<uint32_t>(i) / each), static_cast<uint32_t>(i) % each);
}

// A thread takes a packed byte; `bytes` and `values` of a block.
GOLF_KERNEL(pack, kThreads, 4, const int8_t* q, BitFormat format, int64_t rows, int64_t columns, int64_t row_bytes,
            int32_t bytes, int32_t values, uint8_t* data) {
  const int32_t offset = format.bits == 0 ? 1 : 1 << (format.bits - 1);
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < rows * row_bytes;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t row = i / row_bytes, first = i % row_bytes / bytes * values;
    const auto code = [&](int32_t at) -> uint32_t {
      return first + at < columns ? static_cast<uint32_t>(q[row * columns + first + at] + offset) : 0;
    };
    int32_t j = static_cast<int32_t>(i % row_bytes) % bytes, shift = 0;
    uint32_t byte = 0;
    if (format.bits == 0) {
      for (int32_t s = 0; s < 5; ++s) byte = 3 * byte + code(j + 16 * s);
      byte = (256 * byte + 242) / 243;
    } else {
      int32_t width = format.bits == 8 ? 8 : 4;
      for (; (format.bits & width) == 0 || j >= 8 * width; width /= 2)
        if ((format.bits & width) != 0) j -= 8 * width, shift += width;
      for (int32_t s = 0; s < 8 / width; ++s)
        byte |= (code(j + 8 * width * s) >> shift & ((1u << width) - 1)) << (width * s);
    }
    data[i] = static_cast<uint8_t>(byte);
  }
}

template <int kBits, bool kPacked>
GOLF_KERNEL(unpack, kThreads, 4, PackedMatrix m, int8_t* q) {
  for_octets(m.rows, m.columns, [&](int64_t row, uint32_t octet) {
    const Codes codes = codes_of<kBits>(packed_row<kBits>(m, row), octet);
    Pack<int8_t, kOctet> out;
#pragma unroll
    for (int i = 0; i < kOctet; ++i) out.at[i] = static_cast<int8_t>(codes[i] - kOffset<kBits>);
    int8_t* const to = q + row * m.columns + octet * kOctet;
    if constexpr (kPacked) {
      store(to, out);
    } else {
#pragma unroll
      for (int i = 0; i < kOctet; ++i)
        if (octet * kOctet + i < m.columns) to[i] = out.at[i];
    }
  });
}

template <int kBits, class T, bool kPacked>
GOLF_KERNEL(dequantize, kThreads, 4, PackedMatrix m, T* w) {
  for_octets(m.rows, m.columns, [&](int64_t row, uint32_t octet) {
    const Floats<kOctet> scales = Scales(m.scales, row, m.columns, m.group).of(octet);
    Floats<kOctet> out = numbers<kBits>(codes_of<kBits>(packed_row<kBits>(m, row), octet));
#pragma unroll
    for (int i = 0; i < kOctet; ++i) out.at[i] *= scales.at[i];
    store_octet<kPacked>(w + row * m.columns, octet, static_cast<uint32_t>(m.columns), out);
  });
}

template <class T, bool kPacked>
GOLF_KERNEL(fake_quantize, kThreads, 4, const T* w, const float* scales, T* y, CodeRange range, int64_t rows,
            int64_t columns, int64_t group) {
  const float low = static_cast<float>(range.low), high = static_cast<float>(range.high);
  for_octets(rows, columns, [&](int64_t row, uint32_t octet) {
    const Floats<kOctet> steps = Scales(scales, row, columns, group).of(octet);
    Floats<kOctet> out = load_octet<kPacked>(w + row * columns, octet, static_cast<uint32_t>(columns));
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      const float step = steps.at[i], code = rintf(out.at[i] / (step == 0.0f ? 1.0f : step));
      out.at[i] = (code > high ? high : code < low ? low : code) * step;  // NaN stays
    }
    store_octet<kPacked>(y + row * columns, octet, static_cast<uint32_t>(columns), out);
  });
}

// A warp takes a row of m.
template <int kBits, class T, bool kPacked>
GOLF_KERNEL(product, kThreads, (kPacked ? 4 : 2), PackedMatrix m, const T* x, T* y, int64_t batch) {
  const int64_t lane = threadIdx.x % kWarpSize, warps = static_cast<int64_t>(gridDim.x) * kWarps;
  const uint32_t octets = octets_in(m.columns);
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize; row < m.rows; row += warps) {
    const uint8_t* const data = packed_row<kBits>(m, row);
    const Scales scales(m.scales, row, m.columns, m.group);
    for (int64_t first = 0; first < batch; first += kBatch) {
      float totals[kBatch] = {};
#pragma unroll 2
      for (uint32_t octet = static_cast<uint32_t>(lane); octet < octets; octet += kWarpSize) {
        Floats<kOctet> w = numbers<kBits>(codes_of<kBits>(data, octet));
        if (!scales.one_a_row()) {
          const Floats<kOctet> each = scales.of(octet);
#pragma unroll
          for (int i = 0; i < kOctet; ++i) w.at[i] *= each.at[i];
        }
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
          if (first + b >= batch) break;
          const Floats<kOctet> from = load_octet<kPacked>(x + (first + b) * m.columns, octet, scales.columns);
#pragma unroll
          for (int i = 0; i < kOctet; ++i) totals[b] = fmaf(w.at[i], from.at[i], totals[b]);
        }
      }
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        const float total = warp_sum(totals[b]) * (scales.one_a_row() ? scales.row[0] : 1.0f);
        if (lane == 0 && first + b < batch) y[(first + b) * m.rows + row] = from_float<T>(total);
      }
    }
  }
}

bool valid(BitFormat f, int64_t rows, int64_t columns) noexcept {
  return (f.bits == 0 || (f.bits >= 2 && f.bits <= 8)) && rows >= 0 && columns >= 1 &&
         rows * octets_of(columns) < int64_t{1} << 32 && columns < int64_t{1} << 31;
}

bool valid(const PackedMatrix& m) noexcept {
  return valid(m.format, m.rows, m.columns) && aligned<8>(m.data) && m.group >= 1;
}

unsigned blocks_of(int64_t rows, int64_t columns) noexcept { return blocks_for(rows * octets_of(columns), kThreads); }

template <int kBits_>
struct Bits {
  static constexpr int kBits = kBits_;
};

// fn(Bits<the format's>{}).
template <class Fn>
Status for_format(BitFormat f, const Fn& fn) noexcept {
  switch (f.bits) {
    case 0:
      return fn(Bits<0>{});
    case 2:
      return fn(Bits<2>{});
    case 3:
      return fn(Bits<3>{});
    case 4:
      return fn(Bits<4>{});
    case 5:
      return fn(Bits<5>{});
    case 6:
      return fn(Bits<6>{});
    case 7:
      return fn(Bits<7>{});
    default:
      return fn(Bits<8>{});
  }
}

template <class T>
Status dequantize_to(const PackedMatrix& m, T* w, Stream stream) noexcept {
  const unsigned blocks = blocks_of(m.rows, m.columns);
  return for_format(m.format, [&](auto bits) {
    constexpr int kBits = decltype(bits)::kBits;
    return m.columns % kOctet == 0 && aligned<16>(w)
               ? GOLF_LAUNCH((dequantize<kBits, T, true>), blocks, kThreads, 0, stream, m, w)
               : GOLF_LAUNCH((dequantize<kBits, T, false>), blocks, kThreads, 0, stream, m, w);
  });
}

template <class T>
Status fake_quantize_of(const T* w, const float* scales, T* y, int32_t bits, int64_t rows, int64_t columns,
                        int64_t group, Stream stream) noexcept {
  const unsigned blocks = blocks_of(rows, columns);
  return columns % kOctet == 0 && aligned<16>(w) && aligned<16>(y)
             ? GOLF_LAUNCH((fake_quantize<T, true>), blocks, kThreads, 0, stream, w, scales, y, code_range(bits), rows,
                           columns, group)
             : GOLF_LAUNCH((fake_quantize<T, false>), blocks, kThreads, 0, stream, w, scales, y, code_range(bits), rows,
                           columns, group);
}

template <class T>
Status product_of(const PackedMatrix& m, const T* x, T* y, int64_t batch, Stream stream) noexcept {
  const unsigned blocks = blocks_for(m.rows, kWarps);
  return for_format(m.format, [&](auto bits) {
    constexpr int kBits = decltype(bits)::kBits;
    return m.columns % kOctet == 0 && aligned<16>(x)
               ? GOLF_LAUNCH((product<kBits, T, true>), blocks, kThreads, 0, stream, m, x, y, batch)
               : GOLF_LAUNCH((product<kBits, T, false>), blocks, kThreads, 0, stream, m, x, y, batch);
  });
}

}  // namespace

Status bitpack_pack_device(const int8_t* q, BitFormat format, int64_t rows, int64_t columns, uint8_t* data,
                           Stream stream) noexcept {
  if (!valid(format, rows, columns)) return Status::kInvalidArgument;
  if (rows == 0) return Status::kOk;
  const int64_t row_bytes = packed_row_bytes(format, columns);
  return GOLF_LAUNCH(pack, blocks_for(rows * row_bytes, kThreads), kThreads, 0, stream, q, format, rows, columns,
                     row_bytes, static_cast<int32_t>(block_bytes(format)), static_cast<int32_t>(block_values(format)),
                     data);
}

Status bitpack_unpack_device(const PackedMatrix& m, int8_t* q, Stream stream) noexcept {
  if (!valid(m)) return Status::kInvalidArgument;
  if (m.rows == 0) return Status::kOk;
  const unsigned blocks = blocks_of(m.rows, m.columns);
  return for_format(m.format, [&](auto bits) {
    constexpr int kBits = decltype(bits)::kBits;
    return m.columns % kOctet == 0 && aligned<8>(q)
               ? GOLF_LAUNCH((unpack<kBits, true>), blocks, kThreads, 0, stream, m, q)
               : GOLF_LAUNCH((unpack<kBits, false>), blocks, kThreads, 0, stream, m, q);
  });
}

Status bitpack_dequantize_device(const PackedMatrix& m, DType dtype, void* w, Stream stream) noexcept {
  if (!valid(m)) return Status::kInvalidArgument;
  if (m.rows == 0) return Status::kOk;
  return dtype == DType::kF32 ? dequantize_to(m, static_cast<float*>(w), stream)
                              : dequantize_to(m, static_cast<bf16*>(w), stream);
}

Status bitpack_fake_quantize_device(DType dtype, const void* w, const float* scales, void* y, int32_t bits,
                                    int64_t rows, int64_t columns, int64_t group, Stream stream) noexcept {
  if (!valid({bits}, rows, columns) || group < 1) return Status::kInvalidArgument;
  if (rows == 0) return Status::kOk;
  return dtype == DType::kF32 ? fake_quantize_of(static_cast<const float*>(w), scales, static_cast<float*>(y), bits,
                                                 rows, columns, group, stream)
                              : fake_quantize_of(static_cast<const bf16*>(w), scales, static_cast<bf16*>(y), bits, rows,
                                                 columns, group, stream);
}

Status bitpack_product_device(const PackedMatrix& m, DType dtype, const void* x, void* y, int64_t batch,
                              Stream stream) noexcept {
  if (!valid(m) || batch < 0) return Status::kInvalidArgument;
  if (m.rows == 0 || batch == 0) return Status::kOk;
  return dtype == DType::kF32 ? product_of(m, static_cast<const float*>(x), static_cast<float*>(y), batch, stream)
                              : product_of(m, static_cast<const bf16*>(x), static_cast<bf16*>(y), batch, stream);
}

}  // namespace golf
