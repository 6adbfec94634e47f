// What the CUDA runtime says of this machine; usable without a driver, and without torch. Errors: cuda_error().
#pragma once

#include "golf.h"

namespace golf {

struct DeviceInfo {
  char name[256];
  int32_t major, minor;  // compute capability
  int32_t multiprocessors;
  size_t memory_bytes;
};

// CUDA's versions as 1000 major + 10 minor: what the driver serves at most, 0 without a driver, and this build's.
struct CudaVersions {
  int32_t driver, toolkit;
};
CudaVersions cuda_versions() noexcept;

Status cuda_device_count(int32_t* count) noexcept;
Status cuda_device_info(int32_t device, DeviceInfo* out) noexcept;
// An error where this build holds no kernel that the device can run.
Status cuda_find_image(int32_t device) noexcept;

// Writes value to out[0..n). Doctor uses it to prove that a stream made by torch, which brings its own CUDA runtime, is
// valid in ours.
Status cuda_fill_f32(float* out, int64_t n, float value, Stream stream) noexcept;

}  // namespace golf
