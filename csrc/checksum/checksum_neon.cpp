// The level has Arm's crc32c instructions; the file's name picks its compiler flags (CMakeLists.txt).
#include <arm_acle.h>

#include <cstring>

#include "checksum/checksum.h"

namespace golf {

uint32_t crc32c_update_neon(uint32_t state, const uint8_t* data, size_t n) noexcept {
  for (; n >= 8; n -= 8, data += 8) {
    uint64_t word;
    std::memcpy(&word, data, sizeof(word));
    state = __crc32cd(state, word);
  }
  for (; n > 0; --n, ++data) state = __crc32cb(state, *data);
  return state;
}

}  // namespace golf
