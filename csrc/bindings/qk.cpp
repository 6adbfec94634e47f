#include "bindings/bindings.h"
#include "qk/layout.h"

namespace golf {

using Address = uintptr_t;

void bind_qk(pybind11::module_& m) {
  m.def("qk_chunks", &qk_chunks);
  m.def("qk_forward",
        [](int32_t dtype, Address q, Address k, Address q_out, Address k_out, Address cos, Address sin,
           Address positions, Address gain, int64_t tokens, int64_t length, int64_t q_heads, int64_t k_heads,
           int64_t head_dim, int64_t half, int64_t q_stride, int64_t k_stride, float eps, int32_t threads) {
          QkArgs args{};
          args.q = {address<void>(q), nullptr, address<void>(q_out), q_heads, q_stride, 0};
          args.k = {address<void>(k), nullptr, address<void>(k_out), k_heads, k_stride, 0};
          args.cos = address<float>(cos), args.sin = address<float>(sin);
          args.positions = address<int32_t>(positions), args.gain = address<float>(gain);
          args.tokens = tokens, args.length = length, args.head_dim = head_dim, args.half = half, args.eps = eps;
          run([&] { return qk_forward(dtype_of(dtype), args, threads); });
        });
  m.def("qk_backward",
        [](int32_t dtype, Address q, Address k, Address dq_out, Address dk_out, Address dq, Address dk, Address cos,
           Address sin, Address positions, Address gain, Address dgain, Address partials, int64_t tokens,
           int64_t length, int64_t q_heads, int64_t k_heads, int64_t head_dim, int64_t half, int64_t q_stride,
           int64_t k_stride, int64_t dq_out_stride, int64_t dk_out_stride, float eps, int32_t threads) {
          QkArgs args{};
          args.q = {address<void>(q), address<void>(dq_out), address<void>(dq), q_heads, q_stride, dq_out_stride};
          args.k = {address<void>(k), address<void>(dk_out), address<void>(dk), k_heads, k_stride, dk_out_stride};
          args.cos = address<float>(cos), args.sin = address<float>(sin);
          args.positions = address<int32_t>(positions), args.gain = address<float>(gain);
          args.dgain = address<float>(dgain), args.partials = address<float>(partials);
          args.tokens = tokens, args.length = length, args.head_dim = head_dim, args.half = half, args.eps = eps;
          run([&] { return qk_backward(dtype_of(dtype), args, threads); });
        });
}

}  // namespace golf
