// The kernels of an operation by instruction set, for active_kernels(): GOLF_ISA_TABLE(name) lists <isa>::name.
#pragma once

#if defined(__x86_64__)
#define GOLF_ISA_TABLE(name) {&scalar::name, &avx2::name, &avx512::name, &avx512bf16::name}
// For an operation without an avx512bf16.cpp.
#define GOLF_ISA_TABLE_AVX512(name) {&scalar::name, &avx2::name, &avx512::name, nullptr}
#else
#define GOLF_ISA_TABLE(name) {&scalar::name, nullptr, nullptr, nullptr}
#define GOLF_ISA_TABLE_AVX512(name) GOLF_ISA_TABLE(name)
#endif
