// What the CUDA runtime says of this machine; usable without a driver, and without torch.
#pragma once

#include "golf.h"

namespace golf {

struct DeviceInfo {
  char name[256];
  int32_t major, minor;  // compute capability
  int32_t multiprocessors;
  size_t memory_bytes;
};

// Number of usable devices; 0 with a driver error leaves its text in *why (a static string).
Status cuda_device_count(int32_t* count, const char** why) noexcept;
Status cuda_device_info(int32_t device, DeviceInfo* out, const char** why) noexcept;

// Writes value to out[0..n) on the given stream and device. Doctor uses it to prove that a stream made by torch, which
// brings its own CUDA runtime, is valid in ours and that an image for the device is in this build.
Status cuda_fill_f32(float* out, int64_t n, float value, int32_t device, void* stream, const char** why) noexcept;

}  // namespace golf
