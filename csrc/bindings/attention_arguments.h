// From Python's addresses and sizes to attention's arguments, for the processor's and the GPU's bindings alike.
#pragma once

#include <pybind11/stl.h>

#include <array>
#include <tuple>

#include "attention/attention.h"
#include "bindings/bindings.h"

namespace golf {

using AttentionSizes = std::array<int64_t, 8>;  // batch, tokens, heads, kv_heads, head_dim, window, documents, longest
using AttentionInputs = std::array<uintptr_t, 5>;  // q, k, v, gate, cu_seqlens
using AttentionSteps = std::array<int64_t, 9>;     // strides of q, k and v: batch, token, head
using AttentionOptions = std::tuple<float, bool>;  // scale, xsa

inline AttentionArgs attention_arguments(int32_t dtype, const AttentionSizes& sizes, bool xsa) {
  AttentionArgs args{};
  args.dtype = dtype_of(dtype);
  args.batch = sizes[0], args.tokens = sizes[1];
  args.heads = static_cast<int32_t>(sizes[2]), args.kv_heads = static_cast<int32_t>(sizes[3]);
  args.head_dim = static_cast<int32_t>(sizes[4]);
  args.window = sizes[5], args.documents = sizes[6], args.longest = sizes[7];
  args.xsa = xsa;
  return args;
}

inline AttentionArgs attention_arguments(int32_t dtype, int32_t gate_dtype, const AttentionSizes& sizes,
                                         const AttentionInputs& inputs, const AttentionSteps& steps,
                                         const AttentionOptions& options) {
  AttentionArgs args = attention_arguments(dtype, sizes, std::get<1>(options));
  args.scale = std::get<0>(options);
  args.gate_dtype = dtype_of(gate_dtype);
  args.q = address<void>(inputs[0]), args.k = address<void>(inputs[1]), args.v = address<void>(inputs[2]);
  args.gate = address<void>(inputs[3]), args.cu_seqlens = address<int32_t>(inputs[4]);
  args.q_strides = {steps[0], steps[1], steps[2]};
  args.k_strides = {steps[3], steps[4], steps[5]};
  args.v_strides = {steps[6], steps[7], steps[8]};
  return args;
}

}  // namespace golf
