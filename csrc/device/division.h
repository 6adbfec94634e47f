// Division by a number that is the same for a whole launch, for dividends below 2^31: a product and a shift, where a
// GPU takes some hundred instructions for 64 bits. With 2^s the first power of two that is not below the divisor, the
// factor is ceil(2^(31 + s) / divisor); what it is too large by stays below 1 / divisor in every quotient.
#pragma once

#include <cstdint>

#include "device/cuda.h"

namespace golf {

struct Division {
  uint32_t factor, shift, divisor;
};

inline Division division_by(int64_t divisor) noexcept {
  uint32_t shift = 31;
  while (int64_t{1} << (shift - 31) < divisor) ++shift;
  const uint64_t by = static_cast<uint64_t>(divisor);
  return {static_cast<uint32_t>(((uint64_t{1} << shift) + by - 1) / by), shift, static_cast<uint32_t>(divisor)};
}

GOLF_DEVICE uint32_t quotient(uint32_t dividend, const Division& by) {
  return static_cast<uint32_t>(uint64_t{dividend} * by.factor >> by.shift);
}

GOLF_DEVICE uint32_t remainder(uint32_t dividend, const Division& by) {
  return dividend - quotient(dividend, by) * by.divisor;
}

}  // namespace golf
