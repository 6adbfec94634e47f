#include "bindings/device_kernels.h"
#include "bindings/qk_arguments.h"

namespace golf {
namespace {

template <class... Parts>
void def(pybind11::module_& m, const char* name, QkArgs (*arguments)(Parts...),
         Status (*qk)(DType, const QkArgs&, Stream) noexcept) {
  m.def(name, [=](int32_t dtype, Parts... parts, int32_t device, uintptr_t stream) {
    run_on(device, [&] { return qk(dtype_of(dtype), arguments(parts...), stream_of(stream)); });
  });
}

}  // namespace

void bind_qk_kernels(pybind11::module_& m) {
  m.def("qk_partials", &qk_partials_device);
  def(m, "qk_forward", qk_forward_arguments, qk_forward_device);
  def(m, "qk_backward", qk_backward_arguments, qk_backward_device);
}

}  // namespace golf
