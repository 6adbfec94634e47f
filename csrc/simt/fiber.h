// Stacks that are left and taken up again: one for each thread of a block.
#pragma once

#include <cstddef>

namespace golf::simt {

struct Context {
  void* state = nullptr;  // where it was left
  void* bottom = nullptr;
  size_t bytes = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
};

// The next switch to `fiber` calls entry() on this stack; entry() must not return.
void prepare(Context& fiber, void* bottom, size_t bytes, void (*entry)()) noexcept;
// Leaves `from`, the running one, and goes on with `to`. `last`: `from` is never taken up again.
void switch_to(Context& from, Context& to, bool last) noexcept;
// The first thing that entry() calls: `from` is where the switch came from.
void entered(Context& from) noexcept;

}  // namespace golf::simt
