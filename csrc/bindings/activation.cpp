#include "activation/activation.h"

#include "bindings/bindings.h"

namespace golf {

void bind_activation(pybind11::module_& m) {
  m.def("activation_forward", [](int32_t dtype, uintptr_t u, uintptr_t y, int64_t n, float slope, int32_t threads) {
    run([&] { return activation_forward(dtype_of(dtype), address<void>(u), address<void>(y), n, slope, threads); });
  });
  m.def("activation_backward",
        [](int32_t dtype, uintptr_t u, uintptr_t dy, uintptr_t du, int64_t n, float slope, int32_t threads) {
          run([&] {
            return activation_backward(dtype_of(dtype), address<void>(u), address<void>(dy), address<void>(du), n,
                                       slope, threads);
          });
        });
}

}  // namespace golf
