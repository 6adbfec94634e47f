#include "norm/norm.h"
#include "vec.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

template <class T>
GOLF_INLINE const T* row(const void* base, int64_t i, int64_t stride) {
  return static_cast<const T*>(base) + i * stride;
}

// kTerms: which of y, (b, x0) and a there are, known at compile time so that the loop over a row has no branches.
enum : int { kHasY = 1, kHasX0 = 2, kHasA = 4 };

template <int kTerms, class S, class B>
GOLF_INLINE V mixed(const NormForward& args, const S* x, const B* y, const S* x0, int64_t i, int lanes) {
  V value = load_lanes(x + i, lanes);
  if (kTerms & kHasY) {
    const V branch = load_lanes(y + i, lanes);
    value = args.s != nullptr ? fma(load_lanes(args.s + i, lanes), branch, value) : add(value, branch);
  }
  if (kTerms & kHasA) value = mul(load_lanes(args.a + i, lanes), value);
  if (kTerms & kHasX0) value = fma(load_lanes(args.b + i, lanes), load_lanes(x0 + i, lanes), value);
  return value;
}

template <int kTerms, class S, class B>
void forward_rows(const NormForward& args, int64_t begin, int64_t end) {
  const int64_t d = args.d;
  for (int64_t t = begin; t < end; ++t) {
    const S* x = row<S>(args.x, t, args.x_stride);
    const B* y = row<B>(args.y, t, args.y_stride);
    const S* x0 = row<S>(args.x0, t, args.x0_stride);
    S* r = kTerms != 0 ? static_cast<S*>(args.r) + t * d : nullptr;
    V squares = zero(), squares1 = zero();  // two chains hide the latency of the additions
    bool odd = false;
    for_lanes(d, [&](int64_t i, int lanes) {
      V value = mixed<kTerms>(args, x, y, x0, i, lanes);
      if (kTerms != 0) {
        value = rounded<S>(value);
        store_lanes(r + i, value, lanes);
      }
      (odd ? squares1 : squares) = fma(value, value, odd ? squares1 : squares);
      odd = !odd;
    });
    if (args.h == nullptr) continue;
    const float rstd = 1.0f / root(sum(add(squares, squares1)) / static_cast<float>(d) + args.eps);
    args.rstd[t] = rstd;
    const V scale = set1(rstd * args.c);
    const S* from = kTerms != 0 ? r : x;
    B* h = static_cast<B*>(args.h) + t * d;
    for_lanes(d, [&](int64_t i, int lanes) { store_lanes(h + i, mul(load_lanes(from + i, lanes), scale), lanes); });
  }
}

template <class S, class B>
void forward(const NormForward& args, int64_t begin, int64_t end) {
  using Rows = void (*)(const NormForward&, int64_t, int64_t);
  constexpr Rows kRows[8] = {forward_rows<0, S, B>, forward_rows<1, S, B>, forward_rows<2, S, B>,
                             forward_rows<3, S, B>, forward_rows<4, S, B>, forward_rows<5, S, B>,
                             forward_rows<6, S, B>, forward_rows<7, S, B>};
  kRows[(args.y ? kHasY : 0) | (args.x0 ? kHasX0 : 0) | (args.a ? kHasA : 0)](args, begin, end);
}

template <class T>
GOLF_INLINE V load_or_zero(const T* p, int64_t i, int lanes) {
  return p != nullptr ? load_lanes(p + i, lanes) : zero();
}

GOLF_INLINE void accumulate(float* p, V a, V b, int lanes) { store_lanes(p, fma(a, b, load_lanes(p, lanes)), lanes); }

template <int kTerms, class S, class B>
void backward_rows(const NormBackward& args, int64_t begin, int64_t end, float* partials) {
  const int64_t d = args.d;
  float* da = partials;
  float* ds = partials + d;
  float* db = partials + 2 * d;
  if (partials != nullptr) for_lanes(3 * d, [&](int64_t i, int lanes) { store_lanes(partials + i, zero(), lanes); });
  for (int64_t t = begin; t < end; ++t) {
    const S* dr = args.dr ? row<S>(args.dr, t, args.dr_stride) : nullptr;
    const B* dh = args.dh ? row<B>(args.dh, t, args.dh_stride) : nullptr;
    const S* r = dh != nullptr ? row<S>(args.r, t, args.r_stride) : nullptr;
    const float rstd = dh != nullptr ? args.rstd[t] : 0.0f;
    V dots = zero();
    if (dh != nullptr)
      for_lanes(d,
                [&](int64_t i, int lanes) { dots = fma(load_lanes(dh + i, lanes), load_lanes(r + i, lanes), dots); });
    const V scale = set1(rstd * args.c);
    const V pull = set1(rstd * rstd * rstd * args.c * sum(dots) / static_cast<float>(d));
    for_lanes(d, [&](int64_t i, int lanes) {
      // Gradient of r: what comes along the stream, and what comes through the norm.
      V g = load_or_zero(dr, i, lanes);
      if (dh != nullptr) g = fnma(pull, load_lanes(r + i, lanes), fma(scale, load_lanes(dh + i, lanes), g));
      if (kTerms & kHasX0) {
        if (args.db) accumulate(db + i, g, load_lanes(row<S>(args.x0, t, args.x0_stride) + i, lanes), lanes);
        if (args.dx0) store_lanes(static_cast<S*>(args.dx0) + t * d + i, mul(load_lanes(args.b + i, lanes), g), lanes);
      }
      if (kTerms & kHasY) {
        const V branch = load_lanes(row<B>(args.y, t, args.y_stride) + i, lanes);
        const V s = args.s ? load_lanes(args.s + i, lanes) : set1(1.0f);
        if (kTerms & kHasA) {
          accumulate(da + i, g, fma(s, branch, load_lanes(row<S>(args.x, t, args.x_stride) + i, lanes)), lanes);
          g = mul(load_lanes(args.a + i, lanes), g);
        }
        if (args.ds) accumulate(ds + i, g, branch, lanes);
        if (args.dy) store_lanes(static_cast<B*>(args.dy) + t * d + i, mul(s, g), lanes);
      } else if (kTerms & kHasA) {
        accumulate(da + i, g, load_lanes(row<S>(args.x, t, args.x_stride) + i, lanes), lanes);
        g = mul(load_lanes(args.a + i, lanes), g);
      }
      if (args.dx) store_lanes(static_cast<S*>(args.dx) + t * d + i, g, lanes);
    });
  }
}

template <class S, class B>
void backward(const NormBackward& args, int64_t begin, int64_t end, float* partials) {
  using Rows = void (*)(const NormBackward&, int64_t, int64_t, float*);
  constexpr Rows kRows[8] = {backward_rows<0, S, B>, backward_rows<1, S, B>, backward_rows<2, S, B>,
                             backward_rows<3, S, B>, backward_rows<4, S, B>, backward_rows<5, S, B>,
                             backward_rows<6, S, B>, backward_rows<7, S, B>};
  kRows[(args.y ? kHasY : 0) | (args.x0 ? kHasX0 : 0) | (args.a ? kHasA : 0)](args, begin, end, partials);
}

}  // namespace

const NormKernels norm_kernels = {
    {forward<float, float>, forward<bf16, bf16>, forward<float, bf16>},
    {backward<float, float>, backward<bf16, bf16>, backward<float, bf16>},
};

}  // namespace GOLF_ISA_NS
}  // namespace golf
