#include "entropy/adaptive.h"

namespace golf::entropy {
namespace {

constexpr uint64_t kIncrement = 16;  // of a count, for each symbol seen
constexpr uint64_t kHalveAt = uint64_t{1} << 22;

// About 512 * exp(-point^2 / (pi (mean/128)^2)): a Gaussian of that mean magnitude, with 2^-x taken linear between
// integers.
uint64_t bell(uint64_t magnitude, uint64_t mean) noexcept {
  const uint64_t t = magnitude * magnitude * 1926128 / (mean * mean);
  const uint64_t g = t >> 8 < 10 ? (512 - (t & 255)) >> (t >> 8) : 0;
  return g + (magnitude <= 1 ? 1 : 0);
}

}  // namespace

uint64_t first_counts(const Symbols& symbols, uint32_t column_class, uint32_t shift, uint32_t z,
                      uint64_t* counts) noexcept {
  const uint32_t middle = (column_class << shift) + (1u << shift) / 2;
  const uint64_t mean = threshold(std::min<uint32_t>(middle, kClasses - 1));
  uint64_t sum = 0, total = 0;
  for (uint32_t s = 0; s < symbols.alphabet(); ++s)
    sum += counts[s] = bell(magnitude(static_cast<int32_t>(s) - symbols.half(), z), mean);
  for (uint32_t s = 0; s < symbols.alphabet(); ++s) total += counts[s] = kPriorTotal * counts[s] / sum;
  return total;
}

void AdaptiveModel::start_tensor(uint64_t cols) {
  columns_.start_tensor(cols);
  context_C_.assign(cols, 0);
  if (symbols_.trellis != 0) state_C_.assign(cols, 0);
}

void AdaptiveModel::start_block() {
  rebuilt_.clear();
  uint16_t context = 0;
  columns_.classes([&](size_t c, uint32_t column_class, bool same) {
    if (!same) context = context_of(column_class);
    context_C_[c] = context;
  });
}

uint16_t AdaptiveModel::context_of(uint32_t column_class) {
  const uint32_t per_class = symbols_.trellis != 0 ? 2 : 1;
  int32_t& first = first_of_class_[column_class];
  if (first < 0) {
    first = static_cast<int32_t>(contexts_.size());
    for (uint32_t z = 0; z < per_class; ++z) {
      contexts_.emplace_back();
      contexts_.back().total = first_counts(symbols_, column_class, shift_, z, contexts_.back().counts);
      contexts_.back().built = 0;
    }
  }
  for (uint32_t z = 0; z < per_class; ++z) refresh(static_cast<size_t>(first) + z);
  return static_cast<uint16_t>(first);
}

void AdaptiveModel::refresh(size_t index) {
  Context& context = contexts_[index];
  if (16 * context.total <= 17 * context.built) return;
  normalize(context.counts, context.total, symbols_.alphabet(), &context.frequencies);
  context.built = context.total;
  rebuilt_.push_back(static_cast<uint16_t>(index));
}

void AdaptiveModel::learn(const int8_t* symbols, uint64_t rows) {
  const size_t cols = columns_.cols();
  const bool trellis = symbols_.trellis != 0;
  for (uint64_t r = 0; r < rows; ++r, symbols += cols) {
    for (size_t c = 0; c < cols; ++c) {
      const int32_t k = symbols[c];
      uint32_t z = 0;
      if (trellis) {
        z = state_C_[c] & 1u;
        state_C_[c] = trellis_.next(state_C_[c], k);
      }
      Context& context = contexts_[context_C_[c] + z];
      context.counts[k + symbols_.half()] += kIncrement;
      context.total += kIncrement;
      columns_.add(c, magnitude(k, z));
    }
  }
  for (Context& context : contexts_) {
    while (context.total >= kHalveAt) {
      context.total = context.built = 0;
      for (uint32_t s = 0; s < symbols_.alphabet(); ++s) context.total += context.counts[s] >>= 1;
    }
  }
  columns_.end_block(rows);
}

}  // namespace golf::entropy
