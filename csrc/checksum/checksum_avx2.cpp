// Processors with AVX2 have SSE4.2's crc32 instruction; the file's name picks its compiler flags (CMakeLists.txt).
#include <nmmintrin.h>

#include <cstring>

#include "checksum/checksum.h"

namespace golf {

uint32_t crc32c_update_avx2(uint32_t state, const uint8_t* data, size_t n) noexcept {
  uint64_t wide = state;
  for (; n >= 8; n -= 8, data += 8) {
    uint64_t word;
    std::memcpy(&word, data, sizeof(word));
    wide = _mm_crc32_u64(wide, word);
  }
  state = static_cast<uint32_t>(wide);
  for (; n > 0; --n, ++data) state = _mm_crc32_u8(state, *data);
  return state;
}

}  // namespace golf
