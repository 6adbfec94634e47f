// Both directions in tiles of 64 queries by 64 keys; every instruction set but scalar compiles this. Tiles of AMX
// (product_amx.h; those are smaller) serve bf16 alone.
#pragma once

#include "attention/backward.h"
#include "attention/forward.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

#if defined(GOLF_BF16_PAIRS)
using PackOfBF16 = PackBF16;
#else
using PackOfBF16 = PackF32;
#endif

// task(pack, input, head_dim): the three choices as compile-time values.
template <class Task>
GOLF_INLINE int64_t choose(const AttentionArgs& args, const Task& task) {
  const auto by_width = [&](auto pack, auto input) {
    switch (args.head_dim) {
      case 32:
        return task(pack, input, Width<32>());
      case 64:
        return task(pack, input, Width<64>());
      default:
        return task(pack, input, Width<128>());
    }
  };
#if defined(__AMX_BF16__)
  return by_width(PackOfBF16(), bf16());
#else
  return args.dtype == DType::kF32 ? by_width(PackF32(), float()) : by_width(PackOfBF16(), bf16());
#endif
}

int64_t scratch_bytes(const AttentionArgs& args, bool backward) {
  return choose(args, [&](auto pack, auto, auto width) -> int64_t {
    using P = decltype(pack);
    constexpr int kH = decltype(width)::kValue;
    Arena arena(nullptr);
    if (backward)
      BackwardScratch<P, kH>(arena, args);
    else
      ForwardScratch<P, kH>(arena, args);
    return arena.used();
  });
}

void forward(const AttentionArgs& args, const Document& document, int32_t kv_head, void* scratch) {
  [[maybe_unused]] ProductState state;
  choose(args, [&](auto pack, auto input, auto width) -> int64_t {
    Forward<decltype(pack), decltype(input), decltype(width)::kValue>(args, document, kv_head, scratch).run();
    return 0;
  });
}

void backward(const AttentionArgs& args, const Document& document, int32_t kv_head, void* scratch) {
  [[maybe_unused]] ProductState state;
  choose(args, [&](auto pack, auto input, auto width) -> int64_t {
    Backward<decltype(pack), decltype(input), decltype(width)::kValue>(args, document, kv_head, scratch).run();
    return 0;
  });
}

}  // namespace

const AttentionKernels attention_kernels = {scratch_bytes, forward, backward};

}  // namespace GOLF_ISA_NS
}  // namespace golf
