// Text to ids, with a cache of pieces seen before.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "bpe/parallel.h"
#include "bpe/vocabulary.h"

namespace golf::bpe {

inline constexpr size_t kMaxDocumentBytes = 0x7FFFFFFF;  // positions in a document fit 32 bits

// A growing array of ids that never initializes what it has not been given, and can be handed over.
class IdBuffer {
 public:
  // Room for `extra` more ids at end(); throws std::bad_alloc.
  void reserve(size_t extra) {
    if (capacity_ - size_ >= extra) return;
    const size_t wanted = std::max(size_ + extra, capacity_ * 2);
    void* const moved = std::realloc(ids_.get(), wanted * sizeof(uint16_t));
    if (moved == nullptr) throw std::bad_alloc();
    static_cast<void>(ids_.release());
    ids_.reset(static_cast<uint16_t*>(moved));
    capacity_ = wanted;
  }
  uint16_t* end() noexcept { return ids_.get() + size_; }
  const uint16_t* data() const noexcept { return ids_.get(); }
  size_t size() const noexcept { return size_; }
  void grow_to(const uint16_t* end) noexcept { size_ = static_cast<size_t>(end - ids_.get()); }
  uint16_t* release() noexcept { return ids_.release(); }  // to be given to free()

 private:
  struct Free {
    void operator()(uint16_t* p) const noexcept { std::free(p); }
  };
  std::unique_ptr<uint16_t[], Free> ids_;
  size_t size_ = 0, capacity_ = 0;
};

struct EncodedBatch {
  IdBuffer ids;
  std::vector<int64_t> offsets;  // of each document in ids; one more than documents
};

class WordCache;

// Immutable but for its caches; any number of threads may call it at once. The ids never depend on what is cached.
class Encoder {
 public:
  explicit Encoder(const std::vector<Merge>& merges);  // throws as Vocabulary does
  ~Encoder();
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  const Vocabulary& vocabulary() const noexcept { return vocabulary_; }
  // Documents of at most kMaxDocumentBytes each. Only running out of memory throws.
  IdBuffer encode(Bytes document);
  EncodedBatch encode_batch(const std::vector<Bytes>& documents, int threads);

 private:
  class Lease;
  void append(WordCache& cache, Bytes document, IdBuffer& out) const;

  Vocabulary vocabulary_;
  std::mutex lock_;
  std::vector<std::unique_ptr<WordCache>> idle_;
  size_t caches_ = 0;  // as many as threads have ever run at the same time
};

}  // namespace golf::bpe
