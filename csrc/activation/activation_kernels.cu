#include <cfloat>

#include "activation/activation.h"
#include "device/cuda.h"
#include "device/memory.h"
#include "device/types.h"

namespace golf {
namespace {

constexpr int kThreads = 256;

// An infinite u must not become NaN where the slope is 0.
GOLF_DEVICE float phi(float u, float slope) { return u > 0.0f ? u : slope * (u < -FLT_MAX ? -FLT_MAX : u); }

struct Square {
  float slope;
  GOLF_DEVICE float operator()(float u) const {
    const float p = phi(u, slope);
    return p * p;
  }
};

struct SquareGradient {
  float slope;
  GOLF_DEVICE float operator()(float u, float dy) const {
    return 2.0f * phi(u, slope) * (u > 0.0f ? 1.0f : slope) * dy;
  }
};

// Packs of kCount in a grid-stride loop; what is left over goes to the first threads.
template <class T, int kCount>
GOLF_KERNEL(forward, kThreads, 8, const T* u, T* y, int64_t n, Square f) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, packs = n / kCount;
  for (int64_t i = thread; i < packs; i += static_cast<int64_t>(gridDim.x) * kThreads) {
    Floats<kCount> x = load_floats<kCount>(u + i * kCount);
#pragma unroll
    for (int j = 0; j < kCount; ++j) x.at[j] = f(x.at[j]);
    store_floats(y + i * kCount, x);
  }
  const int64_t rest = packs * kCount + thread;
  if (rest < n) y[rest] = from_float<T>(f(to_float(u[rest])));
}

template <class T, int kCount>
GOLF_KERNEL(backward, kThreads, 8, const T* u, const T* dy, T* du, int64_t n, SquareGradient f) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, packs = n / kCount;
  for (int64_t i = thread; i < packs; i += static_cast<int64_t>(gridDim.x) * kThreads) {
    Floats<kCount> x = load_floats<kCount>(u + i * kCount);
    const Floats<kCount> g = load_floats<kCount>(dy + i * kCount);
#pragma unroll
    for (int j = 0; j < kCount; ++j) x.at[j] = f(x.at[j], g.at[j]);
    store_floats(du + i * kCount, x);
  }
  const int64_t rest = packs * kCount + thread;
  if (rest < n) du[rest] = from_float<T>(f(to_float(u[rest]), to_float(dy[rest])));
}

template <class T, int kCount>
Status launch_forward(const void* u, void* y, int64_t n, float slope, Stream stream) noexcept {
  return GOLF_LAUNCH((forward<T, kCount>), blocks_for(n, kThreads * kCount), kThreads, 0, stream,
                     static_cast<const T*>(u), static_cast<T*>(y), n, Square{slope});
}

template <class T, int kCount>
Status launch_backward(const void* u, const void* dy, void* du, int64_t n, float slope, Stream stream) noexcept {
  return GOLF_LAUNCH((backward<T, kCount>), blocks_for(n, kThreads * kCount), kThreads, 0, stream,
                     static_cast<const T*>(u), static_cast<const T*>(dy), static_cast<T*>(du), n,
                     SquareGradient{slope});
}

}  // namespace

Status activation_forward_device(DType dtype, const void* u, void* y, int64_t n, float slope, Stream stream) noexcept {
  if (n < 0) return Status::kInvalidArgument;
  if (n == 0) return Status::kOk;
  const bool packed = aligned<16>(u) && aligned<16>(y);
  if (dtype == DType::kF32)
    return packed ? launch_forward<float, 4>(u, y, n, slope, stream) : launch_forward<float, 1>(u, y, n, slope, stream);
  return packed ? launch_forward<bf16, 8>(u, y, n, slope, stream) : launch_forward<bf16, 1>(u, y, n, slope, stream);
}

Status activation_backward_device(DType dtype, const void* u, const void* dy, void* du, int64_t n, float slope,
                                  Stream stream) noexcept {
  if (n < 0) return Status::kInvalidArgument;
  if (n == 0) return Status::kOk;
  const bool packed = aligned<16>(u) && aligned<16>(dy) && aligned<16>(du);
  if (dtype == DType::kF32)
    return packed ? launch_backward<float, 4>(u, dy, du, n, slope, stream)
                  : launch_backward<float, 1>(u, dy, du, n, slope, stream);
  return packed ? launch_backward<bf16, 8>(u, dy, du, n, slope, stream)
                : launch_backward<bf16, 1>(u, dy, du, n, slope, stream);
}

}  // namespace golf
