// Host twins of device/ptx.h, which says what each does.
#pragma once

#include <cmath>

#include "simt/cuda.h"

namespace golf {

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int line = __builtin_LINE());
void ldmatrix_x4(uint32_t (&r)[4], const void* row, int line = __builtin_LINE());
void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, int line = __builtin_LINE());
void ldmatrix_x2(uint32_t (&r)[2], const void* row, int line = __builtin_LINE());
void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, int line = __builtin_LINE());

inline void cp_async(void* shared, const void* global, uint32_t valid = 16) { simt::copy_async(shared, global, valid); }
inline void cp_async_commit() { simt::copy_async_commit(); }
template <int kLeft>
void cp_async_wait() {
  simt::copy_async_wait(kLeft);
}

inline void barrier_sync(uint32_t id, uint32_t threads, int line = __builtin_LINE()) {
  simt::named_barrier(id, threads, true, line);
}
inline void barrier_arrive(uint32_t id, uint32_t threads, int line = __builtin_LINE()) {
  simt::named_barrier(id, threads, false, line);
}

inline float flush_subnormal(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline float exp2_fast(float x) { return flush_subnormal(std::exp2(flush_subnormal(x))); }
inline float reciprocal_fast(float x) { return flush_subnormal(1.0f / flush_subnormal(x)); }

}  // namespace golf
