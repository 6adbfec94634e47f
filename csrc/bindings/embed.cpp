#include <limits>

#include "bindings/embed_arguments.h"

namespace golf {

void bind_embed(pybind11::module_& m) {
  m.attr("embed_grain") = kEmbedGrain;
  m.attr("embed_max_smear") = std::numeric_limits<int32_t>::max();
  m.def("embed_forward", [](const std::array<uintptr_t, 6>& addresses, const std::array<int64_t, 7>& sizes,
                            int32_t dtype, uintptr_t x, uintptr_t place, int32_t threads) {
    const EmbedInput in = embed_input(addresses, sizes);
    run([&] { return embed_forward(in, dtype_of(dtype), address<void>(x), address<int64_t>(place), threads); });
  });
  m.def("embed_backward", [](const std::array<uintptr_t, 6>& addresses, const std::array<int64_t, 7>& sizes,
                             int32_t dtype, uintptr_t dx, uintptr_t place, const std::array<uintptr_t, 3>& gradients,
                             const std::array<uintptr_t, 3>& workspace, int32_t threads) {
    const EmbedInput in = embed_input(addresses, sizes);
    const EmbedGradients out = embed_gradients(gradients);
    run([&] {
      return embed_backward(in, dtype_of(dtype), address<const void>(dx), address<const int64_t>(place), out,
                            address<float>(workspace[0]), address<double>(workspace[1]), address<int64_t>(workspace[2]),
                            threads);
    });
  });
}

}  // namespace golf
