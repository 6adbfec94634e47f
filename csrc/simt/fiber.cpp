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
#define GOLF_SIMT_SWAP
#elif defined(__aarch64__) && defined(__ELF__) && !defined(GOLF_SIMT_UCONTEXT)
// The same for Arm's procedure call standard: x19 to x30 and the low halves of v8 to v15.
extern "C" void golf_simt_swap(void** from, void* to) noexcept;
__asm__(
    ".text\n"
    ".p2align 4\n"
    ".hidden golf_simt_swap\n"
    ".globl golf_simt_swap\n"
    ".type golf_simt_swap, %function\n"
    "golf_simt_swap:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n"
    "  stp x21, x22, [sp, #16]\n"
    "  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n"
    "  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n"
    "  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n"
    "  stp d14, d15, [sp, #144]\n"
    "  mov x2, sp\n"
    "  str x2, [x0]\n"
    "  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n"
    "  ldp x21, x22, [sp, #16]\n"
    "  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n"
    "  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n"
    "  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n"
    "  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n"
    ".size golf_simt_swap, .-golf_simt_swap\n");
#define GOLF_SIMT_SWAP
#else
#include <ucontext.h>

#include <new>
#endif

namespace golf::simt {

#if defined(GOLF_SIMT_SWAP)

namespace {

void swap(Context& from, Context& to) noexcept { golf_simt_swap(&from.state, to.state); }

void start_at(Context& fiber, void (*entry)()) noexcept {
  const uintptr_t top = (reinterpret_cast<uintptr_t>(fiber.bottom) + fiber.bytes) & ~uintptr_t{15};
  uintptr_t* stack = reinterpret_cast<uintptr_t*>(top);
#if defined(__aarch64__)
  for (int saved = 0; saved < 20; ++saved) *--stack = 0;
  stack[11] = reinterpret_cast<uintptr_t>(entry);  // x30
#else
  *--stack = 0;  // entry's return address: none, and the alignment that a call leaves
  *--stack = reinterpret_cast<uintptr_t>(entry);
  for (int saved = 0; saved < 6; ++saved) *--stack = 0;
#endif
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
