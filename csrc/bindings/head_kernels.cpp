#include "bindings/device_kernels.h"
#include "head/head.h"

namespace golf {

void bind_head_kernels(pybind11::module_& m) {
  m.attr("head_max_vocab") = kHeadMaxVocab;
  m.def("head_cross_entropy", [](int32_t dtype, uintptr_t z, uintptr_t targets, uintptr_t scale, uintptr_t losses,
                                 int64_t rows, int64_t vocab, float cap, int32_t device, uintptr_t stream) {
    run_on(device, [&] {
      return head_cross_entropy_device(dtype_of(dtype), address<void>(z), address<const int64_t>(targets),
                                       address<const float>(scale), address<float>(losses), rows, vocab, cap,
                                       stream_of(stream));
    });
  });
  m.def("head_accumulate", [](uintptr_t total, uintptr_t part, int64_t n, int32_t device, uintptr_t stream) {
    run_on(device, [&] {
      return head_accumulate_device(address<float>(total), address<const bf16>(part), n, stream_of(stream));
    });
  });
}

}  // namespace golf
