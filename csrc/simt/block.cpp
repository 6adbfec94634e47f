#include "simt/block.h"

#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace golf::simt {

thread_local Block* current_block = nullptr;

uint32_t Random::below(uint32_t n) noexcept {
  state_ += 0x9e3779b97f4a7c15u;  // splitmix64
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<uint32_t>(((z ^ (z >> 31)) >> 32) * n >> 32);
}

Block::Block() : fibers_(kMaxThreads) {
  void* const mapped = mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  stacks_ = static_cast<char*>(mapped);
  // The lowest page of each stack is a guard: an overflow stops the process instead of changing a neighbor.
  for (uint32_t i = 0; i < kMaxThreads; ++i) mprotect(stacks_ + i * kStackBytes, 4096, PROT_NONE);
  for (uint32_t i = 0; i < kMaxThreads; ++i) {
    fibers_[i].thread = i;
    fibers_[i].lane = reinterpret_cast<Lane*>(stacks_ + (i + 1) * kStackBytes) - 1;
  }
}

Block::~Block() { munmap(stacks_, kMaxThreads * kStackBytes); }

uint32_t Block::thread() const noexcept { return running_->thread; }

bool Block::is_argument(const void* p, size_t bytes) const noexcept {
  const char* begin = static_cast<const char*>(launch_->arguments);
  return p >= begin && static_cast<const char*>(p) + bytes <= begin + launch_->argument_bytes;
}

void Block::enter() noexcept {
  Block& block = *current_block;
  entered(block.scheduler_);
  block.launch_->body(block.launch_->arguments);
  block.running_->state = State::kDone;
  --block.left_;
  switch_to(block.running_->context, block.scheduler_, true);
  std::abort();  // never taken up again
}

void Block::start(uint64_t index) noexcept {
  const Config& c = launch_->config;
  const uint64_t row = c.grid.x;
  index_ = {static_cast<uint32_t>(index % row), static_cast<uint32_t>(index / row % c.grid.y),
            static_cast<uint32_t>(index / row / c.grid.y)};
  random_ = Random(launch_->seed * 0x2545f4914f6cdd1du + index);
  threads_ = left_ = c.block.x * c.block.y * c.block.z;
  warps_ = (threads_ + kWarp - 1) / kWarp;
  failed_ = false;
  completed_ = 0;
  shared_.reset(warps_, c.dynamic_shared);
  for (Barrier& barrier : barriers_) barrier = Barrier{};
  for (uint32_t warp = 0; warp < warps_; ++warp) meetings_[warp].clear();
  for (uint32_t t = 0; t < threads_; ++t) {
    Fiber& fiber = fibers_[t];
    char* const bottom = stacks_ + t * kStackBytes + 4096;
    prepare(fiber.context, bottom, static_cast<size_t>(reinterpret_cast<char*>(fiber.lane) - 64 - bottom),
            &Block::enter);
    *fiber.lane = {
        {t % c.block.x, t / c.block.x % c.block.y, t / c.block.x / c.block.y}, index_, c.block, c.grid, t % kWarp};
    fiber.state = State::kReady;
    fiber.copies.clear();
    fiber.group = 0;
  }
}

bool Block::run(const Launch& launch, uint64_t index) noexcept {
  launch_ = &launch;
  current_block = this;
  start(index);
  while (left_ > 0 && !failed_) {
    uint32_t waiting[kMaxWarps], count = 0;
    for (uint32_t warp = 0; warp < warps_; ++warp)
      if (ready(warp)) waiting[count++] = warp;
    if (count == 0) {
      report_standstill();
      break;
    }
    run_warp(waiting[random_.below(count)]);
  }
  current_block = nullptr;
  return !failed_;
}

bool Block::ready(uint32_t warp) const noexcept {
  for (uint32_t t = warp * kWarp; t < (warp + 1) * kWarp && t < threads_; ++t)
    if (fibers_[t].state == State::kReady) return true;
  return false;
}

// Runs until no lane can go on, or a block barrier is complete: then any warp may be next.
void Block::run_warp(uint32_t warp) noexcept {
  const uint64_t before = completed_;
  for (bool any = true; any;) {
    any = false;
    const uint32_t first = random_.below(kWarp), step = 2 * random_.below(kWarp / 2) + 1;  // odd: every lane once
    for (uint32_t i = 0; i < kWarp; ++i) {
      const uint32_t t = warp * kWarp + (first + i * step) % kWarp;
      if (t >= threads_ || fibers_[t].state != State::kReady) continue;
      any = true;
      running_ = &fibers_[t];
      switch_to(scheduler_, running_->context, false);
      running_ = nullptr;
      if (failed_ || completed_ != before) return;
    }
  }
}

void Block::pause(State state) noexcept {
  Fiber& fiber = *running_;
  fiber.state = state;
  switch_to(fiber.context, scheduler_, false);
}

void Block::meet(const char* name, uint32_t mask, void* payload, void (*combine)(const Payloads&), int line) noexcept {
  Fiber& fiber = *running_;
  const uint32_t lane = fiber.thread % kWarp;
  std::vector<Meeting>& meetings = meetings_[fiber.thread / kWarp];
  if ((mask >> lane & 1) == 0)
    fail(fiber.thread, "%s (line %d): mask 0x%08x leaves out the calling lane", name, line, mask);
  size_t at = 0;
  while (at < meetings.size() && (meetings[at].payloads.mask != mask || meetings[at].combine != combine ||
                                  std::strcmp(meetings[at].name, name) != 0))
    ++at;
  if (at == meetings.size()) meetings.push_back({name, line, 0, combine, {{}, mask}});
  Meeting& meeting = meetings[at];
  meeting.payloads.of[lane] = payload;
  meeting.arrived |= 1u << lane;
  fiber.where = name;
  fiber.mask = mask;
  fiber.line = line;
  if (meeting.arrived != mask) return pause(State::kMeeting);
  const Payloads payloads =
      meeting.payloads;  // on the stack: combine() is compiled with the kernels and checked like them
  combine(payloads);
  for (uint32_t other = 0; other < kWarp; ++other)
    if ((mask >> other & 1) != 0) fibers_[fiber.thread / kWarp * kWarp + other].state = State::kReady;
  meetings.erase(meetings.begin() + static_cast<std::ptrdiff_t>(at));
}

void Block::barrier(uint32_t id, uint32_t threads, bool wait, bool predicate, int line) noexcept {
  Fiber& fiber = *running_;
  if (id >= kBarriers) fail(fiber.thread, "barrier %u (line %d): there are 16", id, line);
  if (threads == 0 || threads > threads_ || (id != 0 && threads % kWarp != 0))
    fail(fiber.thread, "barrier %u (line %d) of %u threads in a block of %u: expected a multiple of 32", id, line,
         threads, threads_);
  Barrier& barrier = barriers_[id];
  if (barrier.arrived == 0) {
    barrier.expected = threads;
    barrier.line = line;
  }
  if (barrier.expected != threads)
    fail(fiber.thread, "barrier %u (line %d) of %u threads, while others wait there for %u", id, line, threads,
         barrier.expected);
  if (id == 0 && barrier.line != line)
    fail(fiber.thread, "__syncthreads (line %d) while others wait at another one (line %d)", line, barrier.line);
  const uint32_t warp = fiber.thread / kWarp;
  shared_.release(warp, barrier.knowledge, !wait);
  barrier.predicates += predicate ? 1 : 0;
  ++barrier.arrived;
  if (wait) {
    barrier.waits[fiber.thread] = true;
    barrier.warps[warp] = true;
  }
  fiber.where = nullptr;
  fiber.barrier = id;
  fiber.line = line;
  if (barrier.arrived == barrier.expected) complete(barrier);
  // Also the last to arrive steps back, so that any warp may go first.
  if (wait) pause(barrier.waits[fiber.thread] ? State::kBarrier : State::kReady);
}

void Block::complete(Barrier& barrier) noexcept {
  for (uint32_t warp = 0; warp < warps_; ++warp)
    if (barrier.warps[warp]) shared_.acquire(warp, barrier.knowledge);
  for (uint32_t t = 0; t < threads_; ++t)
    if (barrier.waits[t]) fibers_[t].state = State::kReady;
  if (&barrier == &barriers_[0]) predicates_ = barrier.predicates;
  barrier = Barrier{};
  ++completed_;
}

void Block::describe_thread(uint32_t thread, char* text, size_t bytes) const noexcept {
  const Fiber& fiber = fibers_[thread];
  if (thread >= threads_)
    std::snprintf(text, bytes, "thread %u does not exist", thread);
  else if (fiber.state == State::kDone)
    std::snprintf(text, bytes, "thread %u has left the kernel", thread);
  else if (fiber.state == State::kMeeting)
    std::snprintf(text, bytes, "thread %u waits at %s with mask 0x%08x (line %d)", thread, fiber.where, fiber.mask,
                  fiber.line);
  else
    std::snprintf(text, bytes, "thread %u waits at %s (line %d)", thread,
                  fiber.barrier == 0 ? "__syncthreads" : "a named barrier", fiber.line);
}

// Nobody can go on: names one thread that waits and one that it waits for.
void Block::report_standstill() noexcept {
  char other[160] = "";
  for (uint32_t warp = 0; warp < warps_; ++warp) {
    if (meetings_[warp].empty()) continue;
    const Meeting& meeting = meetings_[warp].front();
    const uint32_t missing = meeting.payloads.mask & ~meeting.arrived, here = meeting.arrived;
    describe_thread(warp * kWarp + static_cast<uint32_t>(__builtin_ctz(missing)), other, sizeof other);
    char text[320];
    std::snprintf(text, sizeof text, "%s with mask 0x%08x (line %d) is not reached by every lane of the mask: %s",
                  meeting.name, meeting.payloads.mask, meeting.line, other);
    return say(warp * kWarp + static_cast<uint32_t>(__builtin_ctz(here)), text);
  }
  for (uint32_t id = 0; id < kBarriers; ++id) {
    const Barrier& barrier = barriers_[id];
    if (barrier.arrived == 0) continue;
    uint32_t waits = threads_, missing = threads_;
    for (uint32_t t = threads_; t-- > 0;) (barrier.waits[t] ? waits : missing) = t;
    if (missing < threads_) describe_thread(missing, other, sizeof other);
    char text[320];
    std::snprintf(text, sizeof text, "%s (line %d) is reached by %u of %u threads: %s",
                  id == 0 ? "__syncthreads" : "a named barrier", barrier.line, barrier.arrived, barrier.expected,
                  other);
    return say(waits < threads_ ? waits : 0, text);
  }
}

void Block::say(uint32_t thread, const char* text) noexcept {
  const uint3 b = index_, t = fibers_[thread].lane->thread_idx;
  std::snprintf(error_, sizeof error_, "block (%u, %u, %u), thread (%u, %u, %u): %s", b.x, b.y, b.z, t.x, t.y, t.z,
                text);
  failed_ = true;
}

void Block::fail(uint32_t thread, const char* format, ...) noexcept {
  char text[320];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  say(thread, text);
  switch_to(running_->context, scheduler_, true);
  std::abort();  // a fiber that failed is never taken up again
}

}  // namespace golf::simt
