#include <pybind11/stl.h>

#include <array>

#include "bindings/bindings.h"
#include "embed/layout.h"

namespace golf {
namespace {

// Addresses (ids, table, bigram, bigram_scale, w, lambda; 0 for none) and sizes in the order of EmbedInput.
EmbedInput input_of(const std::array<uintptr_t, 6>& a, const std::array<int64_t, 7>& n) {
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

}  // namespace

void bind_embed(pybind11::module_& m) {
  m.attr("embed_grain") = kEmbedGrain;
  m.def("embed_forward", [](const std::array<uintptr_t, 6>& addresses, const std::array<int64_t, 7>& sizes,
                            int32_t dtype, uintptr_t x, uintptr_t place, int32_t threads) {
    const EmbedInput in = input_of(addresses, sizes);
    run([&] { return embed_forward(in, dtype_of(dtype), address<void>(x), address<int64_t>(place), threads); });
  });
  m.def("embed_backward", [](const std::array<uintptr_t, 6>& addresses, const std::array<int64_t, 7>& sizes,
                             int32_t dtype, uintptr_t dx, uintptr_t place, const std::array<uintptr_t, 3>& gradients,
                             const std::array<uintptr_t, 3>& workspace, int32_t threads) {
    const EmbedInput in = input_of(addresses, sizes);
    const EmbedGradients out{address<float>(gradients[0]), address<float>(gradients[1]), address<float>(gradients[2])};
    run([&] {
      return embed_backward(in, dtype_of(dtype), address<const void>(dx), address<const int64_t>(place), out,
                            address<float>(workspace[0]), address<double>(workspace[1]), address<int64_t>(workspace[2]),
                            threads);
    });
  });
}

}  // namespace golf
