// The distinct pieces of a text and how often each occurs.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "bpe/word_key.h"

namespace golf::bpe {

class WordCounts {
 public:
  struct Entry {
    WordKey key;  // the piece itself up to 16 bytes, else {hash, 0}
    const uint8_t* text;
    uint32_t length;  // 0 in an unused entry
    uint32_t count;
  };

  // A piece of at least one byte in a text that ends at `end`; the text must outlive the counts.
  void add(const uint8_t* p, size_t length, const uint8_t* end) {
    if (length <= kInlineBytes) {
      const WordKey key = WordKey::of(p, length, end);
      add({key, p, static_cast<uint32_t>(length), 1}, key.hash(length));
    } else {
      const uint64_t hash = hash_bytes(p, length);
      add({{hash, 0}, p, static_cast<uint32_t>(length), 1}, hash);
    }
  }
  void add_all(const WordCounts& other) {
    for (const Entry& e : other.entries_)
      if (e.length != 0) add(e, hash_of(e));
  }
  size_t size() const noexcept { return used_; }
  const std::vector<Entry>& entries() const noexcept { return entries_; }  // with unused ones between

 private:
  static uint64_t hash_of(const Entry& e) noexcept {
    return e.length <= kInlineBytes ? e.key.hash(e.length) : e.key.low;
  }
  static bool same(const Entry& a, const Entry& b) noexcept {
    return a.key == b.key && a.length == b.length &&
           (a.length <= kInlineBytes || std::memcmp(a.text, b.text, a.length) == 0);
  }
  void add(const Entry& e, uint64_t hash) {
    Entry* found = find(e, hash);
    if (found->length != 0) {
      found->count += e.count;
      return;
    }
    *found = e;
    if (++used_ > entries_.size() / 2) grow();
  }
  Entry* find(const Entry& e, uint64_t hash) noexcept {
    const size_t mask = entries_.size() - 1;
    size_t i = hash & mask;
    while (entries_[i].length != 0 && !same(entries_[i], e)) i = (i + 1) & mask;
    return &entries_[i];
  }
  void grow() {
    std::vector<Entry> old(entries_.size() * 2, Entry{});
    old.swap(entries_);
    for (const Entry& e : old)
      if (e.length != 0) *find(e, hash_of(e)) = e;
  }

  std::vector<Entry> entries_ = std::vector<Entry>(size_t{1} << 14, Entry{});  // open addressing
  size_t used_ = 0;
};

}  // namespace golf::bpe
