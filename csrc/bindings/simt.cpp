#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <vector>

#include "bindings/device_kernels.h"
#include "simt/device.h"
#include "simt/examples/examples.h"
#include "simt/runtime.h"

namespace py = pybind11;

namespace golf {
namespace {

const simt::Example* find_example(const std::string& name) {
  for (const simt::Examples& group : {simt::semantics(), simt::faulty(), simt::matrices()})
    for (int64_t i = 0; i < group.count; ++i)
      if (name == group.first[i].name) return group.first + i;
  throw std::invalid_argument("no example has this name");
}

std::vector<std::string> names_of(const simt::Examples& group) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < group.count; ++i) names.push_back(group.first[i].name);
  return names;
}

}  // namespace
}  // namespace golf

PYBIND11_MODULE(_simt, m) {
  using namespace golf;
  m.doc() = "The kernels for GPUs, run on the host; use it through golfcore.ops";
  m.def("set_schedule", &simt::set_schedule);
  m.def("map_buffer", [](uintptr_t p, size_t bytes) { simt::map_buffer(address<void>(p), bytes); });
  m.def("unmap_buffers", &simt::unmap_buffers);
  m.def("plan_error", [](const std::string& moment, int32_t code) {
    const bool select = moment == "select", launch = moment == "launch";
    if (!select && !launch && moment != "kernel") throw std::invalid_argument("expected select, launch or kernel");
    simt::plan_error(select ? simt::Moment::kSelect : launch ? simt::Moment::kLaunch : simt::Moment::kKernel, code);
  });
  m.def("forget_errors", &simt::forget_errors);
  m.def("record_launches", &simt::record_launches);
  m.def("take_launches", [] {
    py::list out;
    for (const simt::LaunchRecord& launch : simt::take_launches()) {
      py::dict row;
      row["kernel"] = simt::kernel_name(launch.source);
      row["file"] = launch.source.file;
      row["grid"] = py::make_tuple(launch.grid.x, launch.grid.y, launch.grid.z);
      row["block"] = py::make_tuple(launch.block.x, launch.block.y, launch.block.z);
      row["dynamic_shared"] = launch.dynamic_shared;
      out.append(row);
    }
    return out;
  });
  m.def("checks_every_access", &simt::checks_every_access);
  m.def("faulty_examples", [] { return names_of(simt::faulty()); });
  m.def("run_example", [](const std::string& name, const std::vector<uintptr_t>& buffers, int64_t n) {
    std::array<void*, 4> pointers{};
    if (buffers.size() > pointers.size()) throw std::invalid_argument("an example has at most 4 buffers");
    for (size_t i = 0; i < buffers.size(); ++i) pointers[i] = address<void>(buffers[i]);
    const simt::Example* example = find_example(name);
    run_on(0, [&] { return example->run(pointers.data(), n); });
  });
  bind_kernels(m);
}
