#include "checksum/checksum.h"

#include "bindings/bindings.h"

namespace py = pybind11;

namespace golf {
namespace {

// A view of bytes, bytearray or a contiguous memoryview; it keeps the exporter's buffer alive while it lives.
class Bytes {
 public:
  explicit Bytes(const py::object& object) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) throw py::error_already_set();
  }
  ~Bytes() { PyBuffer_Release(&view_); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  const uint8_t* data() const { return static_cast<const uint8_t*>(view_.buf); }
  size_t size() const { return static_cast<size_t>(view_.len); }

 private:
  Py_buffer view_{};
};

}  // namespace

void bind_checksum(py::module_& m) {
  m.def(
      "crc32c",
      [](const py::object& object, uint32_t value) {
        const Bytes bytes(object);
        const py::gil_scoped_release unlocked;
        return crc32c(value, bytes.data(), bytes.size());
      },
      py::arg("data"), py::arg("value") = 0);
  m.def(
      "xxh64",
      [](const py::object& object, uint64_t seed) {
        const Bytes bytes(object);
        const py::gil_scoped_release unlocked;
        return xxh64(bytes.data(), bytes.size(), seed);
      },
      py::arg("data"), py::arg("seed") = 0);
}

}  // namespace golf
