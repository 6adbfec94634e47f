#include "bindings/device_kernels.h"
#include "bindings/optim_arguments.h"

namespace py = pybind11;

namespace golf {

void bind_optim_kernels(py::module_& m) {
  m.def("adamw_step", [](const py::list& rows, float beta1, float beta2, float eps, float grad_scale, float ema_rate,
                         float bias1, float bias2, int32_t device, uintptr_t stream) {
    const std::vector<OptimTensor> tensors = optim_tensors(rows);
    const AdamStep step{beta1, beta2, eps, grad_scale, ema_rate, bias1, bias2};
    run_on(device, [&] {
      return adamw_step_device(tensors.data(), static_cast<int64_t>(tensors.size()), step, stream_of(stream));
    });
  });
  m.def("muon_momentum",
        [](const py::list& matrices, int64_t rows, int64_t columns, float momentum, bool row_norm, float eps,
           int32_t bank_dtype, uintptr_t bank, uintptr_t norms2, int32_t device, uintptr_t stream) {
          if (dtype_of(bank_dtype) != DType::kBF16) throw std::invalid_argument("a bank on a GPU is bf16");
          const std::vector<OptimTensor> tensors = optim_tensors(matrices);
          run_on(device, [&] {
            return muon_momentum_device(tensors.data(), static_cast<int64_t>(tensors.size()), rows, columns, momentum,
                                        row_norm, eps, address<bf16>(bank), address<float>(norms2), stream_of(stream));
          });
        });
  m.def("muon_apply", [](const py::list& rows, int32_t update_dtype, uintptr_t update, float factor, float ema_rate,
                         int32_t device, uintptr_t stream) {
    if (dtype_of(update_dtype) != DType::kBF16) throw std::invalid_argument("an update on a GPU is bf16");
    const std::vector<OptimTensor> tensors = optim_tensors(rows);
    run_on(device, [&] {
      return muon_apply_device(tensors.data(), static_cast<int64_t>(tensors.size()), address<bf16>(update), factor,
                               ema_rate, stream_of(stream));
    });
  });
}

}  // namespace golf
