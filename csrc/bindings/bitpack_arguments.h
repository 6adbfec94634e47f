// From Python's addresses and sizes to a packed matrix, for the processor's and the GPU's bindings alike.
#pragma once

#include <pybind11/stl.h>

#include <array>

#include "bindings/bindings.h"
#include "bitpack/bitpack.h"

namespace golf {

// (address of data, address of scales) and (bits, rows, columns, group)
inline PackedMatrix packed_matrix(const std::array<uintptr_t, 2>& a, const std::array<int64_t, 4>& n) {
  return {address<const uint8_t>(a[0]), address<const float>(a[1]), {static_cast<int32_t>(n[0])}, n[1], n[2], n[3]};
}

}  // namespace golf
