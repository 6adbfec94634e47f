// Small kernels about the model itself: what CUDA's instructions do, and what it must notice. tests/simt runs them.
#pragma once

#include "golf.h"

namespace golf::simt {

// Buffers and sizes are the example's own affair; see its kernel.
struct Example {
  const char* name;
  Status (*run)(void* const* buffers, int64_t n);
};

struct Examples {
  const Example* first;
  int64_t count;
};
Examples semantics() noexcept;  // semantics.cu: right
Examples faulty() noexcept;     // faulty.cu: each wrong for n = 1, and right for n = 0
Examples matrices() noexcept;   // matrices.cu: fragments and products

}  // namespace golf::simt
