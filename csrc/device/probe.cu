#include <cuda_runtime.h>

#include <cstring>

#include "device/probe.h"

namespace golf {
namespace {

__global__ void fill_f32(float* out, int64_t n, float value) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride) out[i] = value;
}

Status report(cudaError_t error, const char** why) {
  if (error == cudaSuccess) return Status::kOk;
  *why = cudaGetErrorString(error);
  (void)cudaGetLastError();
  return Status::kCudaError;
}

}  // namespace

Status cuda_device_count(int32_t* count, const char** why) noexcept {
  *count = 0;
  return report(cudaGetDeviceCount(count), why);
}

Status cuda_device_info(int32_t device, DeviceInfo* out, const char** why) noexcept {
  cudaDeviceProp prop;
  const Status status = report(cudaGetDeviceProperties(&prop, device), why);
  if (status != Status::kOk) return status;
  std::memcpy(out->name, prop.name, sizeof out->name);
  out->major = prop.major;
  out->minor = prop.minor;
  out->multiprocessors = prop.multiProcessorCount;
  out->memory_bytes = prop.totalGlobalMem;
  return Status::kOk;
}

Status cuda_fill_f32(float* out, int64_t n, float value, int32_t device, void* stream, const char** why) noexcept {
  if (n <= 0) return n == 0 ? Status::kOk : Status::kInvalidArgument;
  const Status status = report(cudaSetDevice(device), why);
  if (status != Status::kOk) return status;
  const int64_t blocks = n < 1024 * 256 ? (n + 255) / 256 : 1024;
  fill_f32<<<static_cast<unsigned>(blocks), 256, 0, static_cast<cudaStream_t>(stream)>>>(out, n, value);
  return report(cudaGetLastError(), why);
}

}  // namespace golf
