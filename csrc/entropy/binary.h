// Binary arithmetic coding: a symbol is a few yes-or-no decisions (is it zero, is it negative, is it larger than 1, 2,
// ...), each with an adaptive probability of its own by place, column class and trellis bit.
//
// Rows are taken in blocks. The decisions of one place of a whole block form a plane; probabilities are frozen inside a
// block, so that the lanes of a plane are independent, and counted afterwards.
#pragma once

#include "entropy/columns.h"

namespace golf::entropy {

constexpr uint32_t kBinaryPrecision = 15;  // bits of a probability
constexpr uint32_t kBinaryStateBytes = 5;  // states are below 2^40
constexpr uint64_t kBinaryLow = uint64_t{1} << 24;

// How far a symbol is from zero: with z = 1, where points are odd, from 1 on.
inline uint32_t size_of(int32_t symbol, uint32_t z) noexcept {
  return symbol < 0 ? static_cast<uint32_t>(-symbol) : static_cast<uint32_t>(symbol) + z;
}

// One block's decisions. Contexts are rows of places(): zero, sign, larger than 1, larger than 2, ...
class BinaryModel {
 public:
  BinaryModel(const Symbols& symbols, const AdaptiveParams& params, uint32_t first_mean);

  void start_tensor(uint64_t cols);
  uint64_t block_rows(uint64_t left) const noexcept;

  // Codes the next block. `run(list, n, place, bits)` decides bits[i] for weight list[i] of the block, with the
  // probability one()[base()[list[i]] + place] of a yes; false stops the block. `weights` receives the symbols.
  template <class Run>
  bool code_block(uint64_t rows, const Run& run, int8_t* weights);

  const uint16_t* one() const noexcept { return one_.data(); }
  const uint32_t* base() const noexcept { return base_.data(); }
  const uint8_t* z() const noexcept { return z_.data(); }

 private:
  uint32_t context_of(uint32_t column_class);
  void start_row(uint32_t column_class, uint32_t z);
  void refresh(size_t first);
  size_t start_block(uint64_t rows);  // returns how many of list_ may be zero
  void tally(size_t n, uint32_t place) noexcept;
  size_t keep_sized(size_t n) noexcept;    // of all weights those that are not zero, n of which were asked
  size_t keep_yes(size_t n) noexcept;      // of the list those whose answer was yes
  size_t keep_largest(size_t n) noexcept;  // of the list those that may be of the largest size
  void end_block(uint64_t rows, int8_t* weights) noexcept;

  static constexpr uint64_t kBlockWeights = 1024;  // with a trellis a row: the next one's contexts depend on it

  const Symbols symbols_;
  const uint32_t shift_, places_;
  const Trellis trellis_;
  ColumnMeans columns_;
  size_t block_ = 0;  // weights of the block
  std::vector<uint8_t> state_C_;
  std::vector<uint32_t> context_C_;  // where the column's row of contexts begins
  std::vector<int32_t> first_of_class_ = std::vector<int32_t>(kClasses, -1);
  std::vector<uint16_t> one_;          // of each context: the probability of a yes
  std::vector<uint32_t> seen_;         // of each context: counts of no and yes
  std::vector<uint32_t> built_;        // of each context: sum of the counts that its probability was made from
  std::vector<uint32_t> deepest_;      // where a row of contexts begins: places that were counted since it was made
  std::vector<uint32_t> base_, list_;  // of a block's weights: contexts; those that have something left to decide
  std::vector<uint8_t> bits_, z_, negative_, size_;  // a plane's decisions; trellis bit, sign and size of each weight
};

template <class Run>
bool BinaryModel::code_block(uint64_t rows, const Run& run, int8_t* weights) {
  size_t left = start_block(rows);
  if (!run(list_.data(), left, 0, bits_.data())) return false;
  tally(left, 0);
  left = keep_sized(left);
  if (!run(list_.data(), left, 1, bits_.data())) return false;
  tally(left, 1);
  for (size_t i = 0; i < left; ++i) negative_[list_[i]] = bits_[i];
  const auto half = static_cast<uint32_t>(symbols_.half());
  for (uint32_t size = 1; size < half && left != 0; ++size) {
    if (size == half - 1) left = keep_largest(left);
    if (!run(list_.data(), left, 1 + size, bits_.data())) return false;
    tally(left, 1 + size);
    left = keep_yes(left);
  }
  end_block(rows, weights);
  return true;
}

}  // namespace golf::entropy
