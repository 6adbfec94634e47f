// CUDA's errors as a Status; the text stays with the thread for cuda_error().
#pragma once

#include <cuda_runtime.h>

#include "golf.h"

namespace golf {

// `what` is the kernel or call that returned `error`, a static string.
Status cuda_status(cudaError_t error, const char* what) noexcept;

}  // namespace golf
