// All kernels for GPUs in one module: golfcore._core.device or golfcore._simt.
#pragma once

#include "bindings/places.h"

namespace golf {

void bind_activation_kernels(pybind11::module_& m);
void bind_attention_kernels(pybind11::module_& m);
void bind_bitpack_kernels(pybind11::module_& m);
void bind_embed_kernels(pybind11::module_& m);
void bind_head_kernels(pybind11::module_& m);
void bind_norm_kernels(pybind11::module_& m);
void bind_optim_kernels(pybind11::module_& m);
void bind_qk_kernels(pybind11::module_& m);

inline void bind_kernels(pybind11::module_& m) {
  m.def("device_lost", &device_lost);
  m.def("synchronize", [](int32_t device, uintptr_t stream) {
    run_on(device, [&] { return synchronize(reinterpret_cast<Stream>(stream)); });
  });
  bind_activation_kernels(m);
  bind_attention_kernels(m);
  bind_bitpack_kernels(m);
  bind_embed_kernels(m);
  bind_head_kernels(m);
  bind_norm_kernels(m);
  bind_optim_kernels(m);
  bind_qk_kernels(m);
}

}  // namespace golf
