#include <array>

#include "checksum/checksum.h"
#include "golf.h"

namespace golf {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78u;

using Tables = std::array<std::array<uint32_t, 256>, 8>;

// tables[k][b]: what byte b contributes when k more bytes follow it in the group of eight.
constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables[0][b] = crc;
  }
  for (size_t k = 1; k < 8; ++k)
    for (size_t b = 0; b < 256; ++b) tables[k][b] = (tables[k - 1][b] >> 8) ^ tables[0][tables[k - 1][b] & 0xFF];
  return tables;
}

constexpr Tables kTables = make_tables();

inline uint32_t load32(const uint8_t* p) noexcept {
  return uint32_t{p[0]} | uint32_t{p[1]} << 8 | uint32_t{p[2]} << 16 | uint32_t{p[3]} << 24;
}

inline uint64_t load64(const uint8_t* p) noexcept { return uint64_t{load32(p)} | uint64_t{load32(p + 4)} << 32; }

}  // namespace

uint32_t crc32c_update_scalar(uint32_t state, const uint8_t* data, size_t n) noexcept {
  for (; n >= 8; n -= 8, data += 8) {
    const uint32_t low = state ^ load32(data);
    const uint32_t high = load32(data + 4);
    state = kTables[7][low & 0xFF] ^ kTables[6][low >> 8 & 0xFF] ^ kTables[5][low >> 16 & 0xFF] ^
            kTables[4][low >> 24] ^ kTables[3][high & 0xFF] ^ kTables[2][high >> 8 & 0xFF] ^
            kTables[1][high >> 16 & 0xFF] ^ kTables[0][high >> 24];
  }
  for (; n > 0; --n, ++data) state = state >> 8 ^ kTables[0][(state ^ *data) & 0xFF];
  return state;
}

uint32_t crc32c(uint32_t crc, const uint8_t* data, size_t n) noexcept {
#if defined(__x86_64__)
  if (active_isa() >= Isa::kAvx2) return ~crc32c_update_avx2(~crc, data, n);
#elif defined(__aarch64__)
  if (active_isa() >= Isa::kNeon) return ~crc32c_update_neon(~crc, data, n);
#endif
  return ~crc32c_update_scalar(~crc, data, n);
}

namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87u;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4Fu;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9u;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63u;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5u;

inline uint64_t rotate_left(uint64_t x, int bits) noexcept { return x << bits | x >> (64 - bits); }

inline uint64_t round64(uint64_t lane, uint64_t input) noexcept {
  return rotate_left(lane + input * kPrime2, 31) * kPrime1;
}

inline uint64_t merge_lane(uint64_t hash, uint64_t lane) noexcept {
  return (hash ^ round64(0, lane)) * kPrime1 + kPrime4;
}

}  // namespace

uint64_t xxh64(const uint8_t* data, size_t n, uint64_t seed) noexcept {
  const uint64_t length = n;
  uint64_t hash = seed + kPrime5;
  if (n >= 32) {
    uint64_t a = seed + kPrime1 + kPrime2, b = seed + kPrime2, c = seed, d = seed - kPrime1;
    for (; n >= 32; n -= 32, data += 32) {
      a = round64(a, load64(data));
      b = round64(b, load64(data + 8));
      c = round64(c, load64(data + 16));
      d = round64(d, load64(data + 24));
    }
    hash = rotate_left(a, 1) + rotate_left(b, 7) + rotate_left(c, 12) + rotate_left(d, 18);
    for (uint64_t lane : {a, b, c, d}) hash = merge_lane(hash, lane);
  }
  hash += length;
  for (; n >= 8; n -= 8, data += 8) hash = rotate_left(hash ^ round64(0, load64(data)), 27) * kPrime1 + kPrime4;
  if (n >= 4) {
    hash = rotate_left(hash ^ load32(data) * kPrime1, 23) * kPrime2 + kPrime3;
    n -= 4;
    data += 4;
  }
  for (; n > 0; --n, ++data) hash = rotate_left(hash ^ *data * kPrime5, 11) * kPrime1;
  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

}  // namespace golf
