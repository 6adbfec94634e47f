// Bindings of the operations that have kernels for GPUs too. A file csrc/bindings/<op>.cpp says once, in bind<Place>(),
// what Python sees of them, and is compiled for each module that needs it:
//   golfcore._core         Cpu: the last argument of a kernel is the number of threads
//   golfcore._core.device  Gpu: the last ones are the device and its stream; where nvcc is
//   golfcore._simt         Gpu again, and no Cpu: the kernels for GPUs run on the host
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>

#include "bindings/bindings.h"
#include "device/runtime.h"

namespace golf {

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

// def(m, name, kernel): binds Status kernel(Last, parts...), which Python calls with the parts and then the place.
struct Cpu {
  static constexpr bool kDevice = false;
  using Last = int32_t;  // threads

  template <class Kernel, class... Parts>
  static void def(pybind11::module_& m, const char* name, Kernel kernel, Status (Kernel::*)(Last, Parts...) const) {
    m.def(name, [=](Parts... parts, int32_t threads) { run([&] { return kernel(threads, parts...); }); });
  }
};

struct Gpu {
  static constexpr bool kDevice = true;
  using Last = Stream;

  template <class Kernel, class... Parts>
  static void def(pybind11::module_& m, const char* name, Kernel kernel, Status (Kernel::*)(Last, Parts...) const) {
    m.def(name, [=](Parts... parts, int32_t device, uintptr_t stream) {
      run_on(device, [&] { return kernel(reinterpret_cast<Stream>(stream), parts...); });
    });
  }
};

template <class Place, class Kernel>
void def(pybind11::module_& m, const char* name, const Kernel& kernel) {
  Place::def(m, name, kernel, &Kernel::operator());
}

}  // namespace golf

// name(...) or name_device(...), by Place; the other is not even referred to, for its module lacks it.
#define GOLF_AT(Place, name)              \
  [](auto&&... arguments) {               \
    if constexpr (Place::kDevice)         \
      return name##_device(arguments...); \
    else                                  \
      return name(arguments...);          \
  }

// bind_<op>() and bind_<op>_kernels(), as far as the module has them, from the file's bind<Place>().
#if GOLF_SIMT
#define GOLF_BIND(op) \
  void bind_##op##_kernels(pybind11::module_& m) { bind<Gpu>(m); }
#elif GOLF_CUDA
#define GOLF_BIND(op)                                    \
  void bind_##op(pybind11::module_& m) { bind<Cpu>(m); } \
  void bind_##op##_kernels(pybind11::module_& m) { bind<Gpu>(m); }
#else
#define GOLF_BIND(op) \
  void bind_##op(pybind11::module_& m) { bind<Cpu>(m); }
#endif
