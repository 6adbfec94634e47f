#include "qk/qk.h"
#include "vec.h"

// The instance for the usual head dimensions, fully or on 16 dimensions rotated, or the general one.
#define GOLF_QK_SHAPE(function, T, h, half)            \
  ((h) == 32 && (half) == 16    ? function<32, 16, T>  \
   : (h) == 32 && (half) == 8   ? function<32, 8, T>   \
   : (h) == 64 && (half) == 32  ? function<64, 32, T>  \
   : (h) == 64 && (half) == 8   ? function<64, 8, T>   \
   : (h) == 128 && (half) == 64 ? function<128, 64, T> \
   : (h) == 128 && (half) == 8  ? function<128, 8, T>  \
                                : function<0, 0, T>)

namespace golf {
namespace GOLF_ISA_NS {
namespace {

// kLanes heads at a time, whatever tokens they belong to, so that one vector holds a sum for each of them: the sums
// across lanes and the square roots would otherwise take longer than the memory does.
template <class T>
struct Group {
  const T* x[kLanes];
  const T* dy[kLanes];
  T* out[kLanes];
  int64_t table[kLanes];  // where the head's row of cos and sin starts
  int64_t head[kLanes];
  float gain[kLanes];
  int count;
};

// Walks the heads of tokens [begin, end) in order.
template <bool kBackward, class T>
struct Walk {
  const QkArgs& args;
  const QkTensor& tensor;
  const float* gain;
  const int64_t h, half, end;
  int64_t token, head = 0;

  // False at the end. A last group that is not full repeats its first head, so that loops over a group need no tests.
  bool next(Group<T>& group) {
    int n = 0;
    while (token < end && n < kLanes) {
      const int64_t position = args.positions != nullptr ? args.positions[token] : token % args.length;
      const T* x = static_cast<const T*>(tensor.x) + token * tensor.stride + head * h;
      const T* dy = kBackward ? static_cast<const T*>(tensor.dy) + token * tensor.dy_stride + head * h : nullptr;
      T* out = static_cast<T*>(tensor.out) + (token * tensor.heads + head) * h;
      for (; head < tensor.heads && n < kLanes; ++head, ++n, x += h, out += h) {
        group.x[n] = x;
        group.out[n] = out;
        group.table[n] = position * half;
        group.gain[n] = gain != nullptr ? gain[head] : 1.0f;
        if (!kBackward) continue;
        group.dy[n] = dy;
        group.head[n] = head;
        dy += h;
      }
      if (head < tensor.heads) continue;
      head = 0;
      ++token;
    }
    group.count = n;
    for (; n > 0 && n < kLanes; ++n) {
      group.x[n] = group.x[0];
      group.dy[n] = group.dy[0];
      group.table[n] = group.table[0];
      group.gain[n] = 0.0f;
    }
    return group.count > 0;
  }
};

// Asks for a row that a later group will read: the processor's own prefetch stops at every page.
template <class T>
GOLF_INLINE void prefetch_row(const T* p, int64_t n) {
  const char* bytes = reinterpret_cast<const char*>(p);
  for (int64_t i = 0; i < n * static_cast<int64_t>(sizeof(T)); i += 64) __builtin_prefetch(bytes + i);
}

GOLF_INLINE V rstd_of(const V (&squares)[kLanes], float inverse, float eps) {
  return div(set1(1.0f), sqrt(fma(sum_each(squares), set1(inverse), set1(eps))));
}

// kH and kHalf: the head dimension and R where they are usual ones, 0 for any.
template <int kH, int kHalf, class T>
void forward_tensor(const QkArgs& args, const QkTensor& tensor, const float* gain, int64_t begin, int64_t end) {
  const int64_t h = kH != 0 ? kH : args.head_dim, half = kH != 0 ? kHalf : args.half, rest = 2 * half;
  Walk<false, T> walk{args, tensor, gain, h, half, end, begin};
  Group<T> group{};
  const int64_t ahead = 2 * tensor.stride * kLanes / tensor.heads;
  while (walk.next(group)) {
    V squares[kLanes];
    for (int j = 0; j < kLanes; ++j) {
      prefetch_row(group.x[j] + ahead, h);
      V square = zero();
      for_lanes(h, [&](int64_t i, int lanes) {
        const V value = load_lanes(group.x[j] + i, lanes);
        square = fma(value, value, square);
      });
      squares[j] = square;
    }
    float scales[kLanes];
    store(scales, mul(rstd_of(squares, 1.0f / static_cast<float>(h), args.eps), load(group.gain)));
    for (int j = 0; j < group.count; ++j) {
      const T* x = group.x[j];
      T* y = group.out[j];
      const V scale = set1(scales[j]);
      for_lanes(half, [&](int64_t i, int lanes) {
        const V first = mul(scale, load_lanes(x + i, lanes)), second = mul(scale, load_lanes(x + half + i, lanes));
        const V c = load_lanes(args.cos + group.table[j] + i, lanes),
                s = load_lanes(args.sin + group.table[j] + i, lanes);
        store_lanes(y + i, fma(first, c, mul(second, s)), lanes);
        store_lanes(y + half + i, fnma(first, s, mul(second, c)), lanes);
      });
      for_lanes(h - rest, [&](int64_t i, int lanes) {
        store_lanes(y + rest + i, mul(scale, load_lanes(x + rest + i, lanes)), lanes);
      });
    }
  }
}

template <class T>
void forward(const QkArgs& args, int64_t begin, int64_t end) {
  const auto run = GOLF_QK_SHAPE(forward_tensor, T, args.head_dim, args.half);
  run(args, args.q, args.gain, begin, end);
  run(args, args.k, nullptr, begin, end);
}

// With u the gradient turned back (the rotation's transpose) and m = mean(u x):
//   dx = gain rstd (u - x rstd^2 m),  dgain = rstd H m.
template <int kH, int kHalf, class T>
void backward_tensor(const QkArgs& args, const QkTensor& tensor, const float* gain, int64_t begin, int64_t end,
                     float* dgain) {
  const int64_t h = kH != 0 ? kH : args.head_dim, half = kH != 0 ? kHalf : args.half, rest = 2 * half;
  const float inverse = 1.0f / static_cast<float>(h);
  Walk<true, T> walk{args, tensor, gain, h, half, end, begin};
  Group<T> group{};
  const int64_t ahead = 2 * tensor.stride * kLanes / tensor.heads;
  const int64_t ahead_dy = 2 * tensor.dy_stride * kLanes / tensor.heads;
  while (walk.next(group)) {
    V squares[kLanes], dots[kLanes];
    for (int j = 0; j < kLanes; ++j) {
      const T* x = group.x[j];
      const T* dy = group.dy[j];
      prefetch_row(x + ahead, h);
      prefetch_row(dy + ahead_dy, h);
      V square = zero(), dot = zero();
      for_lanes(half, [&](int64_t i, int lanes) {
        const V x1 = load_lanes(x + i, lanes), x2 = load_lanes(x + half + i, lanes);
        const V g1 = load_lanes(dy + i, lanes), g2 = load_lanes(dy + half + i, lanes);
        const V c = load_lanes(args.cos + group.table[j] + i, lanes),
                s = load_lanes(args.sin + group.table[j] + i, lanes);
        square = fma(x1, x1, fma(x2, x2, square));
        dot = fma(x1, fnma(g2, s, mul(g1, c)), fma(x2, fma(g1, s, mul(g2, c)), dot));
      });
      for_lanes(h - rest, [&](int64_t i, int lanes) {
        const V value = load_lanes(x + rest + i, lanes);
        square = fma(value, value, square);
        dot = fma(value, load_lanes(dy + rest + i, lanes), dot);
      });
      squares[j] = square;
      dots[j] = dot;
    }
    const V rstd = rstd_of(squares, inverse, args.eps), dot = sum_each(dots);
    const V scale = mul(rstd, load(group.gain));
    float scales[kLanes], pulls[kLanes], dgains[kLanes];
    store(scales, scale);
    store(pulls, mul(mul(scale, mul(rstd, rstd)), mul(dot, set1(inverse))));
    store(dgains, mul(rstd, dot));
    for (int j = 0; j < group.count; ++j) {
      const T* x = group.x[j];
      const T* dy = group.dy[j];
      T* dx = group.out[j];
      if (dgain != nullptr) dgain[group.head[j]] += dgains[j];
      const V a = set1(scales[j]), pull = set1(pulls[j]);
      for_lanes(half, [&](int64_t i, int lanes) {
        const V x1 = load_lanes(x + i, lanes), x2 = load_lanes(x + half + i, lanes);
        const V g1 = load_lanes(dy + i, lanes), g2 = load_lanes(dy + half + i, lanes);
        const V c = load_lanes(args.cos + group.table[j] + i, lanes),
                s = load_lanes(args.sin + group.table[j] + i, lanes);
        store_lanes(dx + i, fnma(pull, x1, mul(a, fnma(g2, s, mul(g1, c)))), lanes);
        store_lanes(dx + half + i, fnma(pull, x2, mul(a, fma(g1, s, mul(g2, c)))), lanes);
      });
      for_lanes(h - rest, [&](int64_t i, int lanes) {
        const V g = mul(a, load_lanes(dy + rest + i, lanes));
        store_lanes(dx + rest + i, fnma(pull, load_lanes(x + rest + i, lanes), g), lanes);
      });
    }
  }
}

template <class T>
void backward(const QkArgs& args, int64_t begin, int64_t end, float* partials) {
  if (partials != nullptr)
    for (int64_t head = 0; head < args.q.heads; ++head) partials[head] = 0.0f;
  const auto run = GOLF_QK_SHAPE(backward_tensor, T, args.head_dim, args.half);
  run(args, args.q, args.gain, begin, end, partials);
  run(args, args.k, nullptr, begin, end, nullptr);
}

}  // namespace

const QkKernels qk_kernels = {{forward<float>, forward<bf16>}, {backward<float>, backward<bf16>}};

}  // namespace GOLF_ISA_NS
}  // namespace golf
