// A block takes a row of logits. kPacks > 0: each thread keeps kPacks packs of kCount neighboring logits in registers,
// so that memory is read and written once; 0: any vocabulary, with logits read again where they are needed again.
#include "device/cuda.h"
#include "device/math.h"
#include "device/memory.h"
#include "device/reduce.h"
#include "device/types.h"
#include "head/head.h"

namespace golf {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;
constexpr float kNoShift = 64.0f;  // up to this cap exponentials need no shift: 2^16 e^64 is far below f32's end

struct Capped {
  float y, slope;  // slope = dy / dz
};

// Logits in bf16 are off by up to 2^-9 of themselves. The fast functions add 2e-7 of the cap, which is more for those
// below a 10,000th of it only, and there still next to nothing in the loss.
template <class T>
GOLF_DEVICE float exp_of(float x) {
  return sizeof(T) == 2 ? exp2_fast(x * kLog2E) : expf(x);
}

template <class T>
GOLF_DEVICE Capped capped(float z, float cap, float inverse) {
  if (!(cap > 0.0f)) return {z, 1.0f};
  const float t = sizeof(T) == 2 ? tanh_fast(z * inverse) : tanh_rational(z * inverse);
  return {cap * t, fmaf(-t, t, 1.0f)};
}

struct Rows {
  const int64_t* targets;
  const float* scale;  // null: losses alone
  float* losses;
  int64_t vocab;
  float cap;
};

// The thread's part of a row, pack by pack: fn(pack of logits, as numbers). After the first call packs come from
// registers where kPacks allows it, as the last fn left them.
template <class T, int kCount, int kPacks>
struct Part {
  T* logits;
  int64_t vocab;
  Floats<kCount> kept[kPacks > 0 ? kPacks : 1];
  bool loaded = false;

  GOLF_DEVICE Part(T* logits_, int64_t vocab_) : logits(logits_), vocab(vocab_) {}

  template <class Fn>
  GOLF_DEVICE void for_packs(const Fn& fn) {
    const int64_t turns = kPacks > 0 ? kPacks : (vocab + kThreads * kCount - 1) / (kThreads * kCount);
#pragma unroll
    for (int64_t j = 0; j < turns; ++j) {
      const int64_t at = (j * kThreads + threadIdx.x) * kCount;
      if (at >= vocab) break;
      Floats<kCount>& values = kept[kPacks > 0 ? j : 0];
      if (kPacks == 0 || !loaded) values = load_own_floats<kCount>(logits + at);
      fn(values, at);
    }
    loaded = true;
  }
};

template <class T, int kCount, int kPacks>
GOLF_KERNEL(cross_entropy, kThreads, 3, T* z, Rows args) {
  GOLF_SHARED(float, of_warps, 2 * kWarps);
  const float cap = args.cap, inverse = cap > 0.0f ? 1.0f / cap : 0.0f;
  const int64_t row = blockIdx.x, target = args.targets[row];
  Part<T, kCount, kPacks> part(z + row * args.vocab, args.vocab);
  float shift = 0.0f, sum = 0.0f;
  if (!(cap > 0.0f && cap <= kNoShift)) {
    float largest = -INFINITY;
    part.for_packs([&](const Floats<kCount>& values, int64_t) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) largest = max_nan(largest, values.at[i]);
    });
    shift = capped<T>(block_max<kWarps>(largest, of_warps), cap, inverse).y;
  }
  const bool known = target >= 0 && target < args.vocab;  // where it is not the row becomes NaN
  const Capped at_target = capped<T>(known ? to_float(part.logits[target]) : 0.0f, cap, inverse);
  part.for_packs([&](Floats<kCount>& values, int64_t) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const Capped c = capped<T>(values.at[i], cap, inverse);
      const float e = exp_of<T>(c.y - shift);
      sum += e;
      values.at[i] = e * c.slope;
    }
  });
  const float all = block_sum<kWarps>(sum, of_warps + kWarps);  // its barrier: all have read the target's logit
  const float p_target = known ? exp_of<T>(at_target.y - shift) / all : __uint_as_float(0x7fc00000u);
  // The quotient keeps small losses exact to f32; the difference keeps large ones finite.
  if (threadIdx.x == 0)
    args.losses[row] = p_target > 1e-6f ? -logf(p_target) : known ? logf(all) + shift - at_target.y : p_target;
  if (args.scale == nullptr) return;
  const float scale = known ? args.scale[row] : p_target, factor = scale / all;
  part.for_packs([&](Floats<kCount>& values, int64_t at) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if constexpr (kPacks == 0) {
        const Capped c = capped<T>(values.at[i], cap, inverse);
        values.at[i] = exp_of<T>(c.y - shift) * c.slope;
      }
      values.at[i] *= factor;
    }
    store_floats(part.logits + at, values);
    if (at <= target && target < at + kCount)
      part.logits[target] = from_float<T>((p_target - 1.0f) * at_target.slope * scale);
  });
}

template <int kCount>
GOLF_KERNEL(accumulate, kThreads, 8, float* total, const bf16* part, int64_t n) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, packs = n / kCount;
  for (int64_t i = thread; i < packs; i += static_cast<int64_t>(gridDim.x) * kThreads) {
    Floats<kCount> sum = load_own_floats<kCount>(total + i * kCount);
    const Floats<kCount> more = load_floats<kCount>(part + i * kCount);
#pragma unroll
    for (int j = 0; j < kCount; ++j) sum.at[j] += more.at[j];
    store_floats(total + i * kCount, sum);
  }
  const int64_t rest = packs * kCount + thread;
  if (rest < n) total[rest] += to_float(part[rest]);
}

template <class T>
Status launch_rows(T* z, const Rows& args, unsigned blocks, Stream stream) noexcept {
  if (args.vocab % 8 != 0 || !aligned<16>(z))
    return GOLF_LAUNCH((cross_entropy<T, 1, 0>), blocks, kThreads, 0, stream, z, args);
  if (args.vocab <= 8 * kThreads) return GOLF_LAUNCH((cross_entropy<T, 8, 1>), blocks, kThreads, 0, stream, z, args);
  if (args.vocab <= 32 * kThreads) return GOLF_LAUNCH((cross_entropy<T, 8, 4>), blocks, kThreads, 0, stream, z, args);
  return GOLF_LAUNCH((cross_entropy<T, 8, 0>), blocks, kThreads, 0, stream, z, args);
}

}  // namespace

Status head_cross_entropy_device(DType dtype, void* z, const int64_t* targets, const float* scale, float* losses,
                                 int64_t rows, int64_t vocab, float cap, Stream stream) noexcept {
  if (rows == 0) return Status::kOk;
  if (rows < 0 || rows >= int64_t{1} << 31 || vocab < 1 || vocab > kHeadMaxVocab || !(cap >= 0))
    return Status::kInvalidArgument;
  const Rows args{targets, scale, losses, vocab, cap};
  const unsigned blocks = static_cast<unsigned>(rows);
  return dtype == DType::kF32 ? launch_rows(static_cast<float*>(z), args, blocks, stream)
                              : launch_rows(static_cast<bf16*>(z), args, blocks, stream);
}

Status head_accumulate_device(float* total, const bf16* part, int64_t n, Stream stream) noexcept {
  if (n < 0) return Status::kInvalidArgument;
  if (n == 0) return Status::kOk;
  return aligned<16>(total) && aligned<16>(part)
             ? GOLF_LAUNCH((accumulate<8>), blocks_for(n, kThreads * 8), kThreads, 0, stream, total, part, n)
             : GOLF_LAUNCH((accumulate<1>), blocks_for(n, kThreads), kThreads, 0, stream, total, part, n);
}

}  // namespace golf
