#include "entropy/adaptive.h"

#include <algorithm>

namespace golf::entropy {
namespace {

constexpr uint64_t kBlockWeights = 4096;
constexpr uint64_t kIncrement = 16;         // of a count, for each symbol seen
constexpr uint64_t kPriorTotal = 128 * 16;  // counts that a class starts with: 128 symbols' worth
constexpr uint64_t kHalveAt = uint64_t{1} << 22;

// 1024 * 2^(j/8), rounded.
constexpr uint32_t kMantissa[8] = {1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878};

// Lower bounds of the classes from class 1 on.
uint64_t threshold(uint32_t j) noexcept { return static_cast<uint64_t>(kMantissa[j & 7]) << (j >> 3) >> 10; }

// The number of thresholds at or below `mean`.
uint32_t class_of(uint64_t mean) noexcept {
  if (mean == 0) return 0;
  uint32_t j = 8 * static_cast<uint32_t>(63 - __builtin_clzll(mean));
  while (threshold(j + 1) <= mean) ++j;
  return j + 1;
}

// About 512 * exp(-point^2 / (pi (mean/128)^2)): a Gaussian of that mean magnitude, with 2^-x taken linear between
// integers.
uint64_t bell(uint64_t magnitude, uint64_t mean) noexcept {
  const uint64_t t = magnitude * magnitude * 1926128 / (mean * mean);
  const uint64_t g = t >> 8 < 10 ? (512 - (t & 255)) >> (t >> 8) : 0;
  return g + (magnitude <= 1 ? 1 : 0);
}

}  // namespace

void AdaptiveModel::start_tensor(uint64_t cols) {
  sum_C_.assign(cols, 0);
  context_C_.assign(cols, 0);
  if (symbols_.trellis != 0) state_C_.assign(cols, 0);
  rows_ = 0;
  growth_ = 1;
}

uint64_t AdaptiveModel::block_rows(uint64_t left) const noexcept {
  const uint64_t most = std::max<uint64_t>(1, kBlockWeights / sum_C_.size());
  return std::min({left, growth_, most});
}

void AdaptiveModel::start_block() {
  rebuilt_.clear();
  const uint64_t weight = uint64_t{1} << params_.prior_log2;
  uint64_t last = UINT64_MAX;  // neighbouring columns often share a mean: look it up once
  uint16_t context = 0;
  for (size_t c = 0; c < sum_C_.size(); ++c) {
    const uint64_t mean = (128 * sum_C_[c] + weight * mean_) / (rows_ + weight);
    if (mean != last) context = context_of(class_of(mean) >> params_.shift);
    last = mean;
    context_C_[c] = context;
  }
}

uint16_t AdaptiveModel::context_of(uint32_t column_class) {
  const uint32_t per_class = symbols_.trellis != 0 ? 2 : 1;
  int32_t& first = first_of_class_[column_class];
  if (first < 0) {
    first = static_cast<int32_t>(contexts_.size());
    for (uint32_t z = 0; z < per_class; ++z) start_context(column_class, z);
  }
  for (uint32_t z = 0; z < per_class; ++z) refresh(static_cast<size_t>(first) + z);
  return static_cast<uint16_t>(first);
}

void AdaptiveModel::start_context(uint32_t column_class, uint32_t z) {
  const uint32_t middle = (column_class << params_.shift) + (1u << params_.shift) / 2;
  const uint64_t mean = threshold(std::min<uint32_t>(middle, kClasses - 1));
  contexts_.emplace_back();
  Context& context = contexts_.back();
  uint64_t sum = 0;
  for (uint32_t s = 0; s < symbols_.alphabet(); ++s) {
    context.counts[s] = bell(magnitude(static_cast<int32_t>(s) - symbols_.half(), z), mean);
    sum += context.counts[s];
  }
  context.total = context.built = 0;
  for (uint32_t s = 0; s < symbols_.alphabet(); ++s) {
    context.counts[s] = kPriorTotal * context.counts[s] / sum;
    context.total += context.counts[s];
  }
}

void AdaptiveModel::refresh(size_t index) {
  Context& context = contexts_[index];
  if (16 * context.total <= 17 * context.built) return;
  normalise(context.counts, context.total, symbols_.alphabet(), &context.frequencies);
  context.built = context.total;
  rebuilt_.push_back(static_cast<uint16_t>(index));
}

void AdaptiveModel::learn(const int8_t* symbols, uint64_t rows) {
  const size_t cols = sum_C_.size();
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
      sum_C_[c] += magnitude(k, z);
    }
  }
  for (Context& context : contexts_) {
    while (context.total >= kHalveAt) {
      context.total = context.built = 0;
      for (uint32_t s = 0; s < symbols_.alphabet(); ++s) context.total += context.counts[s] >>= 1;
    }
  }
  rows_ += rows;
  growth_ = std::min<uint64_t>(2 * growth_, kBlockWeights);
  uint64_t sum = 0;
  for (const uint64_t s : sum_C_) sum += s;
  mean_ = 128 * sum / (rows_ * cols);
}

}  // namespace golf::entropy
