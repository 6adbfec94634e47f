// One block at a time on one thread of the host: its fibers, who waits for whom, and who runs next.
//
// The scheduler is adversarial: it picks a warp at random and runs its lanes, in random order, as far as they get,
// which is the next block barrier or the end, before it touches another warp. A missing barrier then shows as a wrong
// result (and to the race detector); with threads taken in turn most would go unnoticed.
#pragma once

#include <cstdint>
#include <vector>

#include "simt/fiber.h"
#include "simt/runtime.h"
#include "simt/shared_memory.h"

namespace golf::simt {

// What all blocks of a launch share. The first failure wins.
struct Launch {
  Config config;
  const void* arguments;
  size_t argument_bytes;
  void (*body)(const void*);
  uint64_t seed;
};

class Random {
 public:
  explicit Random(uint64_t seed) noexcept : state_(seed) {}
  uint32_t below(uint32_t n) noexcept;

 private:
  uint64_t state_;
};

class Block {
 public:
  Block();
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  // False: it failed, and error() says why.
  bool run(const Launch& launch, uint64_t index) noexcept;
  const char* error() const noexcept { return error_; }

  // --- called by the running fiber ---
  struct Fiber;
  Fiber& running() noexcept { return *running_; }
  const Launch& launch() const noexcept { return *launch_; }
  SharedMemory& shared() noexcept { return shared_; }
  bool on_stack(const void* p) const noexcept {
    return static_cast<size_t>(static_cast<const char*>(p) - stacks_) < kMaxThreads * kStackBytes;
  }
  bool is_argument(const void* p, size_t bytes) const noexcept;
  [[noreturn]] void fail(uint32_t thread, const char* format, ...) noexcept __attribute__((format(printf, 3, 4)));
  void meet(const char* name, uint32_t mask, void* payload, void (*combine)(const Payloads&), int line) noexcept;
  void barrier(uint32_t id, uint32_t threads, bool wait, bool predicate, int line) noexcept;
  uint32_t thread() const noexcept;
  uint32_t predicates() const noexcept { return predicates_; }
  bool coin() noexcept { return random_.below(2) == 0; }

  struct Copy {
    void* to;
    const void* from;
    uint32_t valid, group;
    bool done;
  };

 private:
  static constexpr size_t kStackBytes = 64 << 10;
  static constexpr uint32_t kBarriers = 16;

  enum class State : uint8_t { kReady, kMeeting, kBarrier, kDone };
  struct Meeting {
    const char* name;
    int line;
    uint32_t arrived;
    void (*combine)(const Payloads&);
    Payloads payloads;
  };
  struct Barrier {
    uint32_t expected, arrived;
    int line;
    bool waits[kMaxThreads];
    bool warps[kMaxWarps];  // with a thread that waits
    Knowledge knowledge;
    uint32_t predicates;
  };

  static void enter() noexcept;
  void start(uint64_t index) noexcept;
  void run_warp(uint32_t warp) noexcept;
  bool ready(uint32_t warp) const noexcept;
  void pause(State state) noexcept;
  void complete(Barrier& barrier) noexcept;
  void report_standstill() noexcept;
  void describe_thread(uint32_t thread, char* text, size_t bytes) const noexcept;
  void say(uint32_t thread, const char* text) noexcept;

  char* stacks_ = nullptr;
  std::vector<Fiber> fibers_;
  std::vector<Meeting> meetings_[kMaxWarps];
  Barrier barriers_[kBarriers];
  SharedMemory shared_;
  Context scheduler_;
  const Launch* launch_ = nullptr;
  Fiber* running_ = nullptr;
  Random random_{0};
  uint3 index_{};
  uint32_t threads_ = 0, warps_ = 0, left_ = 0, predicates_ = 0;
  uint64_t completed_ = 0;  // barriers
  bool failed_ = false;
  char error_[512];
};

struct Block::Fiber {
  Context context;
  Lane* lane;  // at the top of its stack, where kernels may read
  uint32_t thread;
  State state;
  uint32_t barrier;  // where it waits, or else the meeting's name
  const char* where;
  uint32_t mask;
  int line;
  std::vector<Copy> copies;
  uint32_t group;  // of asynchronous copies, open
};

// The block that this thread of the host runs now; null outside of kernels.
extern thread_local Block* current_block;

}  // namespace golf::simt
