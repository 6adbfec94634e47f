#include <cuda_runtime.h>

#include <atomic>
#include <cstring>

#include "device/errors.h"
#include "device/probe.h"
#include "device/runtime.h"
#include "device/status.h"

namespace golf {
namespace {

__global__ void fill_f32(float* out, int64_t n, float value) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride) out[i] = value;
}

thread_local char error_text[384];
std::atomic<bool> lost{false};

static_assert(kErrorMemory == cudaErrorMemoryAllocation && kErrorDriver == cudaErrorInsufficientDriver &&
              kErrorNoFunction == cudaErrorInvalidDeviceFunction && kErrorNoImage == cudaErrorNoKernelImageForDevice &&
              kErrorEcc == cudaErrorECCUncorrectable && kErrorPtx == cudaErrorUnsupportedPtxVersion &&
              kErrorAddress == cudaErrorIllegalAddress && kErrorTimeout == cudaErrorLaunchTimeout &&
              kErrorAssert == cudaErrorAssert && kErrorStack == cudaErrorHardwareStackError &&
              kErrorInstruction == cudaErrorIllegalInstruction && kErrorMisaligned == cudaErrorMisalignedAddress &&
              kErrorAddressSpace == cudaErrorInvalidAddressSpace && kErrorProgramCounter == cudaErrorInvalidPc &&
              kErrorLaunch == cudaErrorLaunchFailure);

}  // namespace

CudaVersions cuda_versions() noexcept {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  (void)cudaGetLastError();
  return {driver, CUDART_VERSION};
}

Status cuda_status(cudaError_t error, const char* what) noexcept {
  if (error == cudaSuccess) return Status::kOk;
  (void)cudaGetLastError();  // the next call starts afresh
  const CudaVersions versions = cuda_versions();
  describe_error(error_text, sizeof error_text, error, cudaGetErrorString(error), what, versions.driver,
                 versions.toolkit);
  if (loses_device(error)) lost = true;
  return Status::kCudaError;
}

const char* cuda_error() noexcept { return error_text; }

bool device_lost() noexcept { return lost; }

Status select_device(int32_t device) noexcept { return cuda_status(cudaSetDevice(device), "cudaSetDevice"); }

Status synchronize(Stream stream) noexcept {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  const cudaError_t error = cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &capture);
  if (error != cudaSuccess) return cuda_status(error, "cudaStreamIsCapturing");
  if (capture != cudaStreamCaptureStatusNone) return Status::kOk;
  return cuda_status(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "cudaStreamSynchronize");
}

Status cuda_device_count(int32_t* count) noexcept {
  *count = 0;
  return cuda_status(cudaGetDeviceCount(count), "cudaGetDeviceCount");
}

Status cuda_device_info(int32_t device, DeviceInfo* out) noexcept {
  cudaDeviceProp prop;
  const Status status = cuda_status(cudaGetDeviceProperties(&prop, device), "cudaGetDeviceProperties");
  if (status != Status::kOk) return status;
  std::memcpy(out->name, prop.name, sizeof out->name);
  out->major = prop.major;
  out->minor = prop.minor;
  out->multiprocessors = prop.multiProcessorCount;
  out->memory_bytes = prop.totalGlobalMem;
  return Status::kOk;
}

Status cuda_find_image(int32_t device) noexcept {
  int before = 0;
  Status status = cuda_status(cudaGetDevice(&before), "cudaGetDevice");
  if (status != Status::kOk) return status;
  status = select_device(device);
  if (status != Status::kOk) return status;
  cudaFuncAttributes attributes;
  status = cuda_status(cudaFuncGetAttributes(&attributes, fill_f32), "the kernels of this build");
  const Status restored = select_device(before);  // torch reads the current device from the runtime
  return status != Status::kOk ? status : restored;
}

Status cuda_fill_f32(float* out, int64_t n, float value, Stream stream) noexcept {
  if (n <= 0) return n == 0 ? Status::kOk : Status::kInvalidArgument;
  const int64_t blocks = n < 1024 * 256 ? (n + 255) / 256 : 1024;
  fill_f32<<<static_cast<unsigned>(blocks), 256, 0, static_cast<cudaStream_t>(stream)>>>(out, n, value);
  return cuda_status(cudaGetLastError(), "fill_f32");
}

}  // namespace golf
