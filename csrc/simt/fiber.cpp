#include "simt/fiber.h"

#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__) && !defined(GOLF_SIMT_UCONTEXT)
// Saves what a function must keep (System V ABI), swaps the stack pointers. A few ns; swapcontext makes two system
// calls.
extern "C" void golf_simt_swap(void** from, void* to) noexcept;
__asm__(
    ".text\n"
    ".p2align 4\n"
    ".hidden golf_simt_swap\n"
    ".globl golf_simt_swap\n"
    ".type golf_simt_swap, @function\n"
    "golf_simt_swap:\n"
    "  pushq %rbp\n"
    "  pushq %rbx\n"
    "  pushq %r12\n"
    "  pushq %r13\n"
    "  pushq %r14\n"
    "  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n"
    "  popq %r14\n"
    "  popq %r13\n"
    "  popq %r12\n"
    "  popq %rbx\n"
    "  popq %rbp\n"
    "  ret\n"
    ".size golf_simt_swap, .-golf_simt_swap\n");
#else
#include <ucontext.h>

#include <new>
#endif

namespace golf::simt {

#if defined(__x86_64__) && !defined(GOLF_SIMT_UCONTEXT)

namespace {

void swap(Context& from, Context& to) noexcept { golf_simt_swap(&from.state, to.state); }

void start_at(Context& fiber, void (*entry)()) noexcept {
  const uintptr_t top = (reinterpret_cast<uintptr_t>(fiber.bottom) + fiber.bytes) & ~uintptr_t{15};
  uintptr_t* stack = reinterpret_cast<uintptr_t*>(top);
  *--stack = 0;  // entry's return address: none, and the alignment that a call leaves
  *--stack = reinterpret_cast<uintptr_t>(entry);
  for (int saved = 0; saved < 6; ++saved) *--stack = 0;
  fiber.state = stack;
}

}  // namespace

#else

namespace {

void swap(Context& from, Context& to) noexcept {
  ucontext_t here;
  from.state = &here;
  swapcontext(&here, static_cast<ucontext_t*>(to.state));
}

// The first state lies at the bottom of the fiber's own stack; later ones wherever swap() was called.
void start_at(Context& fiber, void (*entry)()) noexcept {
  ucontext_t* state = new (fiber.bottom) ucontext_t;
  getcontext(state);
  state->uc_stack.ss_sp = static_cast<char*>(fiber.bottom) + sizeof(ucontext_t);
  state->uc_stack.ss_size = fiber.bytes - sizeof(ucontext_t);
  state->uc_link = nullptr;
  makecontext(state, entry, 0);
  fiber.state = state;
}

}  // namespace

#endif

void prepare(Context& fiber, void* bottom, size_t bytes, void (*entry)()) noexcept {
  fiber.bottom = bottom;
  fiber.bytes = bytes;
  fiber.fake_stack = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(bottom, bytes);  // frames of a fiber that was given up
#endif
  start_at(fiber, entry);
}

void switch_to(Context& from, Context& to, [[maybe_unused]] bool last) noexcept {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, to.bottom, to.bytes);
  swap(from, to);
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#else
  swap(from, to);
#endif
}

void entered([[maybe_unused]] Context& from) noexcept {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &from.bytes);
  from.bottom = const_cast<void*>(bottom);
#endif
}

}  // namespace golf::simt
