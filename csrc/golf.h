// The native interface that every operation shares: status codes and the choice of instruction set.
//
// Kernels take raw pointers, sizes and strides, are noexcept, return a Status, and never allocate, print or throw.
// Shapes are checked in Python, where a message can name the user's tensor; a Status only reports what Python cannot
// see.
#pragma once

#include <cstddef>
#include <cstdint>

namespace golf {

enum class Status : int32_t {
  kOk = 0,
  kInvalidArgument = 1,
  kCudaError = 2,  // the text is in cuda_error()
};

// Ordered: a higher value is a superset of the lower ones.
enum class Isa : int32_t { kScalar = 0, kAvx2 = 1, kAvx512 = 2 };

// The best instruction set of this processor, lowered by the environment's GOLF_ISA (scalar, avx2, avx512); read once.
Isa active_isa() noexcept;
Isa detected_isa() noexcept;
const char* isa_name(Isa isa) noexcept;

}  // namespace golf
