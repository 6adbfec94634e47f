#include "simt/shared_memory.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, bytes) ((void)(p), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(p, bytes) ((void)(p), (void)(bytes))
#endif

namespace golf::simt {

namespace {
constexpr int kPoison = 0xff;  // a NaN in every float type, -1 in every integer
constexpr bool kSeesPlainWrites = GOLF_SIMT_HOOKS;
}  // namespace

SharedMemory::SharedMemory() : storage_(new unsigned char[kArena + 1024]), bytes_(new Byte[kArena]()) {
  arena_ = reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(storage_.get()) + 1023) & ~uintptr_t{1023});
  ASAN_POISON_MEMORY_REGION(arena_, kArena);
}

void SharedMemory::reset(uint32_t warps, size_t dynamic_bytes) noexcept {
  clear(end_);
  ASAN_POISON_MEMORY_REGION(arena_, kArena);
  arrays_.clear();
  warps_ = warps;
  now_ = 1;
  end_ = payload_ = 0;
  for (uint32_t warp = 0; warp < warps; ++warp) {
    std::memset(known_[warp], 0, sizeof known_[warp]);
    std::memset(lanes_[warp], 0, sizeof lanes_[warp]);
  }
  dynamic_ = allocate(dynamic_bytes, 128);
}

void SharedMemory::clear(size_t end) noexcept {
  std::memset(static_cast<void*>(bytes_.get()), 0, end * sizeof(Byte));
  for (uint32_t warp = 0; warp < warps_; ++warp)
    std::fill_n(reads_[warp].begin(), std::min(end, reads_[warp].size()), Reads{});
}

size_t SharedMemory::allocate(size_t bytes, size_t alignment) noexcept {
  const size_t begin = (end_ + kGap + alignment - 1) / alignment * alignment;
  end_ = begin + bytes;
  payload_ += bytes;
  for (size_t i = begin; i < end_; ++i) bytes_[i].flags = kAllocated;
  for (uint32_t warp = 0; warp < warps_; ++warp)
    if (reads_[warp].size() < end_) reads_[warp].resize(end_);
  ASAN_UNPOISON_MEMORY_REGION(arena_ + begin, bytes);
  std::memset(arena_ + begin, kPoison, bytes);
  return begin;
}

void* SharedMemory::array(const void* key, size_t bytes, size_t alignment) noexcept {
  for (const Array& known : arrays_)
    if (known.key == key) return arena_ + known.offset;
  const size_t begin = (end_ + kGap + alignment - 1) / alignment * alignment;
  if (payload_ + bytes > kSharedLimit || begin + bytes > kArena) return nullptr;
  arrays_.push_back({key, allocate(bytes, alignment)});
  return arena_ + arrays_.back().offset;
}

bool SharedMemory::before(uint32_t thread, uint32_t other, uint32_t time) const noexcept {
  if (thread == other) return true;
  const uint32_t warp = thread / kWarp, other_warp = other / kWarp;
  return time <= (warp == other_warp ? lanes_[warp][thread % kWarp][other % kWarp] : known_[warp][other_warp]);
}

const char* SharedMemory::describe(const char* format, ...) noexcept {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text_, sizeof text_, format, arguments);
  va_end(arguments);
  return text_;
}

const char* SharedMemory::conflict_with_reads(uint32_t thread, size_t at) noexcept {
  for (uint32_t warp = 0; warp < warps_; ++warp) {
    const Reads& r = reads_[warp][at];
    if (r.time == 0) continue;
    bool ordered = before(thread, warp * kWarp + r.lane, r.time);
    if (r.several && warp == thread / kWarp)
      for (uint32_t lane = 0; lane < kWarp; ++lane) ordered &= before(thread, warp * kWarp + lane, r.time);
    if (!ordered)
      return describe("race: writes shared memory that thread %u has read, with no barrier between",
                      warp * kWarp + r.lane);
  }
  return nullptr;
}

const char* SharedMemory::access(uint32_t thread, const void* p, size_t bytes, Access access) noexcept {
  const size_t at = static_cast<size_t>(static_cast<const unsigned char*>(p) - arena_);
  const uint32_t warp = thread / kWarp;
  for (size_t i = at; i < at + bytes; ++i) {
    Byte& byte = bytes_[i];
    if (i >= end_ || (byte.flags & kAllocated) == 0)
      return describe("%s outside of every shared array", access == Access::kRead ? "reads" : "writes");
    if ((byte.flags & kCopying) != 0)
      return describe("touches shared memory into which thread %u copies asynchronously, before it has waited",
                      byte.thread);
    if (kSeesPlainWrites && access != Access::kWrite && (byte.flags & kWritten) == 0)
      return describe("reads shared memory that nobody has written");
    const bool both_atomic = access == Access::kAtomic && (byte.flags & kByAtomic) != 0;
    if ((byte.flags & kWritten) != 0 && !both_atomic && !before(thread, byte.thread, byte.time))
      return describe("race: %s shared memory that thread %u has written, with no barrier between",
                      access == Access::kRead ? "reads" : "writes", byte.thread);
    if (access == Access::kRead) {
      Reads& r = reads_[warp][i];
      const uint8_t lane = static_cast<uint8_t>(thread % kWarp);
      const bool several = r.time != 0 && r.lane != lane && !before(thread, warp * kWarp + r.lane, r.time);
      r = {now_, lane, several || (r.several && r.time == now_)};
    } else {
      if (const char* text = conflict_with_reads(thread, i)) return text;
      byte = {now_, static_cast<uint16_t>(thread),
              static_cast<uint8_t>(kAllocated | kWritten | (access == Access::kAtomic ? kByAtomic : 0))};
    }
  }
  return nullptr;
}

const char* SharedMemory::begin_copy(uint32_t thread, void* p) noexcept {
  if (const char* text = access(thread, p, 16, Access::kWrite)) return text;
  const size_t at = static_cast<size_t>(static_cast<unsigned char*>(p) - arena_);
  for (size_t i = at; i < at + 16; ++i) bytes_[i].flags = kAllocated | kWritten | kCopying;
  return nullptr;
}

void SharedMemory::end_copy(uint32_t thread, void* p) noexcept {
  const size_t at = static_cast<size_t>(static_cast<unsigned char*>(p) - arena_);
  for (size_t i = at; i < at + 16; ++i)
    bytes_[i] = {now_, static_cast<uint16_t>(thread), static_cast<uint8_t>(kAllocated | kWritten)};
}

void SharedMemory::sync_lanes(uint32_t warp, uint32_t mask) noexcept {
  uint32_t merged[kWarp] = {};
  for (uint32_t lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    for (uint32_t other = 0; other < kWarp; ++other) merged[other] = std::max(merged[other], lanes_[warp][lane][other]);
  }
  for (uint32_t lane = 0; lane < kWarp; ++lane)
    if ((mask >> lane & 1) != 0) merged[lane] = now_;
  for (uint32_t lane = 0; lane < kWarp; ++lane)
    if ((mask >> lane & 1) != 0) std::memcpy(lanes_[warp][lane], merged, sizeof merged);
  ++now_;
}

void SharedMemory::release(uint32_t warp, Knowledge& to, bool goes_on) noexcept {
  for (uint32_t other = 0; other < warps_; ++other) to.until[other] = std::max(to.until[other], known_[warp][other]);
  to.until[warp] = now_;
  if (goes_on) ++now_;
}

void SharedMemory::acquire(uint32_t warp, const Knowledge& from) noexcept {
  for (uint32_t other = 0; other < warps_; ++other)
    known_[warp][other] = std::max(known_[warp][other], from.until[other]);
  for (uint32_t lane = 0; lane < kWarp; ++lane)
    for (uint32_t other = 0; other < kWarp; ++other) lanes_[warp][lane][other] = from.until[warp];
  if (now_ <= from.until[warp]) now_ = from.until[warp] + 1;
}

}  // namespace golf::simt
