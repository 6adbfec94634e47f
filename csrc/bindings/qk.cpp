#include "qk/qk.h"

#include "bindings/places.h"

namespace golf {
namespace {

template <class Place>
void bind(pybind11::module_& m) {
  using Last = typename Place::Last;
  if constexpr (Place::kDevice)
    m.def("qk_partials", &qk_partials_device);
  else
    m.def("qk_partials", &qk_chunks);
  def<Place>(m, "qk_forward",
             [](Last last, int32_t dtype, uintptr_t q, uintptr_t k, uintptr_t q_out, uintptr_t k_out, uintptr_t cos,
                uintptr_t sin, uintptr_t positions, uintptr_t gain, int64_t tokens, int64_t length, int64_t q_heads,
                int64_t k_heads, int64_t head_dim, int64_t half, int64_t q_stride, int64_t k_stride, float eps) {
               QkArgs args{};
               args.q = {address<void>(q), nullptr, address<void>(q_out), q_heads, q_stride, 0};
               args.k = {address<void>(k), nullptr, address<void>(k_out), k_heads, k_stride, 0};
               args.cos = address<float>(cos), args.sin = address<float>(sin);
               args.positions = address<int32_t>(positions), args.gain = address<float>(gain);
               args.tokens = tokens, args.length = length, args.head_dim = head_dim, args.half = half, args.eps = eps;
               return GOLF_AT(Place, qk_forward)(dtype_of(dtype), args, last);
             });
  def<Place>(
      m, "qk_backward",
      [](Last last, int32_t dtype, uintptr_t q, uintptr_t k, uintptr_t dq_out, uintptr_t dk_out, uintptr_t dq,
         uintptr_t dk, uintptr_t cos, uintptr_t sin, uintptr_t positions, uintptr_t gain, uintptr_t dgain,
         uintptr_t partials, int64_t tokens, int64_t length, int64_t q_heads, int64_t k_heads, int64_t head_dim,
         int64_t half, int64_t q_stride, int64_t k_stride, int64_t dq_out_stride, int64_t dk_out_stride, float eps) {
        QkArgs args{};
        args.q = {address<void>(q), address<void>(dq_out), address<void>(dq), q_heads, q_stride, dq_out_stride};
        args.k = {address<void>(k), address<void>(dk_out), address<void>(dk), k_heads, k_stride, dk_out_stride};
        args.cos = address<float>(cos), args.sin = address<float>(sin);
        args.positions = address<int32_t>(positions), args.gain = address<float>(gain);
        args.dgain = address<float>(dgain), args.partials = address<float>(partials);
        args.tokens = tokens, args.length = length, args.head_dim = head_dim, args.half = half, args.eps = eps;
        return GOLF_AT(Place, qk_backward)(dtype_of(dtype), args, last);
      });
}

}  // namespace

GOLF_BIND(qk)

}  // namespace golf
