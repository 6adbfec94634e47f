#include "bpe/unicode.h"

#include <iterator>
#include <vector>

namespace golf::bpe {
namespace {

constexpr uint32_t kRanges[] = {
#include "bpe/unicode_ranges.inc"
};
static_assert((kRanges[std::size(kRanges) - 1] & 3) == 0, "all code points after the last range are of class other");

std::vector<CharClass> expand_ranges() {
  std::vector<CharClass> table(kRanges[std::size(kRanges) - 1] >> 2);
  for (size_t i = 0; i + 1 < std::size(kRanges); ++i)
    for (uint32_t c = kRanges[i] >> 2; c < kRanges[i + 1] >> 2; ++c) table[c] = static_cast<CharClass>(kRanges[i] & 3);
  return table;
}

const std::vector<CharClass> kClasses = expand_ranges();

constexpr Char kInvalid{CharClass::kOther, 1};

bool continuation(uint8_t b) noexcept { return (b & 0xC0) == 0x80; }

}  // namespace

Char multibyte_char(const uint8_t* p, const uint8_t* end) noexcept {
  const ptrdiff_t left = end - p;
  const uint8_t lead = p[0];
  uint32_t code = 0;
  uint8_t length = 0;
  if (lead >= 0xC2 && lead < 0xE0) {
    if (left < 2 || !continuation(p[1])) return kInvalid;
    code = (lead & 0x1Fu) << 6 | (p[1] & 0x3Fu);
    length = 2;
  } else if ((lead & 0xF0) == 0xE0) {
    if (left < 3 || !continuation(p[1]) || !continuation(p[2])) return kInvalid;
    code = (lead & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    if (code < 0x800 || (code >= 0xD800 && code < 0xE000)) return kInvalid;
    length = 3;
  } else if (lead >= 0xF0 && lead < 0xF5) {
    if (left < 4 || !continuation(p[1]) || !continuation(p[2]) || !continuation(p[3])) return kInvalid;
    code = (lead & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
    if (code < 0x10000 || code > 0x10FFFF) return kInvalid;
    length = 4;
  } else {
    return kInvalid;
  }
  return {code < kClasses.size() ? kClasses[code] : CharClass::kOther, length};
}

}  // namespace golf::bpe
