#include "optim/optim.h"
#include "optim/symmetric.h"
#include "vec.h"
#include "vec_math.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

// Five streams are more than the processor's own prefetchers follow well; this far ahead the memory keeps up.
GOLF_INLINE void prefetch(const void* p) { __builtin_prefetch(static_cast<const char*>(p) + 1024, 1); }

// The average and the copy of the new parameters.
template <bool kEma, bool kShadow>
GOLF_INLINE void store_parameter(const OptimTensor& t, int64_t i, V p, V ema_rate, int lanes, bool streamed) {
  store_lanes(t.p + i, p, lanes);
  if (kEma) {
    const V average = load_lanes(t.ema + i, lanes);
    store_lanes(t.ema + i, fma(ema_rate, sub(p, average), average), lanes);
  }
  if (kShadow && streamed && lanes == kLanes)
    stream(t.shadow + i, p);
  else if (kShadow)
    store_lanes(t.shadow + i, p, lanes);
}

template <bool kEma, bool kShadow, class G>
void adamw_range(const OptimTensor& t, Slice s, const AdamStep& a) {
  const G* gradient = static_cast<const G*>(t.g);
  const V rate1 = set1(1.0f - a.beta1), beta2 = set1(a.beta2), rate2 = set1(1.0f - a.beta2), eps = set1(a.eps);
  const V keep = set1(1.0f - t.lr * t.weight_decay), step = set1(t.lr / a.bias1);
  const V inverse_root = set1(1.0f / __builtin_sqrtf(a.bias2)), scale = set1(a.grad_scale), ema_rate = set1(a.ema_rate);
  const bool streamed = kShadow && can_stream(t.shadow + s.begin);
  for_lanes(s.end - s.begin, [&](int64_t j, int lanes) {
    const int64_t i = s.begin + j;
    prefetch(gradient + i), prefetch(t.p + i), prefetch(t.m + i), prefetch(t.v + i);
    if (kEma) prefetch(t.ema + i);
    const V g = mul(load_lanes(gradient + i, lanes), scale);
    const V m_old = load_lanes(t.m + i, lanes);
    const V m = fma(rate1, sub(g, m_old), m_old);
    const V v = fma(rate2, mul(g, g), mul(beta2, load_lanes(t.v + i, lanes)));
    store_lanes(t.m + i, m, lanes);
    store_lanes(t.v + i, v, lanes);
    const V quotient = div(m, fma(sqrt(v), inverse_root, eps));
    const V p = fnma(step, quotient, mul(load_lanes(t.p + i, lanes), keep));
    store_parameter<kEma, kShadow>(t, i, p, ema_rate, lanes, streamed);
  });
  if (streamed) finish_streams();
}

template <class G>
void adamw_of(const OptimTensor& t, Slice s, const AdamStep& a) {
  if (t.ema != nullptr)
    t.shadow != nullptr ? adamw_range<true, true, G>(t, s, a) : adamw_range<true, false, G>(t, s, a);
  else
    t.shadow != nullptr ? adamw_range<false, true, G>(t, s, a) : adamw_range<false, false, G>(t, s, a);
}

void adamw(const OptimTensor& t, Slice s, const AdamStep& a) {
  t.g_dtype == DType::kF32 ? adamw_of<float>(t, s, a) : adamw_of<bf16>(t, s, a);
}

template <class G>
void momentum_of(const OptimTensor& t, Slice s, int64_t columns, float momentum, float* norms2) {
  const V mu = set1(momentum);
  for (int64_t row = s.begin; row < s.end; ++row) {
    const G* g = static_cast<const G*>(t.g) + row * columns;
    float* m = t.m + row * columns;
    V total = zero();
    for_lanes(columns, [&](int64_t i, int lanes) {
      const V gradient = load_lanes(g + i, lanes);
      const V velocity = fma(mu, load_lanes(m + i, lanes), gradient);
      store_lanes(m + i, velocity, lanes);
      const V u = fma(mu, velocity, gradient);
      total = fma(u, u, total);
    });
    norms2[row] = sum(total);
  }
}

void momentum_rows(const OptimTensor& t, Slice s, int64_t columns, float momentum, float* norms2) {
  t.g_dtype == DType::kF32 ? momentum_of<float>(t, s, columns, momentum, norms2)
                           : momentum_of<bf16>(t, s, columns, momentum, norms2);
}

template <class G, class U>
void normalize_of(const OptimTensor& t, Slice s, int64_t columns, float momentum, const float* row_scale, U* out) {
  const V mu = set1(momentum);
  for (int64_t row = s.begin; row < s.end; ++row) {
    const G* g = static_cast<const G*>(t.g) + row * columns;
    const float* m = t.m + row * columns;
    const V scale = set1(row_scale[row]);
    for_lanes(columns, [&](int64_t i, int lanes) {
      const V u = fma(mu, load_lanes(m + i, lanes), load_lanes(g + i, lanes));
      store_lanes(out + row * columns + i, mul(u, scale), lanes);
    });
  }
}

template <class U>
void normalize(const OptimTensor& t, Slice s, int64_t columns, float momentum, const float* row_scale, void* out) {
  t.g_dtype == DType::kF32 ? normalize_of<float>(t, s, columns, momentum, row_scale, static_cast<U*>(out))
                           : normalize_of<bf16>(t, s, columns, momentum, row_scale, static_cast<U*>(out));
}

template <bool kEma, bool kShadow, class U>
void apply_range(const OptimTensor& t, Slice s, const U* update, float factor, float ema_rate) {
  const V keep = set1(1.0f - t.lr * t.weight_decay), lr = set1(t.lr * factor), rate = set1(ema_rate);
  for_lanes(s.end - s.begin, [&](int64_t j, int lanes) {
    const int64_t i = s.begin + j;
    const V p = fnma(lr, load_lanes(update + i, lanes), mul(load_lanes(t.p + i, lanes), keep));
    store_parameter<kEma, kShadow>(t, i, p, rate, lanes, false);
  });
}

template <class U>
void apply(const OptimTensor& t, Slice s, const void* updates, float factor, float ema_rate) {
  const U* update = static_cast<const U*>(updates);
  if (t.ema != nullptr)
    t.shadow != nullptr ? apply_range<true, true>(t, s, update, factor, ema_rate)
                        : apply_range<true, false>(t, s, update, factor, ema_rate);
  else
    t.shadow != nullptr ? apply_range<false, true>(t, s, update, factor, ema_rate)
                        : apply_range<false, false>(t, s, update, factor, ema_rate);
}

}  // namespace

const OptimKernels optim_kernels = {
    adamw,         momentum_rows, {normalize<float>, normalize<bf16>}, {apply<float>, apply<bf16>},
    kSymmetricF32, kSymmetricBF16};

}  // namespace GOLF_ISA_NS
}  // namespace golf
