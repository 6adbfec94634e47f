// What every call into a kernel's launcher needs of the CUDA runtime, without its headers. The host model (csrc/simt)
// implements the same functions.
#pragma once

#include "golf.h"

namespace golf {

// Later launches of this thread go to this device.
Status select_device(int32_t device) noexcept;
// Waits for what was launched on the stream; reports what went wrong there. Nothing while a graph captures the stream.
Status synchronize(Stream stream) noexcept;
// Why the last call of this thread returned kCudaError.
const char* cuda_error() noexcept;
// Whether a kernel has failed in a way after which this process cannot use the device any more. CUDA reports it with
// whichever call comes next.
bool device_lost() noexcept;

}  // namespace golf
