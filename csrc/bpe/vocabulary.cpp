#include "bpe/vocabulary.h"

#include <stdexcept>
#include <string>

#include "bpe/merge_word.h"

namespace golf::bpe {
namespace {

[[noreturn]] void reject(uint32_t id, Merge merge, const char* why) {
  throw std::invalid_argument("merge " + std::to_string(id - kFirstMerge) + " (" + std::to_string(merge.first) + ", " +
                              std::to_string(merge.second) + ") " + why);
}

}  // namespace

Vocabulary::Vocabulary(const std::vector<Merge>& merges) {
  if (merges.size() > kMaxMerges) throw std::invalid_argument("more merges than ids of 16 bits");
  size_t capacity = 16;
  int bits = 4;
  for (; capacity < 2 * merges.size(); capacity *= 2) ++bits;
  pairs_.assign(capacity, Entry{0, 0});
  mask_ = capacity - 1;
  shift_ = 32 - bits;
  starts_.assign(kFirstByte + 1, 0);
  for (int b = 0; b < 256; ++b) {
    text_.push_back(static_cast<uint8_t>(b));
    starts_.push_back(static_cast<uint32_t>(text_.size()));
  }
  for (const Merge& merge : merges) add_merge(size(), merge);

  std::vector<uint16_t> ids;
  for (uint32_t id = kFirstMerge; id < size(); ++id) {
    ids.resize(length(id));
    const size_t n = merge_word(*this, bytes(id), length(id), ids.data());
    if (n != 1 || ids[0] != id) reject(id, merges[id - kFirstMerge], "never happens: earlier merges come first");
  }
}

void Vocabulary::add_merge(uint32_t id, Merge merge) {
  for (uint32_t part : {merge.first, merge.second})
    if (part < kFirstByte || part >= id) reject(id, merge, "must join two earlier ids that are not special");
  if (length(merge.first) + length(merge.second) > kMaxTokenBytes) reject(id, merge, "makes a token that is too long");
  if (merged(merge.first, merge.second) != kNoMerge) reject(id, merge, "is there twice");
  const uint32_t key = pair_key(merge.first, merge.second);
  size_t i = slot(key);
  while (pairs_[i].key != 0) i = (i + 1) & mask_;
  pairs_[i] = {key, id};
  for (uint32_t part : {merge.first, merge.second})
    for (uint32_t k = starts_[part]; k < starts_[part + 1]; ++k) text_.push_back(text_[k]);
  starts_.push_back(static_cast<uint32_t>(text_.size()));
}

}  // namespace golf::bpe
