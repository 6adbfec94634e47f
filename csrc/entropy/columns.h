// What the adaptive coders know of a chunk's columns: how large their symbols were so far, and the class that gives
// them.
#pragma once

#include <algorithm>

#include "entropy/entropy_layout.h"

namespace golf::entropy {

constexpr uint32_t kClasses = 160;
constexpr uint64_t kPriorTotal = 128 * 16;  // counts that a class starts with: 128 symbols' worth

struct AdaptiveParams {
  uint32_t lanes_log2;
  uint32_t prior_log2;  // rows that the tensor's mean counts for in a column's
  uint32_t shift;       // classes are 2^shift eighths of an octave
};

// Lower bounds of the classes from class 1 on, from 1024 * 2^(j/8), rounded.
inline uint64_t threshold(uint32_t j) noexcept {
  constexpr uint32_t kMantissa[8] = {1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878};
  return static_cast<uint64_t>(kMantissa[j & 7]) << (j >> 3) >> 10;
}

// The number of thresholds at or below `mean`.
inline uint32_t class_of(uint64_t mean) noexcept {
  if (mean == 0) return 0;
  uint32_t j = 8 * static_cast<uint32_t>(63 - __builtin_clzll(mean));
  while (threshold(j + 1) <= mean) ++j;
  return j + 1;
}

// The counts of the alphabet's symbols that a class starts from; returns their sum.
uint64_t first_counts(const Symbols& symbols, uint32_t column_class, uint32_t shift, uint32_t z,
                      uint64_t* counts) noexcept;

// What the coders start from: the mean magnitude of the first matrix, in 1/128.
inline uint32_t first_mean(const Matrix& matrix, const int8_t* data) noexcept {
  uint64_t sum = 0;
  const uint64_t n = matrix.rows * matrix.cols;
  for (uint64_t i = 0; i < n; ++i) sum += magnitude(data[i], 0);
  return static_cast<uint32_t>(128 * sum / n);
}

class ColumnMeans {
 public:
  ColumnMeans(const AdaptiveParams& params, uint64_t block_weights, uint32_t first_mean)
      : params_(params), block_weights_(block_weights), mean_(first_mean) {}

  void start_tensor(uint64_t cols) {
    sum_C_.assign(cols, 0);
    rows_ = 0;
    growth_ = 1;
  }
  uint64_t cols() const noexcept { return sum_C_.size(); }

  // Rows of the next block of a tensor of which `left` rows are left.
  uint64_t block_rows(uint64_t left) const noexcept {
    const uint64_t most = std::max<uint64_t>(1, block_weights_ / sum_C_.size());
    return std::min({left, growth_, most});
  }

  // Calls visit(column, class) for every column; `same` tells that the class is that of the column before.
  template <class Visit>
  void classes(const Visit& visit) const {
    const uint64_t weight = uint64_t{1} << params_.prior_log2;
    uint64_t last = UINT64_MAX;  // neighboring columns often share a mean: look it up once
    uint32_t column_class = 0;
    for (size_t c = 0; c < sum_C_.size(); ++c) {
      const uint64_t mean = (128 * sum_C_[c] + weight * mean_) / (rows_ + weight);
      const bool same = mean == last;
      if (!same) column_class = class_of(mean) >> params_.shift;
      last = mean;
      visit(c, column_class, same);
    }
  }

  void add(size_t column, uint64_t size) noexcept { sum_C_[column] += size; }

  void end_block(uint64_t rows) noexcept {
    rows_ += rows;
    growth_ = std::min<uint64_t>(2 * growth_, 4096);
    uint64_t sum = 0;
    for (const uint64_t s : sum_C_) sum += s;
    mean_ = 128 * sum / (rows_ * sum_C_.size());
  }

 private:
  const AdaptiveParams params_;
  const uint64_t block_weights_;
  uint64_t mean_;  // of magnitudes, in 1/128 of a half step
  uint64_t rows_ = 0, growth_ = 1;
  std::vector<uint64_t> sum_C_;
};

}  // namespace golf::entropy
