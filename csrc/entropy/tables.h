// Frequency tables: from counts to frequencies that sum to 2^14, and from frequencies to what the decoder looks up.
#pragma once

#include <cstring>

#include "entropy/entropy_layout.h"

namespace golf::entropy {

// Symbols are shifted to 0 .. alphabet - 1. What has frequency 0 is coded as an escape, whose slots are the last ones.
struct Frequencies {
  uint16_t freq[256];
  uint16_t start[256];
  uint16_t escape;  // frequency of the escape

  void place(uint32_t alphabet) noexcept {
    uint32_t at = 0;
    for (uint32_t s = 0; s < alphabet; ++s) {
      start[s] = static_cast<uint16_t>(at);
      at += freq[s];
    }
    escape = static_cast<uint16_t>(kTotal - at);
  }
};

// counts below 2^48 with sum total > 0.
inline void normalize(const uint64_t* counts, uint64_t total, uint32_t alphabet, Frequencies* to) noexcept {
  constexpr uint32_t kReserve = 8;  // what rounding down leaves at least: room for the escape
  uint64_t rare = 0;
  uint32_t sum = 0, mode = 0;
  bool any_zero = false;
  for (uint32_t s = 0; s < alphabet; ++s) {
    const uint32_t f = static_cast<uint32_t>(counts[s] * (kTotal - kReserve) / total);
    to->freq[s] = static_cast<uint16_t>(f);
    sum += f;
    if (f > to->freq[mode]) mode = s;
    if (f == 0) {
      any_zero = true;
      rare += counts[s];
    }
  }
  uint32_t escape = 0;
  if (any_zero) {
    escape = static_cast<uint32_t>(rare * kTotal / total);
    if (escape == 0) escape = 1;
  }
  to->freq[mode] = static_cast<uint16_t>(to->freq[mode] + (kTotal - escape - sum));
  to->place(alphabet);
}

// One context of the decoder: which symbol a slot belongs to. 17.5 KB.
struct Slots {
  Frequencies frequencies;
  uint32_t escape_start;
  uint8_t symbol[kTotal];

  void fill(uint32_t alphabet) noexcept {
    for (uint32_t s = 0; s < alphabet; ++s)
      if (frequencies.freq[s] != 0)
        std::memset(symbol + frequencies.start[s], static_cast<int>(s), frequencies.freq[s]);
    escape_start = kTotal - frequencies.escape;
  }
};

}  // namespace golf::entropy
