#include "attention/attention.h"

#include <pybind11/stl.h>

#include <array>
#include <tuple>

#include "bindings/places.h"

namespace golf {
namespace {

using Address = uintptr_t;
using Sizes = std::array<int64_t, 8>;     // batch, tokens, heads, kv_heads, head_dim, window, documents, longest
using Inputs = std::array<Address, 5>;    // q, k, v, gate, cu_seqlens
using Steps = std::array<int64_t, 9>;     // strides of q, k and v: batch, token, head
using Options = std::tuple<float, bool>;  // scale, xsa

AttentionArgs arguments(int32_t dtype, const Sizes& sizes, bool xsa) {
  AttentionArgs args{};
  args.dtype = dtype_of(dtype);
  args.batch = sizes[0], args.tokens = sizes[1];
  args.heads = static_cast<int32_t>(sizes[2]), args.kv_heads = static_cast<int32_t>(sizes[3]);
  args.head_dim = static_cast<int32_t>(sizes[4]);
  args.window = sizes[5], args.documents = sizes[6], args.longest = sizes[7];
  args.xsa = xsa;
  return args;
}

AttentionArgs arguments(int32_t dtype, int32_t gate_dtype, const Sizes& sizes, const Inputs& inputs, const Steps& steps,
                        const Options& options) {
  AttentionArgs args = arguments(dtype, sizes, std::get<1>(options));
  args.scale = std::get<0>(options);
  args.gate_dtype = dtype_of(gate_dtype);
  args.q = address<void>(inputs[0]), args.k = address<void>(inputs[1]), args.v = address<void>(inputs[2]);
  args.gate = address<void>(inputs[3]), args.cu_seqlens = address<int32_t>(inputs[4]);
  args.q_strides = {steps[0], steps[1], steps[2]};
  args.k_strides = {steps[3], steps[4], steps[5]};
  args.v_strides = {steps[6], steps[7], steps[8]};
  return args;
}

AttentionArgs with_outputs(AttentionArgs args, Address out, Address y, Address lse) {
  args.out = address<void>(out), args.y = address<void>(y), args.lse = address<float>(lse);
  return args;
}

AttentionArgs with_gradients(AttentionArgs args, Address out, Address lse, Address dy, Address dq, Address dk,
                             Address dv, Address dgate) {
  args.out = address<void>(out), args.lse = address<float>(lse), args.dy = address<void>(dy);
  args.dq = address<void>(dq), args.dk = address<void>(dk), args.dv = address<void>(dv);
  args.dgate = address<void>(dgate);
  return args;
}

// Scratch is the processor's, dout and row_sums are the GPU's: so neither function is the same for both.
template <class Place>
void bind(pybind11::module_& m) {
  if constexpr (Place::kDevice) {
    def<Place>(m, "attention_forward",
               [](Stream stream, int32_t dtype, int32_t gate_dtype, const Sizes& sizes, const Inputs& inputs,
                  const Steps& steps, const Options& options, Address out, Address y, Address lse) {
                 return attention_forward_device(
                     with_outputs(arguments(dtype, gate_dtype, sizes, inputs, steps, options), out, y, lse), stream);
               });
    def<Place>(m, "attention_backward",
               [](Stream stream, int32_t dtype, int32_t gate_dtype, const Sizes& sizes, const Inputs& inputs,
                  const Steps& steps, const Options& options, Address out, Address lse, Address dy, Address dq,
                  Address dk, Address dv, Address dgate, Address dout, Address row_sums) {
                 AttentionArgs args = with_gradients(arguments(dtype, gate_dtype, sizes, inputs, steps, options), out,
                                                     lse, dy, dq, dk, dv, dgate);
                 args.dout = address<void>(dout), args.row_sums = address<float>(row_sums);
                 return attention_backward_device(args, stream);
               });
  } else {
    m.def("attention_longest", [](Address cu_seqlens, int64_t documents, int64_t tokens) {
      return attention_longest(address<int32_t>(cu_seqlens), documents, tokens);
    });
    m.def("attention_scratch_bytes", [](int32_t dtype, const Sizes& sizes, bool xsa, bool backward) {
      return attention_scratch_bytes(arguments(dtype, sizes, xsa), backward);
    });
    def<Place>(m, "attention_forward",
               [](int32_t threads, int32_t dtype, int32_t gate_dtype, const Sizes& sizes, const Inputs& inputs,
                  const Steps& steps, const Options& options, Address out, Address y, Address lse, Address scratch) {
                 return attention_forward(
                     with_outputs(arguments(dtype, gate_dtype, sizes, inputs, steps, options), out, y, lse),
                     address<void>(scratch), threads);
               });
    def<Place>(m, "attention_backward",
               [](int32_t threads, int32_t dtype, int32_t gate_dtype, const Sizes& sizes, const Inputs& inputs,
                  const Steps& steps, const Options& options, Address out, Address lse, Address dy, Address dq,
                  Address dk, Address dv, Address dgate, Address scratch) {
                 return attention_backward(with_gradients(arguments(dtype, gate_dtype, sizes, inputs, steps, options),
                                                          out, lse, dy, dq, dk, dv, dgate),
                                           address<void>(scratch), threads);
               });
  }
}

}  // namespace

GOLF_BIND(attention)

}  // namespace golf
