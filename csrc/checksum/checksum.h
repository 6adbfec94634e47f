// CRC-32C (Castagnoli, reflected 0x82F63B78, as in RFC 3720) and XXH64, the two checksums of the artifact container.
//
// Both read bytes in memory order, so results do not depend on the host's byte order or on alignment.
#pragma once

#include <cstddef>
#include <cstdint>

namespace golf {

// Continues from `crc` (0 to start), so that crc32c(crc32c(0, a), b) is the checksum of a followed by b.
uint32_t crc32c(uint32_t crc, const uint8_t* data, size_t n) noexcept;

uint64_t xxh64(const uint8_t* data, size_t n, uint64_t seed) noexcept;

// One a instruction set; equal results. `state` is the inverted register: callers other than crc32c() have no use.
uint32_t crc32c_update_scalar(uint32_t state, const uint8_t* data, size_t n) noexcept;
uint32_t crc32c_update_avx2(uint32_t state, const uint8_t* data, size_t n) noexcept;
uint32_t crc32c_update_neon(uint32_t state, const uint8_t* data, size_t n) noexcept;

}  // namespace golf
