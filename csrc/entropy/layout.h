// The entropy coders' part of the container format (docs/reference/formats.md, 5), shared by encoder and decoder.
//
// Symbols are int8 of 1 to 8 bits. A chunk is a list of matrices; the last dimension is the column. The coder is rANS
// with 16-bit words: states in [2^16, 2^32), frequencies that sum to 2^14, weight i of a run on lane i mod lanes.
// Everything is integer arithmetic, so that every machine writes the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace golf::entropy {

constexpr uint32_t kPrecision = 14;
constexpr uint32_t kTotal = 1u << kPrecision;
constexpr uint32_t kLow = 1u << 16;  // a state below it takes a word
constexpr uint32_t kMaxLanesLog2 = 8;
constexpr uint32_t kMaxStaticClassesLog2 = 4;
constexpr uint32_t kMaxPriorLog2 = 15;
constexpr uint32_t kMaxShift = 3;
constexpr uint64_t kMaxColumns = 1u << 20;  // of a matrix; bounds what a decoder keeps for each column

struct Matrix {
  uint64_t rows, cols;
};

struct Symbols {
  uint32_t bits;     // 1 to 8
  uint32_t trellis;  // 0, or 2 to 8 bits of trellis state

  uint32_t alphabet() const noexcept { return 1u << bits; }
  int32_t half() const noexcept { return 1 << (bits - 1); }
};

// Trellis-coded symbols: the state's lowest bit z makes symbol k the point 2k + z of a grid of half steps, and two bits
// of that point move the state on. The masks are Ungerboeck's one-dimensional codes of 4 to 256 states.
struct Trellis {
  uint8_t mask[4];

  explicit Trellis(uint32_t state_bits) noexcept {
    constexpr uint16_t kH0[9] = {0, 0, 05, 013, 023, 045, 0103, 0235, 0515};
    constexpr uint16_t kH1[9] = {0, 0, 02, 004, 004, 010, 0024, 0126, 0362};
    const uint32_t h0 = kH0[state_bits], h1 = kH1[state_bits];
    mask[0] = 0;
    mask[1] = static_cast<uint8_t>(h0 >> 1);
    mask[2] = static_cast<uint8_t>(h1 >> 1);
    mask[3] = static_cast<uint8_t>((h0 ^ h1) >> 1);
  }
  uint8_t next(uint8_t state, int32_t symbol) const noexcept {
    const uint32_t point = 2 * static_cast<uint32_t>(symbol) + (state & 1u);
    return static_cast<uint8_t>((state >> 1) ^ mask[point & 3]);
  }
};

// |symbol| in half steps: what columns are told apart by.
inline uint32_t magnitude(int32_t symbol, uint32_t z) noexcept {
  const int32_t point = 2 * symbol + static_cast<int32_t>(z);
  return static_cast<uint32_t>(point < 0 ? -point : point);
}

// Why a decoder stopped.
enum class Fault : int32_t {
  kNone = 0,
  kParameters,  // lanes, classes, prior, shift or columns out of range, or more lanes than a trellis allows
  kCut,         // the stream ends early
  kTable,       // a frequency table does not fit 2^14
  kEscape,      // an escaped symbol outside the alphabet
  kEnd,         // bytes are left over, or a lane does not end in its first state
};

}  // namespace golf::entropy
