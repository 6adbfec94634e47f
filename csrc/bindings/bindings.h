// bindings/ is the only place that sees Python: one lambda each, the GIL released around the work.
// One bind_* function an operation folder; module.cpp calls them all.
#pragma once

#include <pybind11/pybind11.h>

namespace golf {

void bind_bpe(pybind11::module_& m);
void bind_checksum(pybind11::module_& m);
void bind_device(pybind11::module_& m);
void bind_entropy(pybind11::module_& m);

}  // namespace golf
