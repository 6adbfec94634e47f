// Fragments element by element, and a tiled product through cp.async, ldmatrix and mma as kernels use them.
#include "device/cuda.h"
#include "device/memory.h"
#include "device/ptx.h"
#include "simt/examples/examples.h"

namespace golf::simt {
namespace {

template <class T>
T* buffer(void* const* buffers, int i) {
  return static_cast<T*>(buffers[i]);
}

// d [16, 8] = a [16, 16] b [16, 8] + c, bf16 and f32 row-major, gathered by the tables. kWrong takes A's second and
// third register for each other.
template <bool kWrong>
GOLF_KERNEL(one_product, 32, 1, const bf16* a, const bf16* b, const float* c, float* d) {
  const uint32_t g = threadIdx.x / 4, pair = threadIdx.x % 4 * 2;
  const auto two = [](bf16 low, bf16 high) { return low.bits | static_cast<uint32_t>(high.bits) << 16; };
  uint32_t ra[4], rb[2];
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t lower = kWrong ? i / 2 : i % 2, right = kWrong ? i % 2 : i / 2;
    const bf16* at = a + (g + lower * 8) * 16 + pair + right * 8;
    ra[i] = two(at[0], at[1]);
  }
  for (uint32_t i = 0; i < 2; ++i) rb[i] = two(b[(pair + i * 8) * 8 + g], b[(pair + i * 8 + 1) * 8 + g]);
  float rd[4] = {c[g * 8 + pair], c[g * 8 + pair + 1], c[(g + 8) * 8 + pair], c[(g + 8) * 8 + pair + 1]};
  mma_bf16(rd, ra, rb);
  d[g * 8 + pair] = rd[0];
  d[g * 8 + pair + 1] = rd[1];
  d[(g + 8) * 8 + pair] = rd[2];
  d[(g + 8) * 8 + pair + 1] = rd[3];
}

Status run_one_product(void* const* b, int64_t n) {
  return n == 0 ? GOLF_LAUNCH((one_product<false>), 1, 32, 0, nullptr, buffer<bf16>(b, 0), buffer<bf16>(b, 1),
                              buffer<float>(b, 2), buffer<float>(b, 3))
                : GOLF_LAUNCH((one_product<true>), 1, 32, 0, nullptr, buffer<bf16>(b, 0), buffer<bf16>(b, 1),
                              buffer<float>(b, 2), buffer<float>(b, 3));
}

// in: 32 rows of 8; out [4 forms][32 lanes][4]: what each lane gets of x4, x4.trans, x2, x2.trans.
GOLF_KERNEL(fragments, 32, 1, const uint16_t* in, uint32_t* out) {
  GOLF_SHARED(uint16_t, rows, 256);
  const uint32_t lane = threadIdx.x;
  store(rows + lane * 8, load<8>(in + lane * 8));
  __syncwarp();
  uint32_t four[4], two[2];
  const auto keep = [&](uint32_t form, const uint32_t* registers, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) out[(form * 32 + lane) * 4 + i] = registers[i];
  };
  ldmatrix_x4(four, rows + lane * 8);
  keep(0, four, 4);
  ldmatrix_x4_trans(four, rows + lane * 8);
  keep(1, four, 4);
  ldmatrix_x2(two, rows + lane % 16 * 8);
  keep(2, two, 2);
  ldmatrix_x2_trans(two, rows + lane % 16 * 8);
  keep(3, two, 2);
}

Status run_fragments(void* const* b, int64_t) {
  return GOLF_LAUNCH(fragments, 1, 32, 0, nullptr, buffer<uint16_t>(b, 0), buffer<uint32_t>(b, 1));
}

// c [m, n] = a [m, k] b [k, n]: a tile of 64 x 64 a block of 4 warps, k in steps of 32, two stages. m, n and k are
// multiples of 64, 64 and 32. Rows in shared memory are padded by 16 bytes, so that ldmatrix meets no bank twice.
constexpr int kTile = 64, kStep = 32, kRowA = kStep + 8, kRowB = kTile + 8;

GOLF_KERNEL(product, 128, 1, const bf16* a, const bf16* b, float* c, int n, int k) {
  GOLF_SHARED(bf16, tile_a, 2 * kTile * kRowA);
  GOLF_SHARED(bf16, tile_b, 2 * kStep * kRowB);
  const int t = static_cast<int>(threadIdx.x), lane = t % 32, warp = t / 32;
  const int row0 = static_cast<int>(blockIdx.y) * kTile, column0 = static_cast<int>(blockIdx.x) * kTile;
  const auto request = [&](int step) {
    if (step * kStep < k) {
      bf16* const to_a = tile_a + step % 2 * kTile * kRowA;
      bf16* const to_b = tile_b + step % 2 * kStep * kRowB;
      for (int i = t; i < kTile * kStep / 8; i += 128)
        cp_async(to_a + i / 4 * kRowA + i % 4 * 8, a + (row0 + i / 4) * k + step * kStep + i % 4 * 8);
      for (int i = t; i < kStep * kTile / 8; i += 128)
        cp_async(to_b + i / 8 * kRowB + i % 8 * 8, b + (step * kStep + i / 8) * n + column0 + i % 8 * 8);
    }
    cp_async_commit();
  };
  float sums[8][4] = {};
  request(0);
  for (int step = 0; step * kStep < k; ++step) {
    request(step + 1);
    cp_async_wait<1>();
    __syncthreads();
    const bf16* const from_a = tile_a + step % 2 * kTile * kRowA + warp * 16 * kRowA;
    const bf16* const from_b = tile_b + step % 2 * kStep * kRowB;
#pragma unroll
    for (int part = 0; part < kStep; part += 16) {
      uint32_t ra[4], rb[2];
      ldmatrix_x4(ra, from_a + lane % 16 * kRowA + part + lane / 16 * 8);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        ldmatrix_x2_trans(rb, from_b + (part + lane % 16) * kRowB + j * 8);
        mma_bf16(sums[j], ra, rb);
      }
    }
    __syncthreads();
  }
  const int row = row0 + warp * 16 + lane / 4, column = column0 + lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    c[row * n + column + j * 8] = sums[j][0];
    c[row * n + column + j * 8 + 1] = sums[j][1];
    c[(row + 8) * n + column + j * 8] = sums[j][2];
    c[(row + 8) * n + column + j * 8 + 1] = sums[j][3];
  }
}

// sizes: m, n, k in the first buffer.
Status run_product(void* const* b, int64_t) {
  const int* sizes = buffer<int>(b, 0);
  const dim3 grid(static_cast<unsigned>(sizes[1] / kTile), static_cast<unsigned>(sizes[0] / kTile));
  return GOLF_LAUNCH(product, grid, 128, 0, nullptr, buffer<bf16>(b, 1), buffer<bf16>(b, 2), buffer<float>(b, 3),
                     sizes[1], sizes[2]);
}

constexpr Example kExamples[] = {
    {"one_product", run_one_product},
    {"fragments", run_fragments},
    {"product", run_product},
};

}  // namespace

Examples matrices() noexcept { return {kExamples, sizeof kExamples / sizeof *kExamples}; }

}  // namespace golf::simt
