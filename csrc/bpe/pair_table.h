// For each pair of adjacent ids that may still be merged: its count, and where it has occurred.
#pragma once

#include <cstdint>
#include <vector>

namespace golf::bpe {

class PairTable {
 public:
  struct Entry {
    uint32_t key;  // 0 in an unused entry
    uint32_t count;
    uint32_t start, n;  // its positions in the trainer's list; some may be out of date
  };

  Entry* find(uint32_t key) noexcept {
    Entry& e = entries_[index(key)];
    return e.key == key ? &e : nullptr;
  }
  // The key must be new.
  void insert(const Entry& e) {
    if (++used_ > entries_.size() / 2) grow();
    entries_[index(e.key)] = e;
  }

 private:
  size_t index(uint32_t key) const noexcept {
    const size_t mask = entries_.size() - 1;
    size_t i = (key * 0x9E3779B97F4A7C15u) >> shift_;
    while (entries_[i].key != 0 && entries_[i].key != key) i = (i + 1) & mask;
    return i;
  }
  void grow() {
    std::vector<Entry> old(entries_.size() * 2, Entry{});
    old.swap(entries_);
    --shift_;
    for (const Entry& e : old)
      if (e.key != 0) entries_[index(e.key)] = e;
  }

  std::vector<Entry> entries_ = std::vector<Entry>(size_t{1} << 16, Entry{});  // open addressing
  int shift_ = 64 - 16;
  size_t used_ = 0;
};

}  // namespace golf::bpe
