#include "activation/activation.h"
#include "vec.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

// max(b, u) is u where u is NaN; with slope 0 the product would turn -inf into NaN, so zero stands in for it.
template <bool kLeaky>
GOLF_INLINE V leak(V u, V slope) {
  return max(kLeaky ? mul(u, slope) : zero(), u);
}

template <bool kLeaky, class T>
void forward_range(const T* u, T* y, int64_t n, V slope) {
  for_lanes(n, [&](int64_t i, int lanes) {
    const V a = leak<kLeaky>(load_lanes(u + i, lanes), slope);
    store_lanes(y + i, mul(a, a), lanes);
  });
}

template <class T>
void forward(const T* u, T* y, int64_t n, float slope) {
  return slope == 0 ? forward_range<false>(u, y, n, zero()) : forward_range<true>(u, y, n, set1(slope));
}

template <bool kLeaky, class T>
void backward_range(const T* u, const T* dy, T* du, int64_t n, V slope2) {
  for_lanes(n, [&](int64_t i, int lanes) {
    const V a = leak<kLeaky>(load_lanes(u + i, lanes), slope2);
    store_lanes(du + i, mul(add(a, a), load_lanes(dy + i, lanes)), lanes);
  });
}

template <class T>
void backward(const T* u, const T* dy, T* du, int64_t n, float slope) {
  return slope == 0 ? backward_range<false>(u, dy, du, n, zero())
                    : backward_range<true>(u, dy, du, n, set1(slope * slope));
}

}  // namespace

const ActivationKernels activation_kernels = {forward<float>, forward<bf16>, backward<float>, backward<bf16>};

}  // namespace GOLF_ISA_NS
}  // namespace golf
