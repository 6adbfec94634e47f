#include "norm/norm.h"

#include <limits>

#include "bindings/places.h"

namespace golf {
namespace {

template <class Place>
void bind(pybind11::module_& m) {
  using Last = typename Place::Last;
  if constexpr (Place::kDevice) {
    m.def("norm_partials", &norm_partials_device);
    m.attr("norm_max_width") = kNormMaxWidthDevice;
  } else {
    m.def("norm_partials", &norm_chunks);
    m.attr("norm_max_width") = std::numeric_limits<int32_t>::max();
  }
  def<Place>(m, "norm_forward",
             [](Last last, int32_t dtype, int32_t branch_dtype, uintptr_t x, uintptr_t y, uintptr_t x0, uintptr_t a,
                uintptr_t s, uintptr_t b, uintptr_t r, uintptr_t h, uintptr_t rstd, int64_t n, int64_t d,
                int64_t x_stride, int64_t y_stride, int64_t x0_stride, float c, float eps) {
               NormForward args{};
               args.x = address<void>(x), args.y = address<void>(y), args.x0 = address<void>(x0);
               args.a = address<float>(a), args.s = address<float>(s), args.b = address<float>(b);
               args.r = address<void>(r), args.h = address<void>(h), args.rstd = address<float>(rstd);
               args.n = n, args.d = d, args.x_stride = x_stride, args.y_stride = y_stride, args.x0_stride = x0_stride;
               args.c = c, args.eps = eps;
               return GOLF_AT(Place, norm_forward)(dtype_of(dtype), dtype_of(branch_dtype), args, last);
             });
  def<Place>(m, "norm_backward",
             [](Last last, int32_t dtype, int32_t branch_dtype, uintptr_t dr, uintptr_t dh, uintptr_t r, uintptr_t rstd,
                uintptr_t x, uintptr_t y, uintptr_t x0, uintptr_t a, uintptr_t s, uintptr_t b, uintptr_t dx,
                uintptr_t dy, uintptr_t dx0, uintptr_t da, uintptr_t ds, uintptr_t db, uintptr_t partials, int64_t n,
                int64_t d, int64_t dr_stride, int64_t dh_stride, int64_t r_stride, int64_t x_stride, int64_t y_stride,
                int64_t x0_stride, float c) {
               NormBackward args{};
               args.dr = address<void>(dr), args.dh = address<void>(dh);
               args.r = address<void>(r), args.rstd = address<float>(rstd);
               args.x = address<void>(x), args.y = address<void>(y), args.x0 = address<void>(x0);
               args.a = address<float>(a), args.s = address<float>(s), args.b = address<float>(b);
               args.dx = address<void>(dx), args.dy = address<void>(dy), args.dx0 = address<void>(dx0);
               args.da = address<float>(da), args.ds = address<float>(ds), args.db = address<float>(db);
               args.partials = address<float>(partials);
               args.n = n, args.d = d, args.dr_stride = dr_stride, args.dh_stride = dh_stride, args.r_stride = r_stride;
               args.x_stride = x_stride, args.y_stride = y_stride, args.x0_stride = x0_stride, args.c = c;
               return GOLF_AT(Place, norm_backward)(dtype_of(dtype), dtype_of(branch_dtype), args, last);
             });
}

}  // namespace

GOLF_BIND(norm)

}  // namespace golf
