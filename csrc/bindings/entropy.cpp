#include "entropy/entropy.h"

#include <pybind11/numpy.h>

#include <stdexcept>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace golf {
namespace {

using namespace entropy;
using Shapes = py::array_t<uint64_t, py::array::c_style>;

struct Job {
  Job(const Shapes& shapes_N2, uint32_t bits, uint32_t trellis) : symbols{bits, trellis} {
    const uint64_t* p = shapes_N2.data();
    for (py::ssize_t i = 0; i < shapes_N2.size(); i += 2) {
      matrices.push_back({p[i], p[i + 1]});
      weights += p[i] * p[i + 1];
    }
  }
  Symbols symbols;
  std::vector<Matrix> matrices;
  uint64_t weights = 0;
};

struct View {
  explicit View(const py::bytes& bytes) {
    char* at = nullptr;
    Py_ssize_t n = 0;
    if (PyBytes_AsStringAndSize(bytes.ptr(), &at, &n) != 0) throw py::error_already_set();
    data = reinterpret_cast<const uint8_t*>(at);
    size = static_cast<size_t>(n);
  }
  const uint8_t* data;
  size_t size;
};

template <class Params, class Encode>
py::bytes encode(const py::bytes& raw, const Job& job, const Params& params, const Encode& run) {
  const View view(raw);
  if (view.size != job.weights) throw std::invalid_argument("the symbols do not fit the shapes");
  std::vector<uint8_t> coded;
  {
    const py::gil_scoped_release unlocked;
    coded = run(job.symbols, job.matrices, reinterpret_cast<const int8_t*>(view.data), params);
  }
  return py::bytes(reinterpret_cast<const char*>(coded.data()), coded.size());
}

template <class Params, class Decode>
py::bytes decode(const py::bytes& coded, const Job& job, const Params& params, const Decode& run) {
  const View view(coded);
  const py::bytes raw =
      py::reinterpret_steal<py::bytes>(PyBytes_FromStringAndSize(nullptr, static_cast<py::ssize_t>(job.weights)));
  if (!raw) throw py::error_already_set();
  int8_t* const to = reinterpret_cast<int8_t*>(PyBytes_AS_STRING(raw.ptr()));
  Fault fault;
  {
    const py::gil_scoped_release unlocked;
    fault = run(job.symbols, job.matrices, params, view.data, view.size, to);
  }
  if (fault != Fault::kNone) throw std::invalid_argument(fault_text(fault));
  return raw;
}

}  // namespace

void bind_entropy(py::module_& m) {
  m.attr("ENTROPY_MAX_LANES_LOG2") = kMaxLanesLog2;
  m.attr("ENTROPY_MAX_COLUMNS") = kMaxColumns;
  m.def("entropy_encode_static", [](const py::bytes& raw, const Shapes& shapes_N2, uint32_t bits, uint32_t trellis,
                                    uint32_t lanes_log2, uint32_t classes_log2) {
    return encode(raw, Job(shapes_N2, bits, trellis), StaticParams{lanes_log2, classes_log2}, encode_static);
  });
  m.def("entropy_decode_static", [](const py::bytes& coded, const Shapes& shapes_N2, uint32_t bits, uint32_t trellis,
                                    uint32_t lanes_log2, uint32_t classes_log2) {
    return decode(coded, Job(shapes_N2, bits, trellis), StaticParams{lanes_log2, classes_log2}, decode_static);
  });
  m.def("entropy_encode_adaptive", [](const py::bytes& raw, const Shapes& shapes_N2, uint32_t bits, uint32_t trellis,
                                      uint32_t lanes_log2, uint32_t prior_log2, uint32_t shift) {
    return encode(raw, Job(shapes_N2, bits, trellis), AdaptiveParams{lanes_log2, prior_log2, shift}, encode_adaptive);
  });
  m.def("entropy_decode_adaptive", [](const py::bytes& coded, const Shapes& shapes_N2, uint32_t bits, uint32_t trellis,
                                      uint32_t lanes_log2, uint32_t prior_log2, uint32_t shift) {
    return decode(coded, Job(shapes_N2, bits, trellis), AdaptiveParams{lanes_log2, prior_log2, shift}, decode_adaptive);
  });
  m.def("entropy_encode_binary", [](const py::bytes& raw, const Shapes& shapes_N2, uint32_t bits, uint32_t trellis,
                                    uint32_t lanes_log2, uint32_t prior_log2, uint32_t shift) {
    return encode(raw, Job(shapes_N2, bits, trellis), AdaptiveParams{lanes_log2, prior_log2, shift}, encode_binary);
  });
  m.def("entropy_decode_binary", [](const py::bytes& coded, const Shapes& shapes_N2, uint32_t bits, uint32_t trellis,
                                    uint32_t lanes_log2, uint32_t prior_log2, uint32_t shift) {
    return decode(coded, Job(shapes_N2, bits, trellis), AdaptiveParams{lanes_log2, prior_log2, shift}, decode_binary);
  });
}

}  // namespace golf
