#include "bpe/merge_word.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <vector>

namespace golf::bpe {
namespace {

constexpr size_t kShort = 32;  // up to here a linear scan for the lowest pair beats a heap

size_t merge_short(const Vocabulary& vocabulary, const uint8_t* p, size_t n, uint16_t* ids) {
  uint32_t merged[kShort];  // merged[i]: what ids[i] and ids[i + 1] merge into
  for (size_t i = 0; i < n; ++i) ids[i] = static_cast<uint16_t>(p[i] + kFirstByte);
  for (size_t i = 0; i + 1 < n; ++i) merged[i] = vocabulary.merged(ids[i], ids[i + 1]);
  while (n > 1) {
    const uint32_t lowest = *std::min_element(merged, merged + n - 1);
    if (lowest == kNoMerge) break;
    const auto i = static_cast<size_t>(std::find(merged, merged + n - 1, lowest) - merged);
    ids[i] = static_cast<uint16_t>(lowest);
    --n;
    for (size_t k = i + 1; k < n; ++k) ids[k] = ids[k + 1];
    for (size_t k = i; k + 1 < n; ++k) merged[k] = merged[k + 1];
    if (i > 0) merged[i - 1] = vocabulary.merged(ids[i - 1], ids[i]);
    if (i + 1 < n) merged[i] = vocabulary.merged(ids[i], ids[i + 1]);
  }
  return n;
}

// A token of length L that starts at byte i is held at both its ends, cells[i] and cells[i + L - 1]; bytes inside are
// 0. So the neighbors of a token are found without links, and a stale heap entry is seen by comparing ids.
size_t merge_long(const Vocabulary& vocabulary, const uint8_t* p, size_t n, uint16_t* out) {
  std::vector<uint16_t> cells(n + 2, 0);  // a 0 before and after, so a neighbor always can be read
  uint16_t* const cell = cells.data() + 1;
  std::vector<uint64_t> entries;  // merged id << 32 | position: the lowest id first, then the leftmost
  for (size_t i = 0; i < n; ++i) cell[i] = static_cast<uint16_t>(p[i] + kFirstByte);
  for (size_t i = 0; i + 1 < n; ++i) {
    const uint64_t id = vocabulary.merged(cell[i], cell[i + 1]);
    if (id != kNoMerge) entries.push_back(id << 32 | i);
  }
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> heap(std::greater<>(), std::move(entries));
  const auto push = [&](uint32_t left, uint32_t right, size_t position) {
    if (left == 0 || right == 0) return;
    const uint64_t id = vocabulary.merged(left, right);
    if (id != kNoMerge) heap.push(id << 32 | position);
  };
  while (!heap.empty()) {
    const uint64_t top = heap.top();
    heap.pop();
    const auto id = static_cast<uint32_t>(top >> 32);
    const size_t i = top & 0xFFFFFFFFu;
    const uint32_t left = cell[i];
    if (left == 0) continue;
    const size_t middle = i + vocabulary.length(left);
    if (middle >= n || cell[middle] == 0 || vocabulary.merged(left, cell[middle]) != id) continue;
    const size_t after = middle + vocabulary.length(cell[middle]);
    cell[middle - 1] = cell[middle] = 0;
    cell[i] = cell[after - 1] = static_cast<uint16_t>(id);
    const uint32_t before = i == 0 ? 0 : cell[i - 1];
    push(before, id, i - vocabulary.length(before));
    push(id, after < n ? cell[after] : 0u, i);
  }
  size_t count = 0;
  for (size_t i = 0; i < n; i += vocabulary.length(cell[i])) out[count++] = cell[i];
  return count;
}

}  // namespace

size_t merge_word(const Vocabulary& vocabulary, const uint8_t* p, size_t length, uint16_t* out) {
  return length <= kShort ? merge_short(vocabulary, p, length, out) : merge_long(vocabulary, p, length, out);
}

}  // namespace golf::bpe
