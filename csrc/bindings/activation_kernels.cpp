#include "activation/activation.h"
#include "bindings/device_kernels.h"

namespace golf {

void bind_activation_kernels(pybind11::module_& m) {
  m.def("activation_forward",
        [](int32_t dtype, uintptr_t u, uintptr_t y, int64_t n, float slope, int32_t device, uintptr_t stream) {
          run_on(device, [&] {
            return activation_forward_device(dtype_of(dtype), address<void>(u), address<void>(y), n, slope,
                                             stream_of(stream));
          });
        });
  m.def("activation_backward", [](int32_t dtype, uintptr_t u, uintptr_t dy, uintptr_t du, int64_t n, float slope,
                                  int32_t device, uintptr_t stream) {
    run_on(device, [&] {
      return activation_backward_device(dtype_of(dtype), address<void>(u), address<void>(dy), address<void>(du), n,
                                        slope, stream_of(stream));
    });
  });
}

}  // namespace golf
