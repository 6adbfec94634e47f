// From Python's addresses and sizes to the embedding's arguments, for the processor's and the GPU's bindings alike.
#pragma once

#include <pybind11/stl.h>

#include <array>

#include "bindings/bindings.h"
#include "embed/embed.h"

namespace golf {

// Addresses (ids, table, bigram, bigram_scale, w, lambda; 0 for none) and sizes in the order of EmbedInput.
inline EmbedInput embed_input(const std::array<uintptr_t, 6>& a, const std::array<int64_t, 7>& n) {
  return {address<const int64_t>(a[0]),
          address<const float>(a[1]),
          address<const float>(a[2]),
          address<const float>(a[3]),
          address<const float>(a[4]),
          address<const float>(a[5]),
          n[0],
          n[1],
          n[2],
          n[3],
          n[4],
          n[5],
          n[6]};
}

inline EmbedGradients embed_gradients(const std::array<uintptr_t, 3>& a) {
  return {address<float>(a[0]), address<float>(a[1]), address<float>(a[2])};
}

}  // namespace golf
