#include <limits>

#include "bindings/norm_arguments.h"

namespace golf {
namespace {

template <class Args, class... Parts>
void def(pybind11::module_& m, const char* name, Args (*arguments)(Parts...),
         Status (*norm)(DType, DType, const Args&, int32_t) noexcept) {
  m.def(name, [=](int32_t stream, int32_t branch, Parts... parts, int32_t threads) {
    run([&] { return norm(dtype_of(stream), dtype_of(branch), arguments(parts...), threads); });
  });
}

}  // namespace

void bind_norm(pybind11::module_& m) {
  m.def("norm_partials", &norm_chunks);
  m.attr("norm_max_width") = std::numeric_limits<int32_t>::max();
  def(m, "norm_forward", norm_forward_arguments, norm_forward);
  def(m, "norm_backward", norm_backward_arguments, norm_backward);
}

}  // namespace golf
