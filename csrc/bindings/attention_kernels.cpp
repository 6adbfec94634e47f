#include "bindings/attention_arguments.h"
#include "bindings/device_kernels.h"

namespace golf {

using Address = uintptr_t;

void bind_attention_kernels(pybind11::module_& m) {
  m.def("attention_forward",
        [](int32_t dtype, int32_t gate_dtype, const AttentionSizes& sizes, const AttentionInputs& inputs,
           const AttentionSteps& steps, const AttentionOptions& options, Address out, Address y, Address lse,
           int32_t device, uintptr_t stream) {
          AttentionArgs args = attention_arguments(dtype, gate_dtype, sizes, inputs, steps, options);
          args.out = address<void>(out), args.y = address<void>(y), args.lse = address<float>(lse);
          run_on(device, [&] { return attention_forward_device(args, stream_of(stream)); });
        });
  m.def(
      "attention_backward",
      [](int32_t dtype, int32_t gate_dtype, const AttentionSizes& sizes, const AttentionInputs& inputs,
         const AttentionSteps& steps, const AttentionOptions& options, Address out, Address lse, Address dy, Address dq,
         Address dk, Address dv, Address dgate, Address dout, Address row_sums, int32_t device, uintptr_t stream) {
        AttentionArgs args = attention_arguments(dtype, gate_dtype, sizes, inputs, steps, options);
        args.out = address<void>(out), args.lse = address<float>(lse), args.dy = address<void>(dy);
        args.dq = address<void>(dq), args.dk = address<void>(dk), args.dv = address<void>(dv);
        args.dgate = address<void>(dgate), args.dout = address<void>(dout);
        args.row_sums = address<float>(row_sums);
        run_on(device, [&] { return attention_backward_device(args, stream_of(stream)); });
      });
}

}  // namespace golf
