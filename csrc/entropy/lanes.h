// Interleaved rANS: the encoder collects runs and writes them backwards, the decoder reads them forwards.
//
// Coded: the lanes' states (u32 each), the words (u16) in the order the decoder takes them, and the escaped symbols,
// one byte each, the first one last. Integers are little-endian.
#pragma once

#include <algorithm>

#include "entropy/tables.h"

namespace golf::entropy {

inline void put16(std::vector<uint8_t>* to, uint32_t value) {
  to->push_back(static_cast<uint8_t>(value));
  to->push_back(static_cast<uint8_t>(value >> 8));
}
inline uint32_t get16(const uint8_t* from) noexcept { return from[0] | static_cast<uint32_t>(from[1]) << 8; }

class LaneEncoder {
 public:
  explicit LaneEncoder(uint64_t weights) { intervals_.reserve(weights); }

  void start_run() { runs_.push_back(intervals_.size()); }

  void add(const Frequencies& table, uint32_t symbol) {
    if (table.freq[symbol] != 0) {
      intervals_.push_back({table.freq[symbol], table.start[symbol]});
    } else {
      intervals_.push_back({table.escape, static_cast<uint16_t>(kTotal - table.escape)});
      escapes_.push_back(static_cast<uint8_t>(symbol));
    }
  }

  // Appends everything to `out`.
  void finish(uint32_t lanes_log2, std::vector<uint8_t>* out) const {
    const size_t lanes = size_t{1} << lanes_log2;
    std::vector<uint32_t> states(lanes, kLow);
    std::vector<uint16_t> words;  // backwards
    words.reserve(intervals_.size() / 3);
    size_t end = intervals_.size();
    for (size_t run = runs_.size(); run-- > 0;) {
      for (size_t i = end; i-- > runs_[run];) {
        const Interval interval = intervals_[i];
        uint32_t& lane = states[(i - runs_[run]) & (lanes - 1)];
        uint32_t x = lane;
        if (x >= static_cast<uint64_t>(interval.freq) << (32 - kPrecision)) {
          words.push_back(static_cast<uint16_t>(x));
          x >>= 16;
        }
        lane = ((x / interval.freq) << kPrecision) + x % interval.freq + interval.start;
      }
      end = runs_[run];
    }
    out->reserve(out->size() + 4 * lanes + 2 * words.size() + escapes_.size());
    for (const uint32_t x : states) {
      put16(out, x);
      put16(out, x >> 16);
    }
    for (size_t i = words.size(); i-- > 0;) put16(out, words[i]);
    out->insert(out->end(), escapes_.rbegin(), escapes_.rend());
  }

 private:
  struct Interval {
    uint16_t freq, start;
  };
  std::vector<Interval> intervals_;
  std::vector<size_t> runs_;
  std::vector<uint8_t> escapes_;
};

class LaneDecoder {
 public:
  LaneDecoder(const Symbols& symbols, uint32_t lanes_log2)
      : symbols_(symbols), trellis_(symbols.trellis), lanes_(size_t{1} << lanes_log2) {}

  Fault open(const uint8_t* data, size_t size) noexcept {
    if (size < 4 * lanes_) return Fault::kCut;
    for (size_t i = 0; i < lanes_; ++i) {
      states_[i] = get16(data + 4 * i) | get16(data + 4 * i + 2) << 16;
      if (states_[i] < kLow) return Fault::kEnd;
    }
    front_ = data + 4 * lanes_;
    back_ = data + size;
    return Fault::kNone;
  }

  // A run of rows x cols symbols. context_C[c] is the column's context; with a trellis the state's lowest bit is added
  // to it, and state_C moves on.
  Fault run(const std::vector<Slots>& tables, const uint16_t* context_C, uint8_t* state_C, uint64_t rows, uint64_t cols,
            int8_t* out) noexcept {
    lane_ = 0;
    for (uint64_t r = 0; r < rows; ++r, out += cols) {
      const Fault fault = symbols_.trellis != 0 ? row<true>(tables.data(), context_C, state_C, cols, out)
                                                : row<false>(tables.data(), context_C, state_C, cols, out);
      if (fault != Fault::kNone) return fault;
    }
    return Fault::kNone;
  }

  Fault close() const noexcept {
    if (front_ != back_) return Fault::kEnd;
    for (size_t i = 0; i < lanes_; ++i)
      if (states_[i] != kLow) return Fault::kEnd;
    return Fault::kNone;
  }

 private:
  template <bool kTrellis>
  Fault row(const Slots* tables, const uint16_t* context_C, uint8_t* state_C, uint64_t cols, int8_t* out) noexcept {
    uint64_t c = 0;
    while (c < cols) {
      // A weight takes at most a word and an escape, so this many need no check of the stream's end.
      const uint64_t safe = std::min<uint64_t>(cols - c, static_cast<uint64_t>(back_ - front_) / 3);
      if (safe != 0) {
        const Fault fault = weights<kTrellis, false>(tables, context_C, state_C, c, c + safe, out);
        if (fault != Fault::kNone) return fault;
        c += safe;
      } else {
        const Fault fault = weights<kTrellis, true>(tables, context_C, state_C, c, c + 1, out);
        if (fault != Fault::kNone) return fault;
        ++c;
      }
    }
    return Fault::kNone;
  }

  template <bool kTrellis, bool kChecked>
  Fault weights(const Slots* tables, const uint16_t* context_C, uint8_t* state_C, uint64_t begin, uint64_t end,
                int8_t* out) noexcept {
    const size_t lane_mask = lanes_ - 1;
    const uint8_t* front = front_;
    size_t lane = lane_;
    for (uint64_t c = begin; c < end; ++c) {
      const Slots& table = tables[context_C[c] + (kTrellis ? state_C[c] & 1u : 0u)];
      uint32_t x = states_[lane];
      const uint32_t slot = x & (kTotal - 1);
      uint32_t symbol, freq, start;
      if (slot < table.escape_start) {
        symbol = table.symbol[slot];
        freq = table.frequencies.freq[symbol];
        start = table.frequencies.start[symbol];
      } else {
        if (kChecked && front == back_) return Fault::kCut;
        symbol = *--back_;
        if (symbol >= symbols_.alphabet()) return Fault::kEscape;
        freq = table.frequencies.escape;
        start = table.escape_start;
      }
      x = freq * (x >> kPrecision) + slot - start;
      if (kChecked) {
        if (x < kLow) {
          if (back_ - front < 2) return Fault::kCut;
          x = x << 16 | get16(front);
          front += 2;
        }
      } else {
        // Without a branch: whether a word is due is as good as random.
        const uint32_t wide = x << 16 | get16(front);
        front += x < kLow ? 2 : 0;
        x = x < kLow ? wide : x;
      }
      states_[lane] = x;
      lane = (lane + 1) & lane_mask;
      const int32_t value = static_cast<int32_t>(symbol) - symbols_.half();
      out[c] = static_cast<int8_t>(value);
      if (kTrellis) state_C[c] = trellis_.next(state_C[c], value);
    }
    front_ = front;
    lane_ = lane;
    return Fault::kNone;
  }

  const Symbols symbols_;
  const Trellis trellis_;
  const size_t lanes_;
  size_t lane_ = 0;
  const uint8_t* front_ = nullptr;
  const uint8_t* back_ = nullptr;
  uint32_t states_[size_t{1} << kMaxLanesLog2];
};

}  // namespace golf::entropy
