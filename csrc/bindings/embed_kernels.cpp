#include "bindings/device_kernels.h"
#include "bindings/embed_arguments.h"

namespace golf {
namespace {

// Addresses of the rows and of the tokens in their order; 0 for none.
EmbedOrder order_of(const std::array<uintptr_t, 2>& a) {
  return {address<const int32_t>(a[0]), address<const int64_t>(a[1])};
}

}  // namespace

void bind_embed_kernels(pybind11::module_& m) {
  using Two = std::array<uintptr_t, 2>;
  using Three = std::array<uintptr_t, 3>;
  m.attr("embed_max_smear") = kEmbedMaxSmearDevice;
  m.def("embed_partials", &embed_partials_device);
  m.def("embed_pieces", &embed_pieces_device);
  m.def("embed_forward", [](const std::array<uintptr_t, 6>& addresses, const std::array<int64_t, 7>& sizes,
                            int32_t dtype, uintptr_t x, uintptr_t place, int32_t device, uintptr_t stream) {
    const EmbedInput in = embed_input(addresses, sizes);
    run_on(device, [&] {
      return embed_forward_device(in, dtype_of(dtype), address<void>(x), address<int64_t>(place), stream_of(stream));
    });
  });
  m.def("embed_backward", [](const std::array<uintptr_t, 6>& addresses, const std::array<int64_t, 7>& sizes,
                             int32_t dtype, uintptr_t dx, uintptr_t place, const Three& gradients, const Two& by_id,
                             const Two& by_slot, const Three& scratch, int32_t device, uintptr_t stream) {
    const EmbedInput in = embed_input(addresses, sizes);
    const EmbedScratch space{address<float>(scratch[0]), address<float>(scratch[1]), address<float>(scratch[2])};
    run_on(device, [&] {
      return embed_backward_device(in, dtype_of(dtype), address<const void>(dx), address<const int64_t>(place),
                                   embed_gradients(gradients), order_of(by_id), order_of(by_slot), space,
                                   stream_of(stream));
    });
  });
}

}  // namespace golf
