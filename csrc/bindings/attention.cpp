#include "bindings/attention_arguments.h"

namespace golf {

using Address = uintptr_t;

void bind_attention(pybind11::module_& m) {
  m.def("attention_longest", [](Address cu_seqlens, int64_t documents, int64_t tokens) {
    return attention_longest(address<int32_t>(cu_seqlens), documents, tokens);
  });
  m.def("attention_scratch_bytes", [](int32_t dtype, const AttentionSizes& sizes, bool xsa, bool backward) {
    return attention_scratch_bytes(attention_arguments(dtype, sizes, xsa), backward);
  });
  m.def("attention_forward",
        [](int32_t dtype, int32_t gate_dtype, const AttentionSizes& sizes, const AttentionInputs& inputs,
           const AttentionSteps& steps, const AttentionOptions& options, Address out, Address y, Address lse,
           Address scratch, int32_t threads) {
          AttentionArgs args = attention_arguments(dtype, gate_dtype, sizes, inputs, steps, options);
          args.out = address<void>(out), args.y = address<void>(y), args.lse = address<float>(lse);
          run([&] { return attention_forward(args, address<void>(scratch), threads); });
        });
  m.def("attention_backward",
        [](int32_t dtype, int32_t gate_dtype, const AttentionSizes& sizes, const AttentionInputs& inputs,
           const AttentionSteps& steps, const AttentionOptions& options, Address out, Address lse, Address dy,
           Address dq, Address dk, Address dv, Address dgate, Address scratch, int32_t threads) {
          AttentionArgs args = attention_arguments(dtype, gate_dtype, sizes, inputs, steps, options);
          args.out = address<void>(out), args.lse = address<float>(lse), args.dy = address<void>(dy);
          args.dq = address<void>(dq), args.dk = address<void>(dk), args.dv = address<void>(dv);
          args.dgate = address<void>(dgate);
          run([&] { return attention_backward(args, address<void>(scratch), threads); });
        });
}

}  // namespace golf
