#include "bindings/device_kernels.h"
#include "bindings/norm_arguments.h"

namespace golf {
namespace {

template <class Args, class... Parts>
void def(pybind11::module_& m, const char* name, Args (*arguments)(Parts...),
         Status (*norm)(DType, DType, const Args&, Stream) noexcept) {
  m.def(name, [=](int32_t type, int32_t branch, Parts... parts, int32_t device, uintptr_t stream) {
    run_on(device, [&] { return norm(dtype_of(type), dtype_of(branch), arguments(parts...), stream_of(stream)); });
  });
}

}  // namespace

void bind_norm_kernels(pybind11::module_& m) {
  m.def("norm_partials", &norm_partials_device);
  m.attr("norm_max_width") = kNormMaxWidthDevice;
  def(m, "norm_forward", norm_forward_arguments, norm_forward_device);
  def(m, "norm_backward", norm_backward_arguments, norm_backward_device);
}

}  // namespace golf
