// Bindings of the kernels for GPUs, which exist twice: in golfcore._core.device, compiled by nvcc, and in
// golfcore._simt, where the same sources run on the host. One bind_*_kernels function an operation.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>

#include "bindings/bindings.h"
#include "device/runtime.h"

namespace golf {

inline Stream stream_of(uintptr_t stream) { return reinterpret_cast<Stream>(stream); }

// Selects the device and calls fn() without the GIL; a failure becomes an exception.
template <class Fn>
void run_on(int32_t device, const Fn& fn) {
  Status status;
  {
    pybind11::gil_scoped_release release;
    status = select_device(device);
    if (status == Status::kOk) status = fn();
  }
  if (status == Status::kCudaError) throw std::runtime_error(cuda_error());
  check(status);
}

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
  m.def("synchronize",
        [](int32_t device, uintptr_t stream) { run_on(device, [&] { return synchronize(stream_of(stream)); }); });
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
