// A block's shared memory and what is known of every byte of it: to which array it belongs, who wrote and read it when,
// and which of those accesses lie before a thread's next one.
//
// Order is kept as in a vector clock: `now` counts synchronizations of the block, and for each pair of warps (lanes of
// a warp) the table says up to which moment the first knows what the second did. Only barriers and __syncwarp order
// accesses. Shuffles, votes and mma make lanes meet but order no memory, as in the CUDA programming guide.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "simt/runtime.h"

namespace golf::simt {

constexpr uint32_t kMaxThreads = 1024, kMaxWarps = kMaxThreads / kWarp;
constexpr size_t kSharedLimit = 232448;       // H100: 227 KB a block
constexpr size_t kStaticSharedLimit = 49152;  // arrays of a size known to the compiler, on every device

// What a barrier hands from those who arrive to those who wait.
struct Knowledge {
  uint32_t until[kMaxWarps];
};

class SharedMemory {
 public:
  SharedMemory();

  // A new block: no arrays but the dynamic one, and nothing written.
  void reset(uint32_t warps, size_t dynamic_bytes) noexcept;
  // Null where it does not fit.
  void* array(const void* key, size_t bytes, size_t alignment) noexcept;
  unsigned char* dynamic() const noexcept { return arena_ + dynamic_; }
  size_t used() const noexcept { return payload_; }

  bool contains(const void* p) const noexcept {
    return static_cast<size_t>(static_cast<const unsigned char*>(p) - arena_) < kArena;
  }
  // What is wrong with an access of `thread`; null if nothing. The text is valid until the next call.
  const char* access(uint32_t thread, const void* p, size_t bytes, Access access) noexcept;
  // A copy into p[0..16) has begun: until it ends nobody may touch these bytes.
  const char* begin_copy(uint32_t thread, void* p) noexcept;
  void end_copy(uint32_t thread, void* p) noexcept;

  void sync_lanes(uint32_t warp, uint32_t mask) noexcept;
  void release(uint32_t warp, Knowledge& to, bool goes_on) noexcept;
  void acquire(uint32_t warp, const Knowledge& from) noexcept;

 private:
  static constexpr size_t kGap = 64;  // between arrays: bytes that belong to none
  static constexpr size_t kArena = kSharedLimit + 64 * (kGap + 128);

  enum Flag : uint8_t { kAllocated = 1, kWritten = 2, kCopying = 4, kByAtomic = 8 };
  struct Byte {
    uint32_t time;  // of the last write
    uint16_t thread;
    uint8_t flags;
  };
  // The last reads by one warp: time, whether several lanes read then, and which lane.
  struct Reads {
    uint32_t time;
    uint8_t lane;
    bool several;
  };
  struct Array {
    const void* key;
    size_t offset;
  };

  size_t allocate(size_t bytes, size_t alignment) noexcept;
  void clear(size_t end) noexcept;
  bool before(uint32_t thread, uint32_t other, uint32_t time) const noexcept;
  const char* conflict_with_reads(uint32_t thread, size_t at) noexcept;
  const char* describe(const char* format, ...) noexcept __attribute__((format(printf, 2, 3)));

  std::unique_ptr<unsigned char[]> storage_;
  unsigned char* arena_;
  std::unique_ptr<Byte[]> bytes_;
  std::vector<Reads> reads_[kMaxWarps];
  std::vector<Array> arrays_;
  size_t end_ = 0, payload_ = 0, dynamic_ = 0;
  uint32_t warps_ = 0, now_ = 1;
  uint32_t known_[kMaxWarps][kMaxWarps];
  uint32_t lanes_[kMaxWarps][kWarp][kWarp];
  char text_[256];
};

}  // namespace golf::simt
