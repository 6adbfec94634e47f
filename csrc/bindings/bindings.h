// bindings/ is the only place that sees Python: one lambda each, the GIL released around the work.
// One bind_* function an operation folder; module.cpp calls them all. Tensors cross as addresses.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>

#include "golf.h"

namespace golf {

template <class T>
T* address(uintptr_t value) {
  return reinterpret_cast<T*>(value);
}

inline DType dtype_of(int32_t code) {
  if (code != static_cast<int32_t>(DType::kF32) && code != static_cast<int32_t>(DType::kBF16))
    throw std::invalid_argument("unknown element type code");
  return static_cast<DType>(code);
}

inline void check(Status status) {
  if (status != Status::kOk) throw std::invalid_argument("a native operation refused its sizes");
}

// Releases the GIL while fn() runs and turns its Status into an exception.
template <class Fn>
void run(const Fn& fn) {
  Status status;
  {
    pybind11::gil_scoped_release release;
    status = fn();
  }
  check(status);
}

void bind_activation(pybind11::module_& m);
void bind_attention(pybind11::module_& m);
void bind_bitpack(pybind11::module_& m);
void bind_bpe(pybind11::module_& m);
void bind_checksum(pybind11::module_& m);
void bind_device(pybind11::module_& m);
void bind_embed(pybind11::module_& m);
void bind_entropy(pybind11::module_& m);
void bind_head(pybind11::module_& m);
void bind_ngram(pybind11::module_& m);
void bind_norm(pybind11::module_& m);
void bind_optim(pybind11::module_& m);
void bind_qk(pybind11::module_& m);
void bind_quant(pybind11::module_& m);

}  // namespace golf
