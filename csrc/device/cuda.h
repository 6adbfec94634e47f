// The first include of a kernel's source: CUDA itself, or what stands for it where the source is compiled for the host.
// Kernels are written in CUDA C++ but for four macros, which have two expansions each:
//
//   template <class T>
//   GOLF_KERNEL(scale, kThreads, 2, const T* x, T* y, int64_t n) { ... }       launch bounds: threads, blocks a
//                                                                             multiprocessor
//   GOLF_SHARED(float, partial, kWarps);                                      float* partial, in shared memory
//   GOLF_DYNAMIC_SHARED(bytes);                                               unsigned char* bytes, 16-byte aligned
//   return GOLF_LAUNCH((scale<float>), grid, kThreads, shared_bytes, stream, x, y, n);      a Status
#pragma once

#include "golf.h"

#if GOLF_SIMT

#include "simt/cuda.h"

#define GOLF_DEVICE inline
#define GOLF_KERNEL(name, max_threads, min_blocks, ...) void name(::golf::simt::Bounds<max_threads>, __VA_ARGS__)
#define GOLF_SHARED(type, name, count) \
  struct GolfShared_##name;            \
  type* const name = ::golf::simt::shared_of<type, GolfShared_##name>(count)
#define GOLF_DYNAMIC_SHARED(name) unsigned char* const name = ::golf::simt::dynamic_shared()
#define GOLF_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                 \
  ((void)(stream), ::golf::simt::launch({#kernel, ::golf::simt::instance<kernel>(), __FILE__}, kernel, grid, block, \
                                        shared_bytes, __VA_ARGS__))

#else

#include <cuda_runtime.h>

#include "device/status.h"

#define GOLF_DEVICE __device__ __forceinline__
#define GOLF_KERNEL(name, max_threads, min_blocks, ...) \
  __global__ void __launch_bounds__(max_threads, min_blocks) name(__VA_ARGS__)
#define GOLF_SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define GOLF_DYNAMIC_SHARED(name)                                \
  extern __shared__ __align__(128) unsigned char golf_dynamic[]; \
  unsigned char* const name = golf_dynamic
#define GOLF_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::golf::launch(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

namespace golf {

// Capturable in a CUDA graph: no allocation and no synchronization.
template <class... Parameters, class... Arguments>
Status launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
              Stream stream, Arguments... arguments) noexcept {
  if (shared_bytes > 48 << 10) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return cuda_status(error, name);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  return cuda_status(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), name);
}

}  // namespace golf

#endif

namespace golf {

constexpr int kWarpSize = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;
constexpr int64_t kMaxBlocks = 1 << 16;  // of a grid-stride loop: enough for every device, cheap where most are idle

// Blocks for n pieces of work, at most kMaxBlocks.
constexpr unsigned blocks_for(int64_t n, int64_t each) noexcept {
  const int64_t blocks = (n + each - 1) / each;
  return static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

}  // namespace golf
