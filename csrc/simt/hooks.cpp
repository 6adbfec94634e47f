// Kernels are compiled for the host with -fsanitize=thread, but not linked with that sanitizer: the compiler then calls
// a function before every access to memory that another thread could see, and the functions are these. So each access
// of a kernel's own source is checked as it stands, without a pointer type of ours in it.
#include <cstddef>
#include <cstdint>

#include "simt/runtime.h"

namespace golf::simt {

bool checks_every_access() noexcept { return GOLF_SIMT_HOOKS; }

#if GOLF_SIMT_HOOKS
namespace {

// An access that the compiler takes apart, or whose type has a lower alignment than its size.
void bytewise(const void* p, size_t bytes, Access access) {
  for (size_t i = 0; i < bytes; ++i) check_access(static_cast<const char*>(p) + i, 1, access);
}

}  // namespace
#endif

}  // namespace golf::simt

#if GOLF_SIMT_HOOKS
using golf::simt::Access;

#define GOLF_HOOKS(bytes)                                                                          \
  void __tsan_read##bytes(void* p) { golf::simt::check_access(p, bytes, Access::kRead); }          \
  void __tsan_write##bytes(void* p) { golf::simt::check_access(p, bytes, Access::kWrite); }        \
  void __tsan_unaligned_read##bytes(void* p) { golf::simt::bytewise(p, bytes, Access::kRead); }    \
  void __tsan_unaligned_write##bytes(void* p) { golf::simt::bytewise(p, bytes, Access::kWrite); }  \
  void __tsan_volatile_read##bytes(void* p) { golf::simt::check_access(p, bytes, Access::kRead); } \
  void __tsan_volatile_write##bytes(void* p) { golf::simt::check_access(p, bytes, Access::kWrite); }

#pragma GCC visibility push(hidden)
extern "C" {
GOLF_HOOKS(1)
GOLF_HOOKS(2)
GOLF_HOOKS(4)
GOLF_HOOKS(8)
GOLF_HOOKS(16)
void __tsan_read_range(void* p, size_t bytes) { golf::simt::bytewise(p, bytes, Access::kRead); }
void __tsan_write_range(void* p, size_t bytes) { golf::simt::bytewise(p, bytes, Access::kWrite); }
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {  // clang's
  golf::simt::bytewise(from, bytes, Access::kRead);
  golf::simt::bytewise(to, bytes, Access::kWrite);
  return __builtin_memcpy(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
  golf::simt::bytewise(to, bytes, Access::kWrite);
  return __builtin_memset(to, value, bytes);
}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
#pragma GCC visibility pop
#endif
