// What every call into a kernel's launcher needs of the CUDA runtime, without its headers. The host model (csrc/simt)
// implements the same functions.
#pragma once

#include "golf.h"

namespace golf {

// Later launches of this thread go to this device.
Status select_device(int32_t device) noexcept;
// Waits for what was launched on the stream; reports what went wrong there.
Status synchronize(Stream stream) noexcept;
// Why the last call of this thread returned kCudaError.
const char* cuda_error() noexcept;

}  // namespace golf
