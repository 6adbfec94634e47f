// Learns the merges of a byte-level BPE from text.
#pragma once

#include <cstddef>
#include <vector>

#include "bpe/parallel.h"
#include "bpe/vocabulary.h"

namespace golf::bpe {

// Counts and positions fit 32 bits: the text's bytes bound the one, those of its distinct pieces the other.
inline constexpr size_t kMaxTrainingBytes = 0xFFFFFFFFu;
inline constexpr size_t kMaxDistinctBytes = size_t{1} << 30;

// Up to `n_merges` merges, fewer when no pair is left that occurs twice and makes a token of at most kMaxTokenBytes.
// Each merge takes the pair with the highest count; of equals the lowest left id, then the lowest right id. Overlapping
// occurrences (aaa) are counted each, and merged from the left. Independent of `threads`.
// The documents hold at most kMaxTrainingBytes together. Throws std::invalid_argument above kMaxDistinctBytes.
std::vector<Merge> train(const std::vector<Bytes>& documents, size_t n_merges, int threads);

}  // namespace golf::bpe
