// The native interface that every operation shares: status codes, element types and the choice of instruction set.
//
// Kernels take raw pointers, sizes and strides, are noexcept, return a Status, and never allocate, print or throw.
// Shapes are checked in Python, where a message can name the user's tensor; a Status only reports what Python cannot
// see. Each operation has a folder: <op>.h (the contract), <op>.cpp (threads, choice of instruction set), <op>_body.h
// (the arithmetic, written on vec.h) and one <op>_<isa>.cpp per instruction set, which compiles it with its own flags.
#pragma once

#include <cstddef>
#include <cstdint>

namespace golf {

enum class Status : int32_t {
  kOk = 0,
  kInvalidArgument = 1,
  kCudaError = 2,  // the text is in cuda_error(), device/runtime.h
};

// The numbers are shared with golfcore.ops.registry.
enum class DType : int32_t { kF32 = 0, kBF16 = 1 };

constexpr int64_t size_of(DType dtype) noexcept { return dtype == DType::kF32 ? 4 : 2; }

struct bf16 {
  uint16_t bits;
};

// A cudaStream_t; null is the default stream.
using Stream = void*;

// Those of this architecture, in order: a higher value is a superset of the lower ones.
#if defined(__x86_64__)
// kAvx512Amx: with products of bf16 tiles (AMX). Never detected unless GOLF_AMX is defined: on Linux, by a compiler
// that knows them.
enum class Isa : int32_t { kScalar = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3, kAvx512Amx = 4 };
constexpr int32_t kIsaCount = 5;
#elif defined(__aarch64__)
// kNeon: with the crc32c instructions; kNeonBf16: and those of bf16 (FEAT_BF16).
enum class Isa : int32_t { kScalar = 0, kNeon = 1, kNeonBf16 = 2 };
constexpr int32_t kIsaCount = 3;
#else
enum class Isa : int32_t { kScalar = 0 };
constexpr int32_t kIsaCount = 1;
#endif

// The best instruction set of this processor.
Isa detected_isa() noexcept;
// The one in use: detected_isa(), lowered by the environment's GOLF_ISA (read once) and by set_isa().
Isa active_isa() noexcept;
// Lowers active_isa() for what follows; a wish above the processor's or GOLF_ISA's level is cut to it. For tests and
// benches, which compare the levels in one process.
void set_isa(Isa isa) noexcept;
const char* isa_name(Isa isa) noexcept;
// False where `name` is none of isa_name()'s.
bool isa_from_name(const char* name, Isa* isa) noexcept;

// The entry for the active level, or the next lower one that exists. Tables (isa_table.h) are in the order of Isa; all
// but the first entry may be null.
template <class Kernels>
const Kernels& active_kernels(const Kernels* const (&table)[kIsaCount]) noexcept {
  int32_t level = static_cast<int32_t>(active_isa());
  while (table[level] == nullptr) --level;
  return *table[level];
}

// Declares an operation's kernels, a `Kernels` called `name` for each instruction set. Attention alone has any for
// avx512amx, and declares them itself.
#define GOLF_KERNELS_OF(isa, Kernels, name) \
  namespace isa {                           \
  extern const Kernels name;                \
  }
#if defined(__x86_64__)
#define GOLF_KERNELS(Kernels, name)      \
  GOLF_KERNELS_OF(scalar, Kernels, name) \
  GOLF_KERNELS_OF(avx2, Kernels, name)   \
  GOLF_KERNELS_OF(avx512, Kernels, name) \
  GOLF_KERNELS_OF(avx512bf16, Kernels, name)
#elif defined(__aarch64__)
#define GOLF_KERNELS(Kernels, name)      \
  GOLF_KERNELS_OF(scalar, Kernels, name) \
  GOLF_KERNELS_OF(neon, Kernels, name)   \
  GOLF_KERNELS_OF(neonbf16, Kernels, name)
#else
#define GOLF_KERNELS(Kernels, name) GOLF_KERNELS_OF(scalar, Kernels, name)
#endif

}  // namespace golf
