#include "bpe/encoder.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "bpe/merge_word.h"
#include "bpe/pretokenize.h"
#include "bpe/word_key.h"

namespace golf::bpe {

// Direct-mapped: a new piece replaces whatever has its slot, so memory is bounded and nothing is ever moved. A slot
// is one cache line.
class WordCache {
 public:
  struct alignas(64) Slot {
    WordKey key;
    uint16_t ids[kInlineBytes];
    uint8_t length;  // of the piece; 0 in an unused slot
    uint8_t n_ids;
  };
  static_assert(sizeof(Slot) == 64);

  Slot& slot(uint64_t hash) noexcept { return slots_[hash & (kSlots - 1)]; }

 private:
  // 4 MB. On 12 MB of prose (50,000 distinct pieces) half as many slots take a third longer, and twice as many save a
  // tenth.
  static constexpr size_t kSlots = size_t{1} << 16;
  std::vector<Slot> slots_ = std::vector<Slot>(kSlots, Slot{});
};

class Encoder::Lease {
 public:
  explicit Lease(Encoder& encoder) : encoder_(encoder) {
    const std::lock_guard<std::mutex> guard(encoder.lock_);
    if (encoder.idle_.empty()) {
      cache_ = std::make_unique<WordCache>();
      encoder.idle_.reserve(++encoder.caches_);  // so that handing it back cannot throw
    } else {
      cache_ = std::move(encoder.idle_.back());
      encoder.idle_.pop_back();
    }
  }
  ~Lease() {
    const std::lock_guard<std::mutex> guard(encoder_.lock_);
    encoder_.idle_.push_back(std::move(cache_));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  WordCache& cache() noexcept { return *cache_; }

 private:
  Encoder& encoder_;
  std::unique_ptr<WordCache> cache_;
};

Encoder::Encoder(const std::vector<Merge>& merges) : vocabulary_(merges) {}
Encoder::~Encoder() = default;

void Encoder::append(WordCache& cache, Bytes document, IdBuffer& out) const {
  // A piece has at most as many ids as bytes; the slack lets every hit copy a whole slot.
  out.reserve(document.size + kInlineBytes);
  uint16_t* to = out.end();
  const uint8_t* p = document.data;
  const uint8_t* const end = p + document.size;
  while (p != end) {
    const uint8_t* const next = piece_end(p, end);
    const auto length = static_cast<size_t>(next - p);
    if (length > kInlineBytes) {
      to += merge_word(vocabulary_, p, length, to);
    } else {
      const WordKey key = WordKey::of(p, length, end);
      WordCache::Slot& slot = cache.slot(key.hash(length));
      if (slot.length != length || !(slot.key == key)) {
        slot.n_ids = static_cast<uint8_t>(merge_word(vocabulary_, p, length, slot.ids));
        slot.key = key;
        slot.length = static_cast<uint8_t>(length);
      }
      std::memcpy(to, slot.ids, sizeof slot.ids);
      to += slot.n_ids;
    }
    p = next;
  }
  out.grow_to(to);
}

IdBuffer Encoder::encode(Bytes document) {
  Lease lease(*this);
  IdBuffer out;
  append(lease.cache(), document, out);
  return out;
}

EncodedBatch Encoder::encode_batch(const std::vector<Bytes>& documents, int threads) {
  threads = thread_count(threads);
  // Several ranges a thread, so that a slow one does not leave the others idle at the end.
  const std::vector<size_t> bounds = split_documents(documents, threads == 1 ? 1 : 4 * static_cast<size_t>(threads));
  const size_t ranges = bounds.size() - 1;
  EncodedBatch out;
  out.offsets.assign(documents.size() + 1, 0);
  std::vector<IdBuffer> parts(ranges);
  std::vector<std::unique_ptr<Lease>> leases(static_cast<size_t>(threads));
  parallel(threads, ranges, [&](int thread, size_t range) {
    auto& lease = leases[static_cast<size_t>(thread)];
    if (lease == nullptr) lease = std::make_unique<Lease>(*this);
    for (size_t i = bounds[range]; i < bounds[range + 1]; ++i) {
      append(lease->cache(), documents[i], parts[range]);
      out.offsets[i + 1] = static_cast<int64_t>(parts[range].size());  // within the range, for now
    }
  });
  if (ranges == 1) {
    out.ids = std::move(parts[0]);
    return out;
  }
  size_t total = 0;
  for (const IdBuffer& part : parts) total += part.size();
  out.ids.reserve(total);
  for (size_t range = 0; range < ranges; ++range) {
    const auto base = static_cast<int64_t>(out.ids.size());
    for (size_t i = bounds[range]; i < bounds[range + 1]; ++i) out.offsets[i + 1] += base;
    if (parts[range].size() != 0)
      std::memcpy(out.ids.end(), parts[range].data(), parts[range].size() * sizeof(uint16_t));
    out.ids.grow_to(out.ids.end() + parts[range].size());
  }
  return out;
}

}  // namespace golf::bpe
