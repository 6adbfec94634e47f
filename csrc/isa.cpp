#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "golf.h"

namespace golf {

Isa detected_isa() noexcept {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return Isa::kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    return Isa::kAvx2;
#endif
  return Isa::kScalar;
}

const char* isa_name(Isa isa) noexcept {
  switch (isa) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kScalar:
      break;
  }
  return "scalar";
}

Isa active_isa() noexcept {
  static const Isa chosen = [] {
    const Isa best = detected_isa();
    const char* wish = std::getenv("GOLF_ISA");
    if (wish == nullptr) return best;
    for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512})
      if (std::strcmp(wish, isa_name(isa)) == 0 && isa < best) return isa;
    return best;
  }();
  return chosen;
}

}  // namespace golf
