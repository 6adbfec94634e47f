#include "bpe/trainer.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include "bpe/pair_table.h"
#include "bpe/pretokenize.h"
#include "bpe/word_counts.h"

namespace golf::bpe {
namespace {

WordCounts count_words(const std::vector<Bytes>& documents, int threads) {
  const std::vector<size_t> bounds = split_documents(documents, threads == 1 ? 1 : 4 * static_cast<size_t>(threads));
  std::vector<WordCounts> counts(static_cast<size_t>(threads));
  parallel(threads, bounds.size() - 1, [&](int thread, size_t range) {
    WordCounts& mine = counts[static_cast<size_t>(thread)];
    for (size_t i = bounds[range]; i < bounds[range + 1]; ++i) {
      const uint8_t* p = documents[i].data;
      const uint8_t* const end = p + documents[i].size;
      while (p != end) {
        const uint8_t* const next = piece_end(p, end);
        mine.add(p, static_cast<size_t>(next - p), end);
        p = next;
      }
    }
  });
  for (size_t i = 1; i < counts.size(); ++i) counts[0].add_all(counts[i]);
  return std::move(counts[0]);
}

// What one merge changes around it, by the neighboring id: the pair with the old part loses, the pair with the new id
// gains, and the gained pair's positions.
class Side {
 public:
  explicit Side(size_t vocabulary) : rows_(vocabulary) {}

  struct Row {
    int64_t lost, gained;
    uint32_t positions, next;
    bool touched;
  };
  struct Seen {
    uint16_t neighbor;
    uint32_t position;
  };

  Row& row(uint16_t neighbor) {
    Row& r = rows_[neighbor];
    if (!r.touched) {
      r.touched = true;
      touched_.push_back(neighbor);
    }
    return r;
  }
  void gain(uint16_t neighbor, uint32_t weight, uint32_t position) {
    Row& r = row(neighbor);
    r.gained += weight;
    ++r.positions;
    seen_.push_back({neighbor, position});
  }
  const std::vector<uint16_t>& touched() const noexcept { return touched_; }
  const std::vector<Seen>& seen() const noexcept { return seen_; }
  void clear() noexcept {
    for (uint16_t neighbor : touched_) rows_[neighbor] = Row{};
    touched_.clear();
    seen_.clear();
  }

 private:
  std::vector<Row> rows_;
  std::vector<uint16_t> touched_;
  std::vector<Seen> seen_;
};

// The distinct pieces end to end, a 0 between them. A token of length L that starts at i is held at both its ends,
// cells_[i] and cells_[i + L - 1], and bytes inside are 0, so neighbors need no links. Tokens only ever grow, so a
// position in a pair's list that is out of date never looks like that pair again.
class Trainer {
 public:
  Trainer(const WordCounts& words, size_t n_merges);
  std::vector<Merge> run();

 private:
  static uint64_t priority(uint32_t count, uint32_t key) noexcept {
    return static_cast<uint64_t>(count) << 32 | ~key;  // the highest count first, then the lowest pair
  }
  void count_bytes();
  PairTable::Entry* best_pair();
  void merge(Merge pair, uint16_t id, uint32_t start, uint32_t n);
  void settle(Side& side, bool left, uint16_t old_part, uint16_t id);
  void push(uint32_t count, uint32_t key) {
    heap_.push_back(priority(count, key));
    std::push_heap(heap_.begin(), heap_.end());
  }

  size_t n_merges_;
  std::vector<uint16_t> cells_;
  std::vector<uint32_t> weights_;    // of each cell: how often its piece occurs
  std::vector<uint32_t> lengths_;    // of each id
  std::vector<uint32_t> positions_;  // of all pairs, a range each; ascending within a piece
  PairTable pairs_;
  std::vector<uint64_t> heap_;  // priorities; a count in it may be too high, never too low
  Side left_, right_;
};

Trainer::Trainer(const WordCounts& words, size_t n_merges)
    : n_merges_(n_merges), left_(kFirstMerge + n_merges), right_(kFirstMerge + n_merges) {
  size_t total = 1;
  for (const WordCounts::Entry& e : words.entries()) total += e.length + (e.length != 0);
  if (total > kMaxDistinctBytes) throw std::invalid_argument("more than 2^30 bytes of distinct words");
  cells_.reserve(total);
  weights_.reserve(total);
  cells_.push_back(0);
  weights_.push_back(0);
  for (const WordCounts::Entry& e : words.entries()) {
    if (e.length == 0) continue;
    for (uint32_t i = 0; i < e.length; ++i) cells_.push_back(static_cast<uint16_t>(e.text[i] + kFirstByte));
    cells_.push_back(0);
    weights_.insert(weights_.end(), e.length + 1, e.count);
  }
  lengths_.assign(kFirstMerge, 1);
  lengths_.reserve(kFirstMerge + n_merges);
  count_bytes();
}

void Trainer::count_bytes() {
  struct Row {
    uint32_t count = 0, n = 0, next = 0;
  };
  std::vector<Row> rows(kFirstMerge * kFirstMerge);
  const auto row = [&](size_t i) -> Row& { return rows[cells_[i] * kFirstMerge + cells_[i + 1]]; };
  size_t total = 0;
  for (size_t i = 1; i + 1 < cells_.size(); ++i) {
    if (cells_[i] == 0 || cells_[i + 1] == 0) continue;
    row(i).count += weights_[i];
    ++row(i).n;
    ++total;
  }
  positions_.resize(total);
  uint32_t start = 0;
  for (uint32_t a = kFirstByte; a < kFirstMerge; ++a)
    for (uint32_t b = kFirstByte; b < kFirstMerge; ++b) {
      Row& r = rows[a * kFirstMerge + b];
      r.next = start;
      if (r.count > 1) {
        pairs_.insert({pair_key(a, b), r.count, start, r.n});
        heap_.push_back(priority(r.count, pair_key(a, b)));
      }
      start += r.n;
    }
  std::make_heap(heap_.begin(), heap_.end());
  for (size_t i = 1; i + 1 < cells_.size(); ++i)
    if (cells_[i] != 0 && cells_[i + 1] != 0) positions_[row(i).next++] = static_cast<uint32_t>(i);
}

PairTable::Entry* Trainer::best_pair() {
  while (!heap_.empty()) {
    const uint64_t top = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end());
    heap_.pop_back();
    const auto key = ~static_cast<uint32_t>(top);
    PairTable::Entry* const entry = pairs_.find(key);
    if (entry->count == top >> 32) return entry;
    if (entry->count > 1) push(entry->count, key);
  }
  return nullptr;
}

std::vector<Merge> Trainer::run() {
  std::vector<Merge> merges;
  while (merges.size() < n_merges_) {
    PairTable::Entry* const best = best_pair();
    if (best == nullptr) break;
    const Merge pair(static_cast<uint16_t>(best->key >> 16), static_cast<uint16_t>(best->key & 0xFFFF));
    const uint32_t start = best->start, n = best->n;
    best->count = 0;
    const auto id = static_cast<uint16_t>(kFirstMerge + merges.size());
    lengths_.push_back(lengths_[pair.first] + lengths_[pair.second]);
    merges.push_back(pair);
    merge(pair, id, start, n);
    settle(left_, true, pair.first, id);
    settle(right_, false, pair.second, id);
  }
  return merges;
}

void Trainer::merge(Merge pair, uint16_t id, uint32_t start, uint32_t n) {
  const uint32_t left_length = lengths_[pair.first], length = lengths_[id];
  for (uint32_t k = start; k < start + n; ++k) {
    const uint32_t i = positions_[k], middle = i + left_length, after = i + length;
    if (cells_[i] != pair.first || cells_[middle] != pair.second) continue;
    const uint32_t weight = weights_[i];
    const uint16_t before_id = cells_[i - 1], after_id = cells_[after];
    cells_[middle - 1] = cells_[middle] = 0;
    cells_[i] = cells_[after - 1] = id;
    if (before_id != 0) {
      // A new token just before (abab) has counted this place as its right-hand pair (id, first); that is gone again.
      if (before_id == id)
        right_.row(pair.first).gained -= weight;
      else
        left_.row(before_id).lost += weight;
      left_.gain(before_id, weight, i - lengths_[before_id]);
    }
    if (after_id != 0) {
      right_.row(after_id).lost += weight;
      right_.gain(after_id, weight, i);
    }
  }
}

// Books one side's losses and gains: (neighbor, old) and (neighbor, id) for the left side, the mirror for the right.
void Trainer::settle(Side& side, bool left, uint16_t old_part, uint16_t id) {
  const auto key = [left](uint32_t neighbor, uint32_t part) {
    return left ? pair_key(neighbor, part) : pair_key(part, neighbor);
  };
  for (uint16_t neighbor : side.touched()) {
    Side::Row& row = side.row(neighbor);
    if (row.lost > 0)
      if (PairTable::Entry* const entry = pairs_.find(key(neighbor, old_part)))
        entry->count -= static_cast<uint32_t>(std::min<int64_t>(row.lost, entry->count));
    // A pair that occurs once is never merged, as counts only fall from here on; so it is not kept at all.
    const bool keep = row.gained > 1 && lengths_[neighbor] + lengths_[id] <= kMaxTokenBytes;
    if (!keep) {
      row.positions = 0;
      continue;
    }
    row.next = static_cast<uint32_t>(positions_.size());
    positions_.resize(positions_.size() + row.positions);
    const auto gained = static_cast<uint32_t>(row.gained);
    pairs_.insert({key(neighbor, id), gained, row.next, row.positions});
    push(gained, key(neighbor, id));
  }
  for (const Side::Seen& s : side.seen()) {
    Side::Row& row = side.row(s.neighbor);
    if (row.positions != 0) positions_[row.next++] = s.position;
  }
  side.clear();
}

}  // namespace

std::vector<Merge> train(const std::vector<Bytes>& documents, size_t n_merges, int threads) {
  return Trainer(count_words(documents, thread_count(threads)), n_merges).run();
}

}  // namespace golf::bpe
