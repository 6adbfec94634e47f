// Ids and merges of a byte-level BPE. Ids: 0 pad, 1 bos, 2 eos, 3 unk, 4..259 the bytes, then one a merge, in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace golf::bpe {

inline constexpr uint32_t kFirstByte = 4;
inline constexpr uint32_t kFirstMerge = kFirstByte + 256;
inline constexpr uint32_t kMaxVocabulary = 65536;  // ids fit uint16
inline constexpr uint32_t kMaxMerges = kMaxVocabulary - kFirstMerge;
inline constexpr uint32_t kMaxTokenBytes = 255;  // bounds what a hostile file can ask for: 2^n bytes after n merges
inline constexpr uint32_t kNoMerge = 0xFFFFFFFFu;

using Merge = std::pair<uint16_t, uint16_t>;

inline uint32_t pair_key(uint32_t left, uint32_t right) noexcept { return left << 16 | right; }

class Vocabulary {
 public:
  // Throws std::invalid_argument unless every merge joins two earlier, non-special ids, makes a token of at most
  // kMaxTokenBytes, and can happen: the token's bytes encode to the token. That excludes two ids with the same bytes,
  // and makes merging by pair (as here) and by bytes (as tiktoken does) the same.
  explicit Vocabulary(const std::vector<Merge>& merges);

  uint32_t size() const noexcept { return static_cast<uint32_t>(starts_.size() - 1); }
  const uint8_t* bytes(uint32_t id) const noexcept { return text_.data() + starts_[id]; }
  uint32_t length(uint32_t id) const noexcept { return starts_[id + 1] - starts_[id]; }

  // The id that left and right merge into, or kNoMerge. A lower id merges earlier.
  uint32_t merged(uint32_t left, uint32_t right) const noexcept {
    const uint32_t key = pair_key(left, right);
    for (size_t i = slot(key);; i = (i + 1) & mask_) {
      if (pairs_[i].key == key) return pairs_[i].id;
      if (pairs_[i].key == 0) return kNoMerge;  // ids 0 are special and never merge, so 0 marks an empty slot
    }
  }

 private:
  struct Entry {
    uint32_t key, id;
  };
  size_t slot(uint32_t key) const noexcept { return (key * 0x9E3779B1u) >> shift_; }
  void add_merge(uint32_t id, Merge merge);

  std::vector<Entry> pairs_;  // open addressing, at most half full
  size_t mask_ = 0;
  int shift_ = 0;
  std::vector<uint32_t> starts_;  // of each id in text_; one more than ids
  std::vector<uint8_t> text_;
};

}  // namespace golf::bpe
