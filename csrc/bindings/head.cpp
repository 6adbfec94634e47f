#include "head/head.h"

#include "bindings/bindings.h"

namespace golf {

void bind_head(pybind11::module_& m) {
  m.attr("head_max_vocab") = kHeadMaxVocab;
  m.def("head_cross_entropy", [](int32_t dtype, uintptr_t z, uintptr_t targets, uintptr_t scale, uintptr_t losses,
                                 int64_t rows, int64_t vocab, float cap, int32_t threads) {
    run([&] {
      return head_cross_entropy(dtype_of(dtype), address<void>(z), address<const int64_t>(targets),
                                address<const float>(scale), address<float>(losses), rows, vocab, cap, threads);
    });
  });
  m.def("head_accumulate", [](uintptr_t total, uintptr_t part, int64_t n, int32_t threads) {
    run([&] { return head_accumulate(address<float>(total), address<const bf16>(part), n, threads); });
  });
}

}  // namespace golf
