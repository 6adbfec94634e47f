#include <array>

#include "bindings/optim_arguments.h"

namespace py = pybind11;

namespace golf {
namespace {

std::vector<OptimTensor> tensors_of(const py::list& rows) {
  std::vector<OptimTensor> tensors = optim_tensors(rows);
  number_chunks(tensors.data(), static_cast<int64_t>(tensors.size()));
  return tensors;
}

}  // namespace

void bind_optim(py::module_& m) {
  m.def("adamw_step", [](const py::list& rows, float beta1, float beta2, float eps, float grad_scale, float ema_rate,
                         float bias1, float bias2, int32_t threads) {
    const std::vector<OptimTensor> tensors = tensors_of(rows);
    const AdamStep step{beta1, beta2, eps, grad_scale, ema_rate, bias1, bias2};
    run([&] { return adamw_step(tensors.data(), static_cast<int64_t>(tensors.size()), step, threads); });
  });
  m.def("muon_momentum", [](const py::list& matrices, int64_t rows, int64_t columns, float momentum, bool row_norm,
                            float eps, int32_t bank_dtype, uintptr_t bank, uintptr_t row_scale, int32_t threads) {
    const std::vector<OptimTensor> tensors = tensors_of(matrices);
    run([&] {
      return muon_momentum(tensors.data(), static_cast<int64_t>(tensors.size()), rows, columns, momentum, row_norm, eps,
                           dtype_of(bank_dtype), address<void>(bank), address<float>(row_scale), threads);
    });
  });
  m.def("muon_apply", [](const py::list& rows, int32_t update_dtype, uintptr_t update, float factor, float ema_rate,
                         int32_t threads) {
    const std::vector<OptimTensor> tensors = tensors_of(rows);
    run([&] {
      return muon_apply(tensors.data(), static_cast<int64_t>(tensors.size()), dtype_of(update_dtype),
                        address<const void>(update), factor, ema_rate, threads);
    });
  });
  m.def("has_symmetric_product", [](int32_t dtype) { return has_symmetric_product(dtype_of(dtype)); });
  m.def("polynomial_workspace", [](int32_t dtype, int64_t count, int64_t rows, int64_t columns) {
    return polynomial_workspace(dtype_of(dtype), count, rows, columns);
  });
  m.def("newton_schulz_polynomial",
        [](int32_t dtype, uintptr_t x, uintptr_t square, uintptr_t out, const std::array<int64_t, 3>& shape,
           const std::array<int64_t, 3>& strides, const std::vector<float>& abc, uintptr_t packed, int32_t threads) {
          if (abc.size() != 3 && abc.size() != 6) throw std::invalid_argument("one or two steps of three coefficients");
          Polynomial p{dtype_of(dtype),
                       address<const void>(x),
                       address<void>(square),
                       address<void>(out),
                       shape[0],
                       shape[1],
                       shape[2],
                       strides[0],
                       strides[1],
                       strides[2],
                       static_cast<int32_t>(abc.size() / 3),
                       {}};
          for (int32_t i = 0; i < p.steps; ++i) p.step[i] = {abc[3 * i], abc[3 * i + 1], abc[3 * i + 2]};
          run([&] { return newton_schulz_polynomial(p, address<void>(packed), threads); });
        });
}

}  // namespace golf
