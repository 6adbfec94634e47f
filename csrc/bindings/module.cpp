#include "bindings/bindings.h"
#include "golf.h"
#include "parallel.h"

namespace py = pybind11;

PYBIND11_MODULE(_core, m) {
  m.doc() = "golfcore's compiled core; use it through golfcore.ops, golfcore.tokenizer and golfcore.artifact";
  m.attr("commit") = GOLF_COMMIT;
  m.attr("has_cuda") = static_cast<bool>(GOLF_CUDA);
  m.attr("cuda_reason") = GOLF_CUDA_REASON;
  m.attr("cuda_images") = GOLF_CUDA_IMAGES;  // "80-real 90a-real 90-virtual"; empty without CUDA
  // This architecture's, lowest first.
  m.def("isas", [] {
    py::tuple names(golf::kIsaCount);
    for (int32_t i = 0; i < golf::kIsaCount; ++i) names[i] = golf::isa_name(static_cast<golf::Isa>(i));
    return names;
  });
  m.def("active_isa", [] { return golf::isa_name(golf::active_isa()); });
  m.def("detected_isa", [] { return golf::isa_name(golf::detected_isa()); });
  m.def("set_isa", [](const char* name) {
    golf::Isa isa;
    if (!golf::isa_from_name(name, &isa)) throw std::invalid_argument("no instruction set has this name");
    golf::set_isa(isa);
  });
  m.def("borrow_openmp",
        [](uintptr_t parallel) { golf::borrow_openmp(reinterpret_cast<golf::OpenMpParallel>(parallel)); });
  golf::bind_activation(m);
  golf::bind_attention(m);
  golf::bind_bitpack(m);
  golf::bind_bpe(m);
  golf::bind_checksum(m);
  golf::bind_device(m);
  golf::bind_embed(m);
  golf::bind_entropy(m);
  golf::bind_head(m);
  golf::bind_ngram(m);
  golf::bind_norm(m);
  golf::bind_optim(m);
  golf::bind_qk(m);
  golf::bind_quant(m);
}
