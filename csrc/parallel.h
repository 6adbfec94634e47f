// Threads for native operations.
//
// Work is cut into chunks that depend on the size of the work alone, never on the number of threads, so a kernel whose
// chunks are independent (or leave partial sums that are added in chunk order) gives the same bits on every machine.
#pragma once

#include <cstdint>

namespace golf {

using ChunkFn = void (*)(void* context, int64_t chunk);

// Calls fn(context, chunk) once for each chunk in [0, chunks), on at most `threads` threads, and returns when all are
// done. Chunks are handed out in order as threads become free. Serial inside another parallel_chunks.
void parallel_chunks(int64_t chunks, int32_t threads, ChunkFn fn, void* context) noexcept;

constexpr int64_t chunk_count(int64_t n, int64_t grain) noexcept { return (n + grain - 1) / grain; }

// fn(chunk, begin, end) for the pieces of [0, n) of `grain` items each (the last may be shorter).
template <class Fn>
void parallel_for(int64_t n, int64_t grain, int32_t threads, const Fn& fn) noexcept {
  struct Context {
    const Fn& fn;
    int64_t n, grain;
  } context{fn, n, grain};
  parallel_chunks(
      chunk_count(n, grain), threads,
      [](void* opaque, int64_t chunk) {
        const Context& c = *static_cast<const Context*>(opaque);
        const int64_t begin = chunk * c.grain;
        c.fn(chunk, begin, begin + c.grain < c.n ? begin + c.grain : c.n);
      },
      &context);
}

// GOMP_parallel of the OpenMP runtime that the process's torch runs on. Null, the start value: a pool of our own.
// Torch's workers spin for a while after each of its operations, so a second pool fights with them for the cores: a 2
// MB leaky square that follows a torch product in a loop takes 42 us on borrowed threads and 57 us on ours (p80: 0.39
// and 0.67 ms; 2 cores).
using OpenMpParallel = void (*)(void (*fn)(void*), void* data, unsigned threads, unsigned flags);
void borrow_openmp(OpenMpParallel parallel) noexcept;

}  // namespace golf
