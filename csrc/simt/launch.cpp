// Grids over the host's threads, the memory that kernels may touch, and the functions that stand for instructions.
#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <vector>

#include "parallel.h"
#include "simt/block.h"
#include "simt/device.h"
#include "simt/runtime.h"

namespace golf::simt {
namespace {

struct Range {
  uintptr_t begin, end;
};

std::atomic<uint64_t> chosen_seed{0};
std::atomic<int32_t> chosen_threads{1};
std::vector<Range> buffers;    // sorted, apart; only changed between launches
std::vector<Range> constants;  // this module's own image: tables that kernels read

Block& block_of_this_thread() {
  static thread_local std::unique_ptr<Block> block;
  if (block == nullptr) block = std::make_unique<Block>();
  return *block;
}

void find_constants() {
  static std::once_flag once;
  std::call_once(once, [] {
    dl_iterate_phdr(
        [](dl_phdr_info* module, size_t, void*) {
          std::vector<Range> found;
          bool ours = false;
          const uintptr_t here = reinterpret_cast<uintptr_t>(&find_constants);
          for (int i = 0; i < module->dlpi_phnum; ++i) {
            const auto& segment = module->dlpi_phdr[i];
            if (segment.p_type != PT_LOAD) continue;
            const uintptr_t begin = module->dlpi_addr + segment.p_vaddr;
            found.push_back({begin, begin + segment.p_memsz});
            ours |= begin <= here && here < begin + segment.p_memsz;
          }
          if (ours) constants = found;
          return ours ? 1 : 0;
        },
        nullptr);
  });
}

bool inside(const std::vector<Range>& ranges, uintptr_t begin, uintptr_t end) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), begin,
                                      [](uintptr_t value, const Range& range) { return value < range.begin; });
  return after != ranges.begin() && end <= std::prev(after)->end;
}

const char* refuse(const Config& c) {
  const uint64_t threads = uint64_t{c.block.x} * c.block.y * c.block.z;
  if (threads == 0 || threads > kMaxThreads) return "a block has 1 to 1024 threads";
  if (threads > c.max_threads) return "the block has more threads than the kernel's launch bounds";
  if (c.grid.x == 0 || c.grid.y == 0 || c.grid.z == 0) return "the grid is empty";
  if (c.grid.x > 0x7fffffffu || c.grid.y > 65535 || c.grid.z > 65535) return "the grid is too large";
  if (c.dynamic_shared > kSharedLimit) return "a block has at most 232448 bytes of shared memory";
  return nullptr;
}

}  // namespace

void set_schedule(uint64_t seed, int32_t threads) noexcept {
  chosen_seed = seed;
  chosen_threads = threads;
}

void map_buffer(const void* p, size_t bytes) noexcept {
  if (bytes == 0) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(p);
  buffers.push_back({begin, begin + bytes});
  std::sort(buffers.begin(), buffers.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  size_t last = 0;
  for (size_t i = 1; i < buffers.size(); ++i)  // tensors may be views of one buffer
    if (buffers[i].begin < buffers[last].end)
      buffers[last].end = std::max(buffers[last].end, buffers[i].end);
    else
      buffers[++last] = buffers[i];
  buffers.resize(last + 1);
}

void unmap_buffers() noexcept { buffers.clear(); }

Status run_grid(const Config& config, const void* arguments, size_t bytes, void (*body)(const void*)) noexcept {
  if (const char* why = refuse(config)) {
    char text[256];
    std::snprintf(text, sizeof text, "%s: launch refused: %s", kernel_name(config.source).c_str(), why);
    return fail_call(text);
  }
  if (const Status status = begin_launch(config); status != Status::kOk) return status;
  if (recorded(config)) return Status::kOk;
  find_constants();
  const Launch launch{config, arguments, bytes, body, chosen_seed};
  const uint64_t count = uint64_t{config.grid.x} * config.grid.y * config.grid.z;
  std::vector<uint64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  Random random(launch.seed);
  for (uint64_t i = count; i > 1; --i) std::swap(order[i - 1], order[random.below(static_cast<uint32_t>(i))]);
  std::atomic<bool> failed{false};
  std::mutex mutex;
  char text[640] = "";
  parallel_for(static_cast<int64_t>(count), 1, chosen_threads, [&](int64_t, int64_t i, int64_t) {
    if (failed) return;
    Block& block = block_of_this_thread();
    if (block.run(launch, order[static_cast<size_t>(i)])) return;
    std::lock_guard<std::mutex> lock(mutex);
    if (!failed.exchange(true))
      std::snprintf(text, sizeof text, "%s, %s", kernel_name(config.source).c_str(), block.error());
  });
  return failed ? fail_call(text) : Status::kOk;
}

// --- what stands for instructions -----------------------------------------------------------------------------------

const Lane& self() noexcept { return *current_block->running().lane; }

void* shared_array(const void* key, size_t bytes, size_t alignment) noexcept {
  Block& block = *current_block;
  void* const found = block.shared().array(key, bytes, alignment);
  if (found == nullptr) block.fail(block.thread(), "needs more than 232448 bytes of shared memory");
  if (block.shared().used() - block.launch().config.dynamic_shared > kStaticSharedLimit)
    block.fail(block.thread(), "has more than 49152 bytes of static shared memory; use dynamic");
  return found;
}

unsigned char* dynamic_shared() noexcept { return current_block->shared().dynamic(); }

void check_access(const void* p, size_t bytes, Access access) noexcept {
  Block* const block = current_block;
  if (block == nullptr || block->on_stack(p)) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(p);
  const char* const what = access == Access::kRead ? "reads" : "writes";
  if (begin % bytes != 0 && bytes <= 16)
    block->fail(block->thread(), "misaligned: %s %zu bytes at an address that is %zu more than a multiple of %zu", what,
                bytes, static_cast<size_t>(begin % bytes), bytes);
  if (block->shared().contains(p)) {
    if (const char* text = block->shared().access(block->thread(), p, bytes, access))
      block->fail(block->thread(), "%s", text);
    return;
  }
  if (inside(buffers, begin, begin + bytes)) return;
  if (access == Access::kRead && (block->is_argument(p, bytes) || inside(constants, begin, begin + bytes))) return;
  block->fail(block->thread(), "%s %zu bytes of global memory outside of every buffer", what, bytes);
}

void check_shared(const void* p, const char* what) noexcept {
  Block& block = *current_block;
  if (!block.shared().contains(p)) block.fail(block.thread(), "%s: the address is not in shared memory", what);
}

void check_global(const void* p, const char* what) noexcept {
  Block& block = *current_block;
  if (block.shared().contains(p) || block.on_stack(p))
    block.fail(block.thread(), "%s: the address is not in global memory", what);
}

namespace {

template <class T>
bool exchange_if(void* p, uint64_t expected, uint64_t value) {
  T old = static_cast<T>(expected);
  return __atomic_compare_exchange_n(static_cast<T*>(p), &old, static_cast<T>(value), false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST);
}

}  // namespace

uint64_t atomic_load(const void* p, size_t bytes) noexcept {
  if (bytes == 4) return __atomic_load_n(static_cast<const uint32_t*>(p), __ATOMIC_SEQ_CST);
  if (bytes == 8) return __atomic_load_n(static_cast<const uint64_t*>(p), __ATOMIC_SEQ_CST);
  Block& block = *current_block;
  block.fail(block.thread(), "an atomic of %zu bytes; expected 4 or 8", bytes);
}

bool atomic_exchange_if(void* p, size_t bytes, uint64_t expected, uint64_t value) noexcept {
  return bytes == 4 ? exchange_if<uint32_t>(p, expected, value) : exchange_if<uint64_t>(p, expected, value);
}

namespace {

void arrive(Block::Copy& copy) {
  std::memcpy(copy.to, copy.from, copy.valid);
  std::memset(static_cast<char*>(copy.to) + copy.valid, 0, 16 - copy.valid);
  copy.done = true;
}

}  // namespace

void copy_async(void* shared, const void* global, uint32_t valid) noexcept {
  Block& block = *current_block;
  check_shared(shared, "cp.async");
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 || (valid > 0 && reinterpret_cast<uintptr_t>(global) % 16 != 0))
    block.fail(block.thread(), "cp.async: misaligned: both addresses must be multiples of 16");
  if (valid > 16) block.fail(block.thread(), "cp.async: %u bytes; at most 16", valid);
  if (valid > 0) {
    check_global(global, "cp.async");
    for (uint32_t i = 0; i < valid; ++i) check_access(static_cast<const char*>(global) + i, 1, Access::kRead);
  }
  if (const char* text = block.shared().begin_copy(block.thread(), shared))
    block.fail(block.thread(), "cp.async: %s", text);
  Block::Fiber& fiber = block.running();
  fiber.copies.push_back({shared, global, valid, fiber.group, false});
  if (block.coin()) arrive(fiber.copies.back());  // it may be early, which only a race would notice
}

void copy_async_commit() noexcept { ++current_block->running().group; }

void copy_async_wait(uint32_t groups_left) noexcept {
  Block& block = *current_block;
  Block::Fiber& fiber = block.running();
  const auto waited = [&](const Block::Copy& copy) { return copy.group + groups_left < fiber.group; };
  for (Block::Copy& copy : fiber.copies) {
    if (!waited(copy)) continue;
    if (!copy.done) arrive(copy);
    block.shared().end_copy(fiber.thread, copy.to);
  }
  fiber.copies.erase(std::remove_if(fiber.copies.begin(), fiber.copies.end(), waited), fiber.copies.end());
}

void meet(const char* name, uint32_t mask, void* payload, void (*combine)(const Payloads&), int line) noexcept {
  current_block->meet(name, mask, payload, combine, line);
}

void fail_lane(uint32_t lane, const char* text) noexcept {
  Block& block = *current_block;
  block.fail(block.thread() / kWarp * kWarp + lane, "%s", text);
}

void sync_warp(uint32_t mask, int line) noexcept {
  current_block->meet(
      "__syncwarp", mask, nullptr,
      [](const Payloads& lanes) {
        Block& block = *current_block;
        block.shared().sync_lanes(block.thread() / kWarp, lanes.mask);
      },
      line);
}

uint32_t sync_block(bool predicate, int line) noexcept {
  Block& block = *current_block;
  const dim3 size = self().block_dim;
  block.barrier(0, size.x * size.y * size.z, true, predicate, line);
  return block.predicates();
}

void named_barrier(uint32_t id, uint32_t threads, bool wait, int line) noexcept {
  Block& block = *current_block;
  if (id == 0) block.fail(block.thread(), "named barrier 0 (line %d) is __syncthreads; use 1 to 15", line);
  block.barrier(id, threads, wait, false, line);
}

}  // namespace golf::simt
