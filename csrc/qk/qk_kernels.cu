// A group of kLanes lanes takes a head; kCount neighboring numbers of it a lane. In packs (kCount 8) kLanes is chosen
// so that a head is read once; otherwise (kCount 1) a warp walks over it. A block works on `reps` tokens at a time, and
// a group always on the same heads, so that the gain's gradient has one owner and one order.
#include <algorithm>

#include "device/column_sums.h"
#include "device/cuda.h"
#include "device/division.h"
#include "device/memory.h"
#include "device/reduce.h"
#include "device/types.h"
#include "qk/qk.h"

namespace golf {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxPartials = 528;  // blocks that leave sums behind: four a multiprocessor of an H100

// How a launch walks: `reps` tokens at a time, each of `heads` heads. Tokens, places in a row of heads and positions
// have 32 bits, their places in memory 64.
struct Walk {
  Division heads, length;
  uint32_t tokens, reps, head_dim, half;
  float per_dim;  // 1 / head_dim
};

// A head of a token: where its numbers lie and where its row of cos and sin starts.
template <class T>
struct Head {
  const T* x;
  const T* dy;
  T* out;
  const float *cos, *sin;
  float gain;
};

GOLF_DEVICE int64_t wide(uint32_t a, int64_t b) { return int64_t{static_cast<int32_t>(a)} * static_cast<int32_t>(b); }

template <class T>
GOLF_DEVICE Head<T> head_of(const QkArgs& args, const Walk& walk, uint32_t token, uint32_t head) {
  const uint32_t q_heads = static_cast<uint32_t>(args.q.heads);
  const bool is_q = head < q_heads;
  const QkTensor& tensor = is_q ? args.q : args.k;
  const uint32_t h = is_q ? head : head - q_heads, at = h * walk.head_dim;
  const uint32_t position =
      args.positions != nullptr ? static_cast<uint32_t>(args.positions[token]) : remainder(token, walk.length);
  const int64_t angle = wide(position, walk.half);
  return {static_cast<const T*>(tensor.x) + wide(token, tensor.stride) + at,
          static_cast<const T*>(tensor.dy) + wide(token, tensor.dy_stride) + at,
          static_cast<T*>(tensor.out) + wide(token, static_cast<int32_t>(tensor.heads) * walk.head_dim) + at,
          args.cos + angle,
          args.sin + angle,
          is_q && args.gain != nullptr ? args.gain[h] : 1.0f};
}

// `value`, the numbers of x at `at`, rotated: by the table's angles (kSign 1) or back (-1).
template <int kCount, int kSign, class T>
GOLF_DEVICE Floats<kCount> rotated(const Head<T>& head, const T* x, Floats<kCount> value, uint32_t at, uint32_t half) {
  if (at >= 2 * half) return value;
  const bool first = at < half;
  const uint32_t angle = first ? at : at - half;
  const Floats<kCount> other = load_floats<kCount>(x + (first ? at + half : angle));
  const Floats<kCount> c = load_floats<kCount>(head.cos + angle), s = load_floats<kCount>(head.sin + angle);
  const float sign = first ? kSign : -kSign;
#pragma unroll
  for (int i = 0; i < kCount; ++i) value.at[i] = fmaf(sign * s.at[i], other.at[i], c.at[i] * value.at[i]);
  return value;
}

// Calls fn(unit, token, head) for the group's heads; all lanes of a warp go round together, `unit` is -1 for those that
// have nothing to do.
template <int kLanes, class Fn>
GOLF_DEVICE void for_heads(const Walk& walk, const Fn& fn) {
  const uint32_t units = walk.reps * walk.heads.divisor, group = threadIdx.x / kLanes, groups = blockDim.x / kLanes;
  const uint32_t warp_first = threadIdx.x / kWarpSize * (kWarpSize / kLanes);
  for (uint32_t base = blockIdx.x * walk.reps; base < walk.tokens; base += gridDim.x * walk.reps)
    for (uint32_t turn = 0; warp_first + turn < units; turn += groups) {
      const uint32_t unit = group + turn, rep = quotient(unit, walk.heads), token = base + rep;
      fn(unit < units && token < walk.tokens ? static_cast<int>(unit) : -1, token, unit - rep * walk.heads.divisor);
    }
}

// What follows `at` for a lane: in packs nothing, since a head takes one turn; the second loop over its numbers then
// finds them in registers.
template <int kCount, int kLanes>
GOLF_DEVICE uint32_t next(const Walk& walk, uint32_t at) {
  return kCount == 1 ? at + kLanes : walk.head_dim;
}

template <class T, int kCount, int kLanes>
GOLF_KERNEL(forward, kThreads, 4, QkArgs args, Walk walk) {
  const uint32_t lane = threadIdx.x % kLanes;
  for_heads<kLanes>(walk, [&](int unit, uint32_t token, uint32_t index) {
    const bool active = unit >= 0;
    const Head<T> head = active ? head_of<T>(args, walk, token, index) : Head<T>{};
    Floats<kCount> x{};
    float squares = 0.0f;
    for (uint32_t at = lane * kCount; active && at < walk.head_dim; at = next<kCount, kLanes>(walk, at)) {
      x = load_floats<kCount>(head.x + at);
#pragma unroll
      for (int i = 0; i < kCount; ++i) squares = fmaf(x.at[i], x.at[i], squares);
    }
    squares = warp_sum<kLanes>(squares);
    const float scale = head.gain * rsqrtf(fmaf(squares, walk.per_dim, args.eps));
    for (uint32_t at = lane * kCount; active && at < walk.head_dim; at = next<kCount, kLanes>(walk, at)) {
      if (kCount == 1) x = load_floats<kCount>(head.x + at);
      Floats<kCount> y = rotated<kCount, 1>(head, head.x, x, at, walk.half);
#pragma unroll
      for (int i = 0; i < kCount; ++i) y.at[i] *= scale;
      store_floats(head.out + at, y);
    }
  });
}

// With u the gradient turned back and m = mean(u x): dx = gain rstd (u - x rstd^2 m), dgain = rstd H m.
template <class T, int kCount, int kLanes>
GOLF_KERNEL(backward, kThreads, 3, QkArgs args, Walk walk) {
  GOLF_DYNAMIC_SHARED(bytes);
  float* const sums = reinterpret_cast<float*>(bytes);  // [reps, heads], where there is a gain
  const uint32_t lane = threadIdx.x % kLanes, heads = walk.heads.divisor, units = walk.reps * heads;
  const bool summed = args.dgain != nullptr;
  for (uint32_t unit = threadIdx.x / kLanes; summed && lane == 0 && unit < units; unit += blockDim.x / kLanes)
    sums[unit] = 0.0f;
  for_heads<kLanes>(walk, [&](int unit, uint32_t token, uint32_t index) {
    const bool active = unit >= 0;
    const Head<T> head = active ? head_of<T>(args, walk, token, index) : Head<T>{};
    Floats<kCount> x{}, u{};
    float squares = 0.0f, dot = 0.0f;
    for (uint32_t at = lane * kCount; active && at < walk.head_dim; at = next<kCount, kLanes>(walk, at)) {
      x = load_floats<kCount>(head.x + at);
      u = rotated<kCount, -1>(head, head.dy, load_floats<kCount>(head.dy + at), at, walk.half);
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        squares = fmaf(x.at[i], x.at[i], squares);
        dot = fmaf(x.at[i], u.at[i], dot);
      }
    }
    squares = warp_sum<kLanes>(squares);
    dot = warp_sum<kLanes>(dot);
    const float rstd = rsqrtf(fmaf(squares, walk.per_dim, args.eps));
    const float scale = head.gain * rstd, pull = scale * rstd * rstd * (dot * walk.per_dim);
    if (summed && active && lane == 0) sums[unit] += rstd * dot;
    for (uint32_t at = lane * kCount; active && at < walk.head_dim; at = next<kCount, kLanes>(walk, at)) {
      if (kCount == 1) {
        x = load_floats<kCount>(head.x + at);
        u = rotated<kCount, -1>(head, head.dy, load_floats<kCount>(head.dy + at), at, walk.half);
      }
      Floats<kCount> dx;
#pragma unroll
      for (int i = 0; i < kCount; ++i) dx.at[i] = fmaf(-pull, x.at[i], scale * u.at[i]);
      store_floats(head.out + at, dx);
    }
  });
  if (!summed) return;
  __syncthreads();
  for (uint32_t head = threadIdx.x; head < args.q.heads; head += blockDim.x) {
    float total = 0.0f;
    for (uint32_t rep = 0; rep < walk.reps; ++rep) total += sums[rep * heads + head];
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
  const Walk walk{division_by(args.q.heads + args.k.heads), division_by(args.length),
                  static_cast<uint32_t>(args.tokens),       static_cast<uint32_t>(shape.reps),
                  static_cast<uint32_t>(args.head_dim),     static_cast<uint32_t>(args.half),
                  1.0f / static_cast<float>(args.head_dim)};
  const int64_t steps = (args.tokens + shape.reps - 1) / shape.reps;
  if (!is_backward)
    return GOLF_LAUNCH((forward<T, kCount, kLanes>), blocks_for(steps, 1), shape.threads, 0, stream, args, walk);
  const int64_t blocks = args.dgain != nullptr ? partials_of(args.tokens) : blocks_for(steps, 1);
  const int64_t sums = args.dgain != nullptr ? shape.reps * (args.q.heads + args.k.heads) : 0;
  return GOLF_LAUNCH((backward<T, kCount, kLanes>), static_cast<unsigned>(blocks), shape.threads,
                     static_cast<size_t>(sums) * sizeof(float), stream, args, walk);
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
         args.tokens <= INT32_MAX && args.length <= INT32_MAX && args.head_dim <= INT32_MAX / kQkMaxHeadsDevice &&
         std::max({args.q.stride, args.q.dy_stride, args.k.stride, args.k.dy_stride}) <= INT32_MAX &&
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
