#include "qk/layout.h"
#include "vec.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

struct Table {
  const float* cos;
  const float* sin;
};

GOLF_INLINE Table table_at(const QkArgs& args, int64_t token) {
  const int64_t position = args.positions != nullptr ? args.positions[token] : token % args.length;
  return {args.cos + position * args.half, args.sin + position * args.half};
}

template <class T>
void forward_tensor(const QkArgs& args, const QkTensor& tensor, const float* gain, int64_t token) {
  const int64_t h = args.head_dim, half = args.half;
  const Table table = table_at(args, token);
  const T* x = static_cast<const T*>(tensor.x) + token * tensor.stride;
  T* y = static_cast<T*>(tensor.out) + token * tensor.heads * h;
  for (int64_t head = 0; head < tensor.heads; ++head, x += h, y += h) {
    V squares = zero();
    for_lanes(h, [&](int64_t i, int lanes) {
      const V value = load_lanes(x + i, lanes);
      squares = fma(value, value, squares);
    });
    const float rstd = 1.0f / root(sum(squares) / static_cast<float>(h) + args.eps);
    const V scale = set1(gain != nullptr ? rstd * gain[head] : rstd);
    for_lanes(half, [&](int64_t i, int lanes) {
      const V first = mul(scale, load_lanes(x + i, lanes)), second = mul(scale, load_lanes(x + half + i, lanes));
      const V c = load_lanes(table.cos + i, lanes), s = load_lanes(table.sin + i, lanes);
      store_lanes(y + i, fma(first, c, mul(second, s)), lanes);
      store_lanes(y + half + i, fnma(first, s, mul(second, c)), lanes);
    });
    const int64_t rest = 2 * half;
    for_lanes(h - rest, [&](int64_t i, int lanes) {
      store_lanes(y + rest + i, mul(scale, load_lanes(x + rest + i, lanes)), lanes);
    });
  }
}

template <class T>
void forward(const QkArgs& args, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    forward_tensor<T>(args, args.q, args.gain, token);
    forward_tensor<T>(args, args.k, nullptr, token);
  }
}

// With u the gradient turned back (the rotation's transpose) and m = mean(u x):
//   dx = gain rstd (u - x rstd^2 m),  dgain = rstd H m.
template <class T>
void backward_tensor(const QkArgs& args, const QkTensor& tensor, const float* gain, int64_t token, float* dgain) {
  const int64_t h = args.head_dim, half = args.half, rest = 2 * half;
  const Table table = table_at(args, token);
  const T* x = static_cast<const T*>(tensor.x) + token * tensor.stride;
  const T* dy = static_cast<const T*>(tensor.dy) + token * tensor.dy_stride;
  T* dx = static_cast<T*>(tensor.out) + token * tensor.heads * h;
  for (int64_t head = 0; head < tensor.heads; ++head, x += h, dy += h, dx += h) {
    V squares = zero(), dots = zero();
    for_lanes(half, [&](int64_t i, int lanes) {
      const V x1 = load_lanes(x + i, lanes), x2 = load_lanes(x + half + i, lanes);
      const V g1 = load_lanes(dy + i, lanes), g2 = load_lanes(dy + half + i, lanes);
      const V c = load_lanes(table.cos + i, lanes), s = load_lanes(table.sin + i, lanes);
      squares = fma(x1, x1, fma(x2, x2, squares));
      dots = fma(x1, fnma(g2, s, mul(g1, c)), fma(x2, fma(g1, s, mul(g2, c)), dots));
    });
    for_lanes(h - rest, [&](int64_t i, int lanes) {
      const V value = load_lanes(x + rest + i, lanes);
      squares = fma(value, value, squares);
      dots = fma(value, load_lanes(dy + rest + i, lanes), dots);
    });
    const float rstd = 1.0f / root(sum(squares) / static_cast<float>(h) + args.eps);
    const float dot = sum(dots);
    if (dgain != nullptr) dgain[head] += rstd * dot;
    const float factor = gain != nullptr ? rstd * gain[head] : rstd;
    const V scale = set1(factor);
    const V pull = set1(factor * rstd * rstd * dot / static_cast<float>(h));
    for_lanes(half, [&](int64_t i, int lanes) {
      const V x1 = load_lanes(x + i, lanes), x2 = load_lanes(x + half + i, lanes);
      const V g1 = load_lanes(dy + i, lanes), g2 = load_lanes(dy + half + i, lanes);
      const V c = load_lanes(table.cos + i, lanes), s = load_lanes(table.sin + i, lanes);
      store_lanes(dx + i, fnma(pull, x1, mul(scale, fnma(g2, s, mul(g1, c)))), lanes);
      store_lanes(dx + half + i, fnma(pull, x2, mul(scale, fma(g1, s, mul(g2, c)))), lanes);
    });
    for_lanes(h - rest, [&](int64_t i, int lanes) {
      const V g = mul(scale, load_lanes(dy + rest + i, lanes));
      store_lanes(dx + rest + i, fnma(pull, load_lanes(x + rest + i, lanes), g), lanes);
    });
  }
}

template <class T>
void backward(const QkArgs& args, int64_t begin, int64_t end, float* partials) {
  if (partials != nullptr)
    for (int64_t head = 0; head < args.q.heads; ++head) partials[head] = 0.0f;
  for (int64_t token = begin; token < end; ++token) {
    backward_tensor<T>(args, args.q, args.gain, token, partials);
    backward_tensor<T>(args, args.k, nullptr, token, nullptr);
  }
}

}  // namespace

const QkKernels qk_kernels = {{forward<float>, forward<bf16>}, {backward<float>, backward<bf16>}};

}  // namespace GOLF_ISA_NS
}  // namespace golf
