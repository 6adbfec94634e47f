// One piece of text to ids: of all adjacent pairs the one with the lowest merged id is merged, the leftmost first,
// until no pair merges.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bpe/vocabulary.h"

namespace golf::bpe {

// Writes at most `length` ids to `out` and returns how many. length < 2^32. Time: O(n log n) for long pieces.
size_t merge_word(const Vocabulary& vocabulary, const uint8_t* p, size_t length, uint16_t* out);

}  // namespace golf::bpe
