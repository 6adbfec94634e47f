// A piece as a hash-table key: pieces of up to 16 bytes are held in the key itself, so comparing needs no text.
#pragma once

#include <cstdint>
#include <cstring>

namespace golf::bpe {

inline constexpr size_t kInlineBytes = 16;

inline uint64_t mix(uint64_t a, uint64_t b) noexcept {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

struct WordKey {
  uint64_t low, high;  // the bytes, zero-padded

  // length <= 16; [p, p + length) lies in a text that ends at `end`.
  static WordKey of(const uint8_t* p, size_t length, const uint8_t* end) noexcept {
    WordKey key{0, 0};
    if (static_cast<size_t>(end - p) < kInlineBytes) {
      std::memcpy(&key, p, length);
      return key;
    }
    std::memcpy(&key, p, kInlineBytes);
    if (length <= 8) {
      key.low &= ~uint64_t{0} >> (64 - 8 * length);
      key.high = 0;
    } else {
      key.high &= ~uint64_t{0} >> (128 - 8 * length);
    }
    return key;
  }

  // The length counts: "a" and "a\0" have the same bytes once padded.
  uint64_t hash(size_t length) const noexcept {
    return mix(low ^ 0x9E3779B97F4A7C15u, high ^ 0xD1B54A32D192ED03u ^ length);
  }
  bool operator==(const WordKey& o) const noexcept { return low == o.low && high == o.high; }
};

inline uint64_t hash_bytes(const uint8_t* p, size_t length) noexcept {
  uint64_t h = length;
  for (; length > kInlineBytes; p += kInlineBytes, length -= kInlineBytes) {
    const WordKey key = WordKey::of(p, kInlineBytes, p + kInlineBytes);
    h = mix(h ^ key.low, key.high ^ 0xD1B54A32D192ED03u);
  }
  return mix(h, WordKey::of(p, length, p + length).hash(length));
}

}  // namespace golf::bpe
