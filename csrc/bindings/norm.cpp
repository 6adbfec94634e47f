#include "bindings/bindings.h"
#include "norm/layout.h"

namespace golf {

using Address = uintptr_t;

void bind_norm(pybind11::module_& m) {
  m.def("norm_chunks", &norm_chunks);
  m.def("norm_forward", [](int32_t stream, int32_t branch, Address x, Address y, Address x0, Address a, Address s,
                           Address b, Address r, Address h, Address rstd, int64_t n, int64_t d, int64_t x_stride,
                           int64_t y_stride, int64_t x0_stride, float c, float eps, int32_t threads) {
    NormForward args{};
    args.x = address<void>(x), args.y = address<void>(y), args.x0 = address<void>(x0);
    args.a = address<float>(a), args.s = address<float>(s), args.b = address<float>(b);
    args.r = address<void>(r), args.h = address<void>(h), args.rstd = address<float>(rstd);
    args.n = n, args.d = d, args.x_stride = x_stride, args.y_stride = y_stride, args.x0_stride = x0_stride;
    args.c = c, args.eps = eps;
    run([&] { return norm_forward(dtype_of(stream), dtype_of(branch), args, threads); });
  });
  m.def("norm_backward",
        [](int32_t stream, int32_t branch, Address dr, Address dh, Address r, Address rstd, Address x, Address y,
           Address x0, Address a, Address s, Address b, Address dx, Address dy, Address dx0, Address da, Address ds,
           Address db, Address partials, int64_t n, int64_t d, int64_t dr_stride, int64_t dh_stride, int64_t r_stride,
           int64_t x_stride, int64_t y_stride, int64_t x0_stride, float c, int32_t threads) {
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
          run([&] { return norm_backward(dtype_of(stream), dtype_of(branch), args, threads); });
        });
}

}  // namespace golf
