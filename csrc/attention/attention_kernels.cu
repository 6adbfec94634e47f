// Launches of attention's kernels: a block of four warps a tile, grids without a look at cu_seqlens, which lies on the
// GPU. Only bf16 has tensor cores here; other types are the reference's.
#include "attention/device_backward.h"
#include "attention/device_forward.h"

namespace golf {
namespace {

constexpr int64_t kMaxTokens = 1 << 30;  // positions are 32-bit numbers, with room for a tile beyond the last

bool near(const Strides& strides) noexcept { return strides.token >= 0 && strides.token <= INT32_MAX / 2; }

bool valid(const AttentionArgs& args) noexcept {
  return args.dtype == DType::kBF16 && args.batch >= 0 && args.tokens >= 0 && args.tokens <= kMaxTokens &&
         args.kv_heads > 0 && args.heads > 0 && args.heads % args.kv_heads == 0 && args.scale > 0 && args.window >= 0 &&
         near(args.q_strides) && near(args.k_strides) && near(args.v_strides) &&
         int64_t{args.heads} * args.head_dim <= INT32_MAX / 2 &&
         (args.cu_seqlens == nullptr || (args.batch == 1 && args.documents > 0 && args.documents <= kMaxTokens));
}

// Grids have one dimension, of at most 2^31 - 1 blocks.
template <class Kernel>
Status with_blocks(int64_t blocks, const Kernel& kernel) noexcept {
  return blocks > INT32_MAX ? Status::kInvalidArgument : kernel(static_cast<unsigned>(blocks));
}

template <int kH>
Status launch_forward(const AttentionArgs& args, Stream stream) noexcept {
  using Tiles = ForwardTiles<kH>;
  const int64_t tiles = (args.tokens + Tiles::kQueries - 1) / Tiles::kQueries;
  return with_blocks(args.batch * tiles * args.heads, [&](unsigned blocks) {
    return GOLF_LAUNCH((forward<kH>), blocks, kThreads, Tiles::kBytes, stream, args);
  });
}

template <int kH>
Status launch_backward(const AttentionArgs& args, Stream stream) noexcept {
  using Keys = KeyTiles<kH>;
  using Queries = QueryTiles<kH>;
  const int64_t rows = args.batch * args.tokens * args.kv_heads * (kH / 8);
  Status status = with_blocks((rows + kThreads - 1) / kThreads, [&](unsigned blocks) {
    return GOLF_LAUNCH((prepare<kH>), blocks, kThreads, 0, stream, args);
  });
  if (status != Status::kOk) return status;
  const int64_t key_tiles = (args.tokens + Keys::kKeys - 1) / Keys::kKeys;
  status = with_blocks(args.batch * key_tiles * args.kv_heads, [&](unsigned blocks) {
    return GOLF_LAUNCH((backward_keys<kH>), blocks, kThreads, Keys::kBytes, stream, args);
  });
  if (status != Status::kOk) return status;
  const int64_t query_tiles = (args.tokens + Queries::kQueries - 1) / Queries::kQueries;
  return with_blocks(args.batch * query_tiles * args.heads, [&](unsigned blocks) {
    return GOLF_LAUNCH((backward_queries<kH>), blocks, kThreads, Queries::kBytes, stream, args);
  });
}

// A window beyond the tokens is none.
AttentionArgs bounded(AttentionArgs args) noexcept {
  if (args.window >= args.tokens) args.window = 0;
  return args;
}

}  // namespace

Status attention_forward_device(const AttentionArgs& args, Stream stream) noexcept {
  if (!valid(args)) return Status::kInvalidArgument;
  if (args.batch * args.tokens == 0) return Status::kOk;
  if (args.head_dim == 32) return launch_forward<32>(bounded(args), stream);
  if (args.head_dim == 64) return launch_forward<64>(bounded(args), stream);
  if (args.head_dim == 128) return launch_forward<128>(bounded(args), stream);
  return Status::kInvalidArgument;
}

Status attention_backward_device(const AttentionArgs& args, Stream stream) noexcept {
  if (!valid(args)) return Status::kInvalidArgument;
  if (args.batch * args.tokens == 0) return Status::kOk;
  if (args.head_dim == 32) return launch_backward<32>(bounded(args), stream);
  if (args.head_dim == 64) return launch_backward<64>(bounded(args), stream);
  if (args.head_dim == 128) return launch_backward<128>(bounded(args), stream);
  return Status::kInvalidArgument;
}

}  // namespace golf
