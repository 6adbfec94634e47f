#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "bindings/bindings.h"
#include "device/probe.h"

namespace py = pybind11;

namespace golf {

#if GOLF_CUDA
namespace {
// By reference: the callee writes `why` while the argument list is still being evaluated.
void check_cuda(Status status, const char* const& why) {
  if (status != Status::kOk) throw std::runtime_error(why != nullptr ? why : "invalid argument");
}
}  // namespace

void bind_device(py::module_& m) {
  m.def("cuda_devices", [] {
    int32_t count = 0;
    const char* why = nullptr;
    check_cuda(cuda_device_count(&count, &why), why);
    py::list out;
    for (int32_t i = 0; i < count; ++i) {
      DeviceInfo info{};
      check_cuda(cuda_device_info(i, &info, &why), why);
      py::dict row;
      row["name"] = std::string(info.name);
      row["capability"] = py::make_tuple(info.major, info.minor);
      row["multiprocessors"] = info.multiprocessors;
      row["memory_bytes"] = info.memory_bytes;
      out.append(row);
    }
    return out;
  });
  m.def("cuda_fill_f32", [](uintptr_t out, int64_t n, float value, int32_t device, uintptr_t stream) {
    const char* why = nullptr;
    check_cuda(cuda_fill_f32(reinterpret_cast<float*>(out), n, value, device, reinterpret_cast<void*>(stream), &why),
               why);
  });
}
#else
void bind_device(py::module_& m) {
  m.def("cuda_devices", []() -> py::list { throw std::runtime_error("golfcore was built without CUDA"); });
}
#endif

}  // namespace golf
