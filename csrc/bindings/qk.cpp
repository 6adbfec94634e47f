#include "bindings/qk_arguments.h"

namespace golf {
namespace {

template <class... Parts>
void def(pybind11::module_& m, const char* name, QkArgs (*arguments)(Parts...),
         Status (*qk)(DType, const QkArgs&, int32_t) noexcept) {
  m.def(name, [=](int32_t dtype, Parts... parts, int32_t threads) {
    run([&] { return qk(dtype_of(dtype), arguments(parts...), threads); });
  });
}

}  // namespace

void bind_qk(pybind11::module_& m) {
  m.def("qk_partials", &qk_chunks);
  def(m, "qk_forward", qk_forward_arguments, qk_forward);
  def(m, "qk_backward", qk_backward_arguments, qk_backward);
}

}  // namespace golf
