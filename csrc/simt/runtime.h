// What a kernel's source calls when it runs on the host: the machine behind simt/cuda.h and the host twins of device/.
//
// A block's threads are fibers of one thread of the host; blocks run on several. Nothing here is part of a kernel: each
// function stands for an instruction. A misuse ends the launch, with what, where and by which thread as its error text.
#pragma once

#include <cstddef>
#include <cstdint>

#include "golf.h"

namespace golf::simt {

struct uint3 {
  uint32_t x, y, z;
};
struct dim3 {
  uint32_t x = 1, y = 1, z = 1;
  constexpr dim3() = default;
  constexpr dim3(uint32_t x_, uint32_t y_ = 1, uint32_t z_ = 1) : x(x_), y(y_), z(z_) {}  // implicit, as in CUDA
};

// A kernel's place in its launch.
struct Lane {
  uint3 thread_idx, block_idx;
  dim3 block_dim, grid_dim;
  uint32_t lane;  // in its warp
};
// The running thread's: the same all through a kernel, so calls may be merged.
__attribute__((const)) const Lane& self() noexcept;

constexpr uint32_t kWarp = 32;
constexpr uint32_t kFullMask = 0xffffffffu;

// --- memory ---------------------------------------------------------------------------------------------------------

// The block's array for `key`, the same for all of its threads.
void* shared_array(const void* key, size_t bytes, size_t alignment) noexcept;
// The launch's dynamic shared memory.
unsigned char* dynamic_shared() noexcept;

enum class Access : uint8_t { kRead, kWrite, kAtomic };
// One access of `bytes` bytes, which must be its alignment: bounds, alignment, races, uninitialized shared memory.
void check_access(const void* p, size_t bytes, Access access) noexcept;
void check_shared(const void* p, const char* what) noexcept;  // p lies in shared memory
void check_global(const void* p, const char* what) noexcept;  // p does not

// Of 4 or 8 bytes, on global or shared memory.
uint64_t atomic_load(const void* p, size_t bytes) noexcept;
bool atomic_exchange_if(void* p, size_t bytes, uint64_t expected, uint64_t value) noexcept;

// cp.async: 16 bytes, of which `valid` are copied and the rest is zero. They arrive when the thread waits, or earlier.
void copy_async(void* shared, const void* global, uint32_t valid) noexcept;
void copy_async_commit() noexcept;
void copy_async_wait(uint32_t groups_left) noexcept;

// --- threads that meet ----------------------------------------------------------------------------------------------

// Waits until all lanes of `mask` have called with the same name and mask; the last one calls combine() with each
// lane's payload.
struct Payloads {
  void* of[kWarp];
  uint32_t mask;

  bool has(uint32_t lane) const noexcept { return lane < kWarp && (mask >> lane & 1) != 0; }
};
void meet(const char* name, uint32_t mask, void* payload, void (*combine)(const Payloads& payloads), int line) noexcept;
// From combine(): what `lane` did wrong.
[[noreturn]] void fail_lane(uint32_t lane, const char* text) noexcept;

void sync_warp(uint32_t mask, int line) noexcept;
// __syncthreads(); the number of threads for which `predicate` holds.
uint32_t sync_block(bool predicate, int line) noexcept;
// bar.sync and bar.arrive.
void named_barrier(uint32_t id, uint32_t threads, bool wait, int line) noexcept;

// --- launches -------------------------------------------------------------------------------------------------------

// Which kernel is launched.
struct Source {
  const char* name;      // as GOLF_LAUNCH has it: "(forward<T, kCount>)"
  const char* instance;  // simt/cuda.h
  const char* file;
};

struct Config {
  Source source;
  dim3 grid, block;
  size_t dynamic_shared;
  uint32_t max_threads;  // of the kernel's launch bounds
};
// Runs body(arguments) in every thread of the grid; `arguments` are `bytes` bytes that kernels may read.
Status run_grid(const Config& config, const void* arguments, size_t bytes,
                void (*body)(const void* arguments)) noexcept;

// --- for whoever starts kernels -------------------------------------------------------------------------------------

// Order of blocks, warps and lanes, and the moments at which asynchronous copies arrive; threads of the host.
void set_schedule(uint64_t seed, int32_t threads) noexcept;
// Kernels may touch these bytes, besides shared memory, their own variables and constants.
void map_buffer(const void* p, size_t bytes) noexcept;
void unmap_buffers() noexcept;
// Whether every access of a kernel is checked, not only those that a wrapper makes (see GOLF_SIMT_HOOKS).
bool checks_every_access() noexcept;

}  // namespace golf::simt
