// From Python's rows to the optimizers' tensors, for the processor's and the GPU's bindings alike.
#pragma once

#include <pybind11/stl.h>

#include <vector>

#include "bindings/bindings.h"
#include "optim/optim.h"

namespace golf {

// Of Python's tuples (p, g, m, v, ema, shadow, n, lr, weight_decay, dtype of g); 0 for what is absent.
inline std::vector<OptimTensor> optim_tensors(const pybind11::list& rows) {
  std::vector<OptimTensor> tensors;
  tensors.reserve(rows.size());
  for (const pybind11::handle& item : rows) {
    const pybind11::tuple row = pybind11::cast<pybind11::tuple>(item);
    const auto at = [&](size_t i) { return row[i].cast<uintptr_t>(); };
    tensors.push_back({address<float>(at(0)), address<const void>(at(1)), address<float>(at(2)), address<float>(at(3)),
                       address<float>(at(4)), address<bf16>(at(5)), row[6].cast<int64_t>(), row[7].cast<float>(),
                       row[8].cast<float>(), dtype_of(row[9].cast<int32_t>()), 0});
  }
  return tensors;
}

}  // namespace golf
