// Adaptive coding: frequencies and column magnitudes are learned from what is already decoded, so nothing is stored.
//
// Rows are taken in blocks. Before a block each column gets a class, an eighth of an octave (or more) of its mean
// magnitude so far, drawn towards the mean of the whole tensor; a class has one frequency table (two with a trellis). A
// block is coded with frozen tables, so that lanes are independent inside it, and learned from afterwards.
#pragma once

#include <vector>

#include "entropy/columns.h"
#include "entropy/tables.h"

namespace golf::entropy {

class AdaptiveModel {
 public:
  AdaptiveModel(const Symbols& symbols, const AdaptiveParams& params, uint32_t first_mean)
      : symbols_(symbols),
        shift_(params.shift),
        trellis_(symbols.trellis),
        columns_(params, kBlockWeights, first_mean) {}

  void start_tensor(uint64_t cols);
  uint64_t block_rows(uint64_t left) const noexcept { return columns_.block_rows(left); }

  // The contexts of the next block: context_C()[c], with a trellis plus the state's lowest bit. Rebuilds the tables of
  // classes that have learned enough since they were built; `rebuilt()` lists their contexts.
  void start_block();
  const uint16_t* context_C() const noexcept { return context_C_.data(); }
  const std::vector<uint16_t>& rebuilt() const noexcept { return rebuilt_; }
  const Frequencies& frequencies(size_t context) const noexcept { return contexts_[context].frequencies; }
  size_t contexts() const noexcept { return contexts_.size(); }

  void learn(const int8_t* symbols, uint64_t rows);

 private:
  struct Context {
    uint64_t counts[256];
    uint64_t total;
    uint64_t built;  // total when the table was made; 0: not made
    Frequencies frequencies;
  };

  uint16_t context_of(uint32_t column_class);
  void refresh(size_t context);

  static constexpr uint64_t kBlockWeights = 4096;

  const Symbols symbols_;
  const uint32_t shift_;
  const Trellis trellis_;
  ColumnMeans columns_;
  std::vector<uint8_t> state_C_;
  std::vector<uint16_t> context_C_;
  std::vector<Context> contexts_;  // in the order of their first use
  std::vector<uint16_t> rebuilt_;
  std::vector<int32_t> first_of_class_ = std::vector<int32_t>(kClasses, -1);
};

}  // namespace golf::entropy
