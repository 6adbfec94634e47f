#include <atomic>
#include <cstdlib>
#include <cstring>

#include "golf.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(GOLF_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace golf {

#if defined(__x86_64__)

// clang before 15 does not know __builtin_cpu_supports("f16c").
static bool has_f16c() noexcept {
  unsigned int eax, ebx, ecx = 0, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

#if defined(GOLF_AMX)
// Linux lets a process use tiles once it has asked, and refuses where the processor or the system cannot keep them.
static bool may_use_tiles() noexcept {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // asm/prctl.h, which older systems do not name
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
static bool has_amx() noexcept {
  constexpr unsigned int kWanted = 1u << 22 | 1u << 24;  // amx_bf16, amx_tile
  unsigned int eax, ebx, ecx, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kWanted) == kWanted && may_use_tiles();
}
#else
static bool has_amx() noexcept { return false; }
#endif

static Isa best_isa() noexcept {
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") && has_f16c()) {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
      if (!__builtin_cpu_supports("avx512bf16")) return Isa::kAvx512;
      return has_amx() ? Isa::kAvx512Amx : Isa::kAvx512Bf16;
    }
    return Isa::kAvx2;
  }
  return Isa::kScalar;
}

Isa detected_isa() noexcept {
  static const Isa best = best_isa();
  return best;
}

#elif defined(__aarch64__)

namespace {

struct Arm {
  bool neon, crc32, bf16;
};

#if defined(__linux__)
Arm features() noexcept {
  // The bits of asm/hwcap.h, which older systems do not name.
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  return {(first >> 1 & 1) != 0, (first >> 7 & 1) != 0, (second >> 14 & 1) != 0};
}
#elif defined(__APPLE__)
bool has(const char* name) noexcept {
  int32_t value = 0;
  size_t size = sizeof(value);
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
Arm features() noexcept {  // all of Apple's have NEON
  return {true, has("hw.optional.armv8_crc32"), has("hw.optional.arm.FEAT_BF16")};
}
#else
Arm features() noexcept { return {}; }
#endif

}  // namespace

Isa detected_isa() noexcept {
  static const Arm arm = features();
  if (!arm.neon || !arm.crc32) return Isa::kScalar;
  return arm.bf16 ? Isa::kNeonBf16 : Isa::kNeon;
}

#else

Isa detected_isa() noexcept { return Isa::kScalar; }

#endif

const char* isa_name(Isa isa) noexcept {
#if defined(__x86_64__)
  constexpr const char* kNames[kIsaCount] = {"scalar", "avx2", "avx512", "avx512bf16", "avx512amx"};
#elif defined(__aarch64__)
  constexpr const char* kNames[kIsaCount] = {"scalar", "neon", "neonbf16"};
#else
  constexpr const char* kNames[kIsaCount] = {"scalar"};
#endif
  return kNames[static_cast<int32_t>(isa)];
}

bool isa_from_name(const char* name, Isa* isa) noexcept {
  for (int32_t i = 0; i < kIsaCount; ++i) {
    if (std::strcmp(name, isa_name(static_cast<Isa>(i))) != 0) continue;
    *isa = static_cast<Isa>(i);
    return true;
  }
  return false;
}

namespace {

Isa lower(Isa a, Isa b) noexcept { return a < b ? a : b; }

// The level that nothing can raise: the processor's, lowered by GOLF_ISA. Python reports a GOLF_ISA that is no name.
Isa ceiling() noexcept {
  static const Isa chosen = [] {
    Isa wish = detected_isa();
    if (const char* name = std::getenv("GOLF_ISA")) isa_from_name(name, &wish);
    return lower(wish, detected_isa());
  }();
  return chosen;
}

std::atomic<Isa> wished{static_cast<Isa>(kIsaCount - 1)};

}  // namespace

Isa active_isa() noexcept { return lower(wished.load(std::memory_order_relaxed), ceiling()); }

void set_isa(Isa isa) noexcept { wished.store(isa, std::memory_order_relaxed); }

}  // namespace golf
