// The kernels of an operation by instruction set, for active_kernels(): GOLF_ISA_TABLE(name) lists <isa>::name.
// GOLF_ISA_TABLE_F32 is for an operation whose level of the bf16 instructions would be the one before,
// GOLF_ISA_TABLE_AMX for one that has kernels of bf16 tiles.
#pragma once

#if defined(__x86_64__)
#define GOLF_ISA_TABLE(name) {&scalar::name, &avx2::name, &avx512::name, &avx512bf16::name, nullptr}
#define GOLF_ISA_TABLE_F32(name) {&scalar::name, &avx2::name, &avx512::name, nullptr, nullptr}
#elif defined(__aarch64__)
#define GOLF_ISA_TABLE(name) {&scalar::name, &neon::name, &neonbf16::name}
#define GOLF_ISA_TABLE_F32(name) {&scalar::name, &neon::name, nullptr}
#else
#define GOLF_ISA_TABLE(name) {&scalar::name}
#define GOLF_ISA_TABLE_F32(name) GOLF_ISA_TABLE(name)
#endif

#if defined(GOLF_AMX)
#define GOLF_ISA_TABLE_AMX(name) {&scalar::name, &avx2::name, &avx512::name, &avx512bf16::name, &avx512amx::name}
#else
#define GOLF_ISA_TABLE_AMX(name) GOLF_ISA_TABLE(name)
#endif
