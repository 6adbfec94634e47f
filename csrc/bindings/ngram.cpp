#include <pybind11/numpy.h>

#include <memory>
#include <stdexcept>

#include "bindings/bindings.h"
#include "ngram/mixture.h"

namespace py = pybind11;

namespace golf {
namespace {

using Ids = py::array_t<uint16_t, py::array::c_style>;
using Floats = py::array_t<float, py::array::c_style>;

class CheckedMixture {
 public:
  explicit CheckedMixture(const ngram::Options& options) : mixture_(options), vocab_(options.vocab) {}

  void learn(const Ids& tokens) {
    require(tokens);
    const py::gil_scoped_release release;
    for (py::ssize_t i = 0; i < tokens.size(); ++i) mixture_.learn(tokens.data()[i]);
  }

  Floats distribution(const Floats& p_V, float top_log_p, uint16_t top) {
    if (p_V.size() != vocab_) throw std::invalid_argument("p has another length than the vocabulary");
    Floats mixed_V(p_V.size());
    mixture_.distribution(p_V.data(), {top_log_p, top}, mixed_V.mutable_data());
    return mixed_V;
  }

  py::array_t<double> score(const Ids& targets, const Floats& log_p, const Floats& top_log_p, const Ids& top) {
    require(targets);
    if (log_p.size() != targets.size() || top_log_p.size() != targets.size() || top.size() != targets.size())
      throw std::invalid_argument("targets, log_p, top_log_p and top differ in length");
    py::array_t<double> losses(targets.size());
    double* const out = losses.mutable_data();
    const py::gil_scoped_release release;
    mixture_.score(targets.data(), log_p.data(), top_log_p.data(), top.data(), targets.size(), out);
    return losses;
  }

  int64_t learned() const { return mixture_.learned(); }

 private:
  void require(const Ids& tokens) const {
    for (py::ssize_t i = 0; i < tokens.size(); ++i)
      if (tokens.data()[i] >= vocab_) throw py::index_error("an id outside the vocabulary");
  }

  ngram::Mixture mixture_;
  py::ssize_t vocab_;
};

}  // namespace

void bind_ngram(py::module_& m) {
  m.attr("NGRAM_MAX_ORDER") = ngram::kMaxOrder;
  py::class_<CheckedMixture>(m, "NgramMixture")
      .def(py::init([](int32_t vocab, int32_t order, int32_t bos, uint32_t max_contexts, float rate, float bias) {
        if (vocab < 1 || vocab > 65536 || order < 1 || order > ngram::kMaxOrder || max_contexts < 1 ||
            max_contexts > (1u << 28))
          throw std::invalid_argument("vocab, order or max_contexts is out of range");
        return std::make_unique<CheckedMixture>(ngram::Options{vocab, order, bos, max_contexts, rate, bias});
      }))
      .def("learn", &CheckedMixture::learn)
      .def("distribution", &CheckedMixture::distribution)
      .def("score", &CheckedMixture::score)
      .def("learned", &CheckedMixture::learned);
}

}  // namespace golf
