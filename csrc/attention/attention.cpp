#include "attention/attention.h"

#include <atomic>

#include "isa_table.h"
#include "parallel.h"

namespace golf {
namespace {

constexpr const AttentionKernels* kTable[kIsaCount] = GOLF_ISA_TABLE(attention_kernels);
constexpr const AttentionKernels* kTableBf16[kIsaCount] = GOLF_ISA_TABLE_AMX(attention_kernels);
constexpr int32_t kMaxThreads = 256;

const AttentionKernels& kernels_for(const AttentionArgs& args) noexcept {
  return active_kernels(args.dtype == DType::kBF16 ? kTableBf16 : kTable);
}

Document document_of(const AttentionArgs& args, int64_t index) noexcept {
  if (args.cu_seqlens == nullptr) return {index, 0, args.tokens};
  return {0, args.cu_seqlens[index], static_cast<int64_t>(args.cu_seqlens[index + 1]) - args.cu_seqlens[index]};
}

// Chunks do not know their thread, so each takes whichever of the `threads` scratch areas is free. There is always one:
// no more than `threads` chunks run at a time.
class Areas {
 public:
  Areas(void* base, int64_t bytes) : base_(static_cast<char*>(base)), bytes_(bytes) {
    for (auto& flag : taken_) flag.clear(std::memory_order_relaxed);
  }
  int32_t take() noexcept {
    for (int32_t i = 0;; i = (i + 1) % kMaxThreads)
      if (!taken_[i].test_and_set(std::memory_order_acquire)) return i;
  }
  void give(int32_t i) noexcept { taken_[i].clear(std::memory_order_release); }
  void* at(int32_t i) const noexcept { return base_ + i * bytes_; }

 private:
  char* base_;
  int64_t bytes_;
  std::atomic_flag taken_[kMaxThreads];
};

bool valid(const AttentionArgs& args) noexcept {
  const bool head_dim = args.head_dim == 32 || args.head_dim == 64 || args.head_dim == 128;
  return head_dim && args.kv_heads > 0 && args.heads % args.kv_heads == 0 && args.scale > 0 && args.window >= 0;
}

template <class Unit>
Status run_units(const AttentionArgs& args, void* scratch, int32_t threads, bool backward, Unit unit) noexcept {
  if (!valid(args)) return Status::kInvalidArgument;
  if (threads > kMaxThreads) threads = kMaxThreads;
  Areas areas(scratch, kernels_for(args).scratch_bytes(args, backward));
  parallel_for(args.documents * args.kv_heads, 1, threads, [&](int64_t index, int64_t, int64_t) {
    const Document document = document_of(args, index / args.kv_heads);
    if (document.length == 0) return;
    const int32_t area = areas.take();
    unit(args, document, static_cast<int32_t>(index % args.kv_heads), areas.at(area));
    areas.give(area);
  });
  return Status::kOk;
}

}  // namespace

int64_t attention_longest(const int32_t* cu_seqlens, int64_t documents, int64_t tokens) noexcept {
  int64_t longest = 0, at = 0;
  if (cu_seqlens[0] != 0) return -1;
  for (int64_t s = 1; s <= documents; ++s) {
    const int64_t length = cu_seqlens[s] - at;
    if (length < 0) return -1;
    longest = length > longest ? length : longest;
    at = cu_seqlens[s];
  }
  return at == tokens ? longest : -1;
}

int64_t attention_scratch_bytes(const AttentionArgs& args, bool backward) noexcept {
  return kernels_for(args).scratch_bytes(args, backward);
}

Status attention_forward(const AttentionArgs& args, void* scratch, int32_t threads) noexcept {
  return run_units(args, scratch, threads, false, kernels_for(args).forward);
}

Status attention_backward(const AttentionArgs& args, void* scratch, int32_t threads) noexcept {
  return run_units(args, scratch, threads, true, kernels_for(args).backward);
}

}  // namespace golf
