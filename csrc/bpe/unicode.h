// Letters, numbers and white space of Unicode 16.0, for the pre-tokenizer.
#pragma once

#include <cstddef>
#include <cstdint>

namespace golf::bpe {

enum class CharClass : uint8_t { kOther = 0, kLetter = 1, kNumber = 2, kSpace = 3 };

// A character of the text: its class and how many bytes it takes (0 at the end of the text, with class kSpace).
struct Char {
  CharClass cls;
  uint8_t length;
};

// Class of a character outside ASCII. A byte that is no part of a well-formed UTF-8 sequence is a character of its own
// with class kOther, as U+FFFD would be: so any bytes have exactly one segmentation, and it only depends on them.
Char multibyte_char(const uint8_t* p, const uint8_t* end) noexcept;

}  // namespace golf::bpe
