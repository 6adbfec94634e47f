// A group of kLanes lanes takes a head; kCount neighboring numbers of it a lane. In packs (kCount 8) kLanes is chosen
// so that a head is read once; otherwise (kCount 1) a warp walks over it. A block works on `reps` tokens at a time, and
// a group always on the same heads, so that the gain's gradient has one owner and one order.
#include "device/column_sums.h"
#include "device/cuda.h"
#include "device/memory.h"
#include "device/reduce.h"
#include "device/types.h"
#include "qk/qk.h"

namespace golf {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxPartials = 528;  // blocks that leave sums behind: four a multiprocessor of an H100

// A head of a token: where its numbers lie and where its row of cos and sin starts.
template <class T>
struct Head {
  const T* x;
  const T* dy;
  T* out;
  int64_t table;
  float gain;
};

template <class T>
GOLF_DEVICE Head<T> head_of(const QkArgs& args, int64_t token, int64_t head) {
  const bool is_q = head < args.q.heads;
  const QkTensor& tensor = is_q ? args.q : args.k;
  const int64_t h = is_q ? head : head - args.q.heads, at = h * args.head_dim;
  const int64_t position = args.positions != nullptr ? args.positions[token] : token % args.length;
  return {static_cast<const T*>(tensor.x) + token * tensor.stride + at,
          static_cast<const T*>(tensor.dy) + token * tensor.dy_stride + at,
          static_cast<T*>(tensor.out) + (token * tensor.heads + h) * args.head_dim, position * args.half,
          is_q && args.gain != nullptr ? args.gain[h] : 1.0f};
}

// x at `at`, rotated: by the table's angles (kSign 1) or back (-1).
template <int kCount, int kSign, class T>
GOLF_DEVICE Floats<kCount> rotated(const QkArgs& args, const T* x, int64_t table, int64_t at) {
  Floats<kCount> value = load_floats<kCount>(x + at);
  if (at >= 2 * args.half) return value;
  const bool first = at < args.half;
  const int64_t angle = table + (first ? at : at - args.half);
  const Floats<kCount> other = load_floats<kCount>(x + (first ? at + args.half : at - args.half));
  const Floats<kCount> c = load_floats<kCount>(args.cos + angle), s = load_floats<kCount>(args.sin + angle);
  const float sign = first ? kSign : -kSign;
#pragma unroll
  for (int i = 0; i < kCount; ++i) value.at[i] = fmaf(sign * s.at[i], other.at[i], c.at[i] * value.at[i]);
  return value;
}

// Calls fn(unit, token, head) for the group's heads; all lanes of a warp go round together, `unit` is -1 for those that
// have nothing to do.
template <int kLanes, class Fn>
GOLF_DEVICE void for_heads(const QkArgs& args, int64_t reps, const Fn& fn) {
  const int64_t heads = args.q.heads + args.k.heads, units = reps * heads;
  const int64_t group = threadIdx.x / kLanes, groups = blockDim.x / kLanes;
  const int64_t warp_first = threadIdx.x / kWarpSize * (kWarpSize / kLanes);
  for (int64_t base = blockIdx.x * reps; base < args.tokens; base += gridDim.x * reps)
    for (int64_t turn = 0; warp_first + turn < units; turn += groups) {
      const int64_t unit = group + turn, token = base + unit / heads;
      fn(unit < units && token < args.tokens ? unit : -1, token, unit % heads);
    }
}

template <class T, int kCount, int kLanes>
GOLF_KERNEL(forward, kThreads, 4, QkArgs args, int64_t reps) {
  const int64_t lane = threadIdx.x % kLanes;
  for_heads<kLanes>(args, reps, [&](int64_t unit, int64_t token, int64_t index) {
    const bool active = unit >= 0;
    const Head<T> head = active ? head_of<T>(args, token, index) : Head<T>{};
    float squares = 0.0f;
    for (int64_t at = lane * kCount; active && at < args.head_dim; at += kLanes * kCount) {
      const Floats<kCount> x = load_floats<kCount>(head.x + at);
#pragma unroll
      for (int i = 0; i < kCount; ++i) squares = fmaf(x.at[i], x.at[i], squares);
    }
    squares = warp_sum<kLanes>(squares);
    const float scale = head.gain / sqrtf(squares / static_cast<float>(args.head_dim) + args.eps);
    for (int64_t at = lane * kCount; active && at < args.head_dim; at += kLanes * kCount) {
      Floats<kCount> y = rotated<kCount, 1>(args, head.x, head.table, at);
#pragma unroll
      for (int i = 0; i < kCount; ++i) y.at[i] *= scale;
      store_floats(head.out + at, y);
    }
  });
}

// With u the gradient turned back and m = mean(u x): dx = gain rstd (u - x rstd^2 m), dgain = rstd H m.
template <class T, int kCount, int kLanes>
GOLF_KERNEL(backward, kThreads, 3, QkArgs args, int64_t reps) {
  GOLF_DYNAMIC_SHARED(bytes);
  float* const sums = reinterpret_cast<float*>(bytes);  // [reps, heads], where there is a gain
  const int64_t lane = threadIdx.x % kLanes, heads = args.q.heads + args.k.heads, units = reps * heads;
  const bool summed = args.dgain != nullptr;
  for (int64_t unit = threadIdx.x / kLanes; summed && lane == 0 && unit < units; unit += blockDim.x / kLanes)
    sums[unit] = 0.0f;
  for_heads<kLanes>(args, reps, [&](int64_t unit, int64_t token, int64_t index) {
    const bool active = unit >= 0;
    const Head<T> head = active ? head_of<T>(args, token, index) : Head<T>{};
    float squares = 0.0f, dot = 0.0f;
    for (int64_t at = lane * kCount; active && at < args.head_dim; at += kLanes * kCount) {
      const Floats<kCount> x = load_floats<kCount>(head.x + at);
      const Floats<kCount> u = rotated<kCount, -1>(args, head.dy, head.table, at);
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        squares = fmaf(x.at[i], x.at[i], squares);
        dot = fmaf(x.at[i], u.at[i], dot);
      }
    }
    squares = warp_sum<kLanes>(squares);
    dot = warp_sum<kLanes>(dot);
    const float size = static_cast<float>(args.head_dim), rstd = 1.0f / sqrtf(squares / size + args.eps);
    const float scale = head.gain * rstd, pull = scale * rstd * rstd * dot / size;
    if (summed && active && lane == 0) sums[unit] += rstd * dot;
    for (int64_t at = lane * kCount; active && at < args.head_dim; at += kLanes * kCount) {
      const Floats<kCount> x = load_floats<kCount>(head.x + at);
      Floats<kCount> dx = rotated<kCount, -1>(args, head.dy, head.table, at);
#pragma unroll
      for (int i = 0; i < kCount; ++i) dx.at[i] = fmaf(-pull, x.at[i], scale * dx.at[i]);
      store_floats(head.out + at, dx);
    }
  });
  if (!summed) return;
  __syncthreads();
  for (int64_t head = threadIdx.x; head < args.q.heads; head += blockDim.x) {
    float total = 0.0f;
    for (int64_t rep = 0; rep < reps; ++rep) total += sums[rep * heads + head];
    args.partials[blockIdx.x * args.q.heads + head] = total;
  }
}

GOLF_KERNEL(add_partials, kSumThreads, 1, const float* partials, int64_t rows, int64_t columns, float* out) {
  const ColumnSum sum = column_sum(partials, rows, columns);
  if (sum.valid) out[sum.column] = sum.total;
}

int64_t partials_of(int64_t tokens) noexcept { return tokens < kMaxPartials ? tokens : kMaxPartials; }

// Tokens that a block works on at a time, and its threads: as many whole tokens as fit.
struct Shape {
  int64_t reps;
  unsigned threads;
};

Shape shape_of(const QkArgs& args, int64_t lanes) noexcept {
  const int64_t heads = args.q.heads + args.k.heads, groups = kThreads / lanes;
  const int64_t reps = heads < groups ? groups / heads : 1, wanted = reps * heads * lanes;
  const int64_t threads = wanted < kThreads ? (wanted + kWarpSize - 1) / kWarpSize * kWarpSize : kThreads;
  return {reps, static_cast<unsigned>(threads)};
}

template <class T, int kCount, int kLanes>
Status launch(const QkArgs& args, bool is_backward, Stream stream) noexcept {
  const Shape shape = shape_of(args, kLanes);
  const int64_t steps = (args.tokens + shape.reps - 1) / shape.reps;
  if (!is_backward)
    return GOLF_LAUNCH((forward<T, kCount, kLanes>), blocks_for(steps, 1), shape.threads, 0, stream, args, shape.reps);
  const int64_t blocks = args.dgain != nullptr ? partials_of(args.tokens) : blocks_for(steps, 1);
  const int64_t sums = args.dgain != nullptr ? shape.reps * (args.q.heads + args.k.heads) : 0;
  return GOLF_LAUNCH((backward<T, kCount, kLanes>), static_cast<unsigned>(blocks), shape.threads,
                     static_cast<size_t>(sums) * sizeof(float), stream, args, shape.reps);
}

template <class T>
bool packed(const QkArgs& args) noexcept {
  const auto fits = [](const QkTensor& t) {
    return aligned<16>(t.x, t.stride * int64_t{sizeof(T)}) && aligned<16>(t.dy, t.dy_stride * int64_t{sizeof(T)}) &&
           aligned<16>(t.out);
  };
  return args.head_dim % 8 == 0 && args.half % 8 == 0 && args.head_dim <= 256 && fits(args.q) && fits(args.k) &&
         aligned<16>(args.cos) && aligned<16>(args.sin);
}

template <class T>
Status run(const QkArgs& args, bool is_backward, Stream stream) noexcept {
  if (!packed<T>(args)) return launch<T, 1, 32>(args, is_backward, stream);
  if (args.head_dim <= 32) return launch<T, 8, 4>(args, is_backward, stream);
  if (args.head_dim <= 64) return launch<T, 8, 8>(args, is_backward, stream);
  if (args.head_dim <= 128) return launch<T, 8, 16>(args, is_backward, stream);
  return launch<T, 8, 32>(args, is_backward, stream);
}

bool valid(const QkArgs& args) noexcept {
  return args.length > 0 && args.half >= 0 && args.head_dim > 0 && 2 * args.half <= args.head_dim && args.tokens >= 0 &&
         args.q.heads > 0 && args.k.heads > 0 && args.q.heads + args.k.heads <= kQkMaxHeadsDevice &&
         (args.dgain == nullptr || args.partials != nullptr || args.tokens == 0);
}

}  // namespace

int64_t qk_partials_device(int64_t tokens) noexcept { return partials_of(tokens); }

Status qk_forward_device(DType dtype, const QkArgs& args, Stream stream) noexcept {
  if (!valid(args)) return Status::kInvalidArgument;
  if (args.tokens == 0) return Status::kOk;
  return dtype == DType::kF32 ? run<float>(args, false, stream) : run<bf16>(args, false, stream);
}

Status qk_backward_device(DType dtype, const QkArgs& args, Stream stream) noexcept {
  if (!valid(args)) return Status::kInvalidArgument;
  Status status = Status::kOk;
  if (args.tokens > 0) status = dtype == DType::kF32 ? run<float>(args, true, stream) : run<bf16>(args, true, stream);
  if (status != Status::kOk || args.dgain == nullptr) return status;
  return GOLF_LAUNCH(add_partials, column_sum_blocks(args.q.heads), kSumThreads, 0, stream,
                     static_cast<const float*>(args.partials), partials_of(args.tokens), args.q.heads, args.dgain);
}

}  // namespace golf
