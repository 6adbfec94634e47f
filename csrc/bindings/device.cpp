#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "bindings/bindings.h"

#if GOLF_CUDA

#include "bindings/device_kernels.h"
#include "device/errors.h"
#include "device/probe.h"

namespace py = pybind11;

namespace golf {
namespace {

void check_cuda(Status status) {
  if (status != Status::kOk) throw std::runtime_error(status == Status::kCudaError ? cuda_error() : "invalid argument");
}

DeviceInfo info_of(int32_t device) {
  DeviceInfo info{};
  check_cuda(cuda_device_info(device, &info));
  return info;
}

// Why kernels cannot run there; empty where they can.
std::string why_not(int32_t device) {
  try {
    const DeviceInfo info = info_of(device);
    if (info.major < 8)
      return "compute capability " + std::to_string(info.major) + "." + std::to_string(info.minor) +
             "; golfcore's kernels need 8.0 (A100) or later";
    check_cuda(cuda_find_image(device));
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

void bind_device(py::module_& m) {
  m.def("cuda_versions", [] {
    const CudaVersions found = cuda_versions();
    return py::make_tuple(found.driver, found.toolkit);
  });
  m.def("driver_trouble", [] {
    char text[192];
    const CudaVersions found = cuda_versions();
    describe_driver(text, sizeof text, found.driver, found.toolkit);
    return std::string(text);
  });
  m.def("cuda_devices", [] {
    int32_t count = 0;
    check_cuda(cuda_device_count(&count));
    py::list out;
    for (int32_t i = 0; i < count; ++i) {
      const DeviceInfo info = info_of(i);
      py::dict row;
      row["name"] = std::string(info.name);
      row["capability"] = py::make_tuple(info.major, info.minor);
      row["multiprocessors"] = info.multiprocessors;
      row["memory_bytes"] = info.memory_bytes;
      out.append(row);
    }
    return out;
  });
  py::module_ device = m.def_submodule("device", "kernels for GPUs");
  device.def("why_not", &why_not);
  device.def("fill_f32", [](uintptr_t out, int64_t n, float value, int32_t index, uintptr_t stream) {
    run_on(index, [&] { return cuda_fill_f32(address<float>(out), n, value, reinterpret_cast<Stream>(stream)); });
  });
  bind_kernels(device);
}

}  // namespace golf

#else

namespace golf {

void bind_device(pybind11::module_& m) {
  m.def("driver_trouble", []() -> std::string { return "golfcore was built without CUDA"; });
  m.def("cuda_devices", []() -> pybind11::list { throw std::runtime_error("golfcore was built without CUDA"); });
}

}  // namespace golf

#endif
