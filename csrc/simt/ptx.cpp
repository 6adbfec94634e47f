#include "simt/ptx.h"

namespace golf {
namespace {

using simt::kWarp;
using simt::Payloads;

float bf16_low(uint32_t pair) { return simt::from_bits<float>(uint64_t{pair} << 16); }
float bf16_high(uint32_t pair) { return simt::from_bits<float>(pair & 0xffff0000u); }

struct Mma {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

// Gathers A [16 x 16], B [16 x 8] and C from the lanes, multiplies, hands C back. Products of bf16 are exact in f32;
// they are added in the order of k.
void multiply(const Payloads& lanes) {
  float a[16][16], b[16][8], c[16][8];
  for (uint32_t lane = 0; lane < kWarp; ++lane) {
    const Mma& m = *static_cast<const Mma*>(lanes.of[lane]);
    const uint32_t g = lane / 4, pair = lane % 4 * 2;
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t row = g + (i % 2) * 8, column = pair + i / 2 * 8;
      a[row][column] = bf16_low(m.a[i]);
      a[row][column + 1] = bf16_high(m.a[i]);
      c[g + i / 2 * 8][pair + i % 2] = m.d[i];
    }
    for (uint32_t i = 0; i < 2; ++i) {
      b[pair + i * 8][g] = bf16_low(m.b[i]);
      b[pair + i * 8 + 1][g] = bf16_high(m.b[i]);
    }
  }
  for (uint32_t row = 0; row < 16; ++row)
    for (uint32_t k = 0; k < 16; ++k)
      for (uint32_t column = 0; column < 8; ++column) c[row][column] += a[row][k] * b[k][column];
  for (uint32_t lane = 0; lane < kWarp; ++lane) {
    const Mma& m = *static_cast<const Mma*>(lanes.of[lane]);
    const uint32_t g = lane / 4, pair = lane % 4 * 2;
    for (uint32_t i = 0; i < 4; ++i) m.d[i] = c[g + i / 2 * 8][pair + i % 2];
  }
}

struct Tiles {
  const uint16_t* row;
  uint32_t* out;
};

template <uint32_t kTiles, bool kTransposed>
void load_tiles(const Payloads& lanes) {
  for (uint32_t tile = 0; tile < kTiles; ++tile) {
    uint16_t m[8][8];
    for (uint32_t row = 0; row < 8; ++row)
      __builtin_memcpy(m[row], static_cast<const Tiles*>(lanes.of[tile * 8 + row])->row, sizeof m[row]);
    for (uint32_t lane = 0; lane < kWarp; ++lane) {
      const uint32_t at = lane / 4, pair = lane % 4 * 2;
      const uint16_t low = kTransposed ? m[pair][at] : m[at][pair];
      const uint16_t high = kTransposed ? m[pair + 1][at] : m[at][pair + 1];
      static_cast<const Tiles*>(lanes.of[lane])->out[tile] = low | static_cast<uint32_t>(high) << 16;
    }
  }
}

template <uint32_t kTiles, bool kTransposed>
void ldmatrix(const char* name, uint32_t* out, const void* row, int line) {
  if (simt::self().lane < kTiles * 8) {
    simt::check_shared(row, name);
    simt::check_access(row, 16, simt::Access::kRead);
  }
  Tiles tiles{static_cast<const uint16_t*>(row), out};
  simt::meet(name, simt::kFullMask, &tiles, load_tiles<kTiles, kTransposed>, line);
}

}  // namespace

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int line) {
  Mma m{d, a, b};
  simt::meet("mma.sync", simt::kFullMask, &m, multiply, line);
}

void ldmatrix_x4(uint32_t (&r)[4], const void* row, int line) { ldmatrix<4, false>("ldmatrix.x4", r, row, line); }
void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, int line) {
  ldmatrix<4, true>("ldmatrix.x4.trans", r, row, line);
}
void ldmatrix_x2(uint32_t (&r)[2], const void* row, int line) { ldmatrix<2, false>("ldmatrix.x2", r, row, line); }
void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, int line) {
  ldmatrix<2, true>("ldmatrix.x2.trans", r, row, line);
}

}  // namespace golf
