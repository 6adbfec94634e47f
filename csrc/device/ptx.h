// What C++ cannot say: matrix products, matrix loads and asynchronous copies, as PTX and as host twins (simt/ptx.cpp)
// that follow the fragment tables of the PTX ISA lane by lane.
//
// Fragments of mma.m16n8k16, for lane l with row g = l / 4 and column pair c = 2 (l % 4):
//   A [16 x 16], 4 registers of 2 bf16: (g, c), (g + 8, c), (g, c + 8), (g + 8, c + 8), each with its right neighbor
//   B [16 x 8],  2 registers of 2 bf16: rows c and c + 1 of column g, then rows c + 8 and c + 9
//   C [16 x 8],  4 f32: (g, c), (g, c + 1), (g + 8, c), (g + 8, c + 1)
// The lower half of a register is the element with the lower index. ldmatrix loads 8 x 8 tiles of 16-bit numbers: lane
// l gives the address of row l % 8 of tile l / 8 and gets, of each tile, row l / 4, columns 2 (l % 4) and the next one
// (transposed: column l / 4, those rows). So four tiles in the order (rows 0-7, columns 0-7), (8-15, 0-7), (0-7, 8-15),
// (8-15, 8-15) make an A fragment, and a transposed pair of tiles of a row-major B [16 x 8], rows 0-7 and 8-15, a B.
#pragma once

#include "device/cuda.h"

#if GOLF_SIMT

#include "simt/ptx.h"

#else

namespace golf {

GOLF_DEVICE uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// d += a b, summed in f32.
GOLF_DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Rows of 16 bytes, at multiples of 16, in shared memory that the warp has made visible to itself before.
GOLF_DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

GOLF_DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// Addresses of lanes 0-15 count.
GOLF_DEVICE void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

GOLF_DEVICE void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

// 16 bytes from global to shared memory past the registers and L1, of which `valid` are read and the rest become zero.
// They are there for this thread after cp_async_wait, for others after a barrier that follows it.
GOLF_DEVICE void cp_async(void* shared, const void* global, uint32_t valid = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid)
               : "memory");
}

GOLF_DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most kLeft of this thread's committed groups are under way.
template <int kLeft>
GOLF_DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// Barriers 1 to 15 for `threads` threads, whole warps: bar.sync waits, bar.arrive only counts.
GOLF_DEVICE void barrier_sync(uint32_t id, uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
GOLF_DEVICE void barrier_arrive(uint32_t id, uint32_t threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// 2^x, off by at most 2 ulp; subnormal results are 0.
GOLF_DEVICE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x, off by at most 1 ulp; subnormal results are 0.
GOLF_DEVICE float reciprocal_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace golf

#endif
