// A warp takes a row. kPacks > 0: each lane keeps kPacks packs of kCount neighboring numbers of it in registers, so
// that memory is read once; 0: any width, with numbers read again where they are needed twice.
//
// Gradients of a, s and b are summed over the rows of a warp in registers (kPacks 0: shared memory), over the warps of
// a block and over blocks, in an order that only n decides.
#include "device/column_sums.h"
#include "device/cuda.h"
#include "device/memory.h"
#include "device/reduce.h"
#include "device/types.h"
#include "norm/norm.h"

namespace golf {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * kWarpSize;
constexpr int kBackWarps = 4, kBackThreads = kBackWarps * kWarpSize;  // three blocks fit with 168 registers a thread
constexpr int64_t kMaxPartials = 396;  // blocks that leave sums behind: three a multiprocessor of an H100

template <int kCount, int kPacks>
GOLF_DEVICE int64_t packs_of(int64_t d) {
  return kPacks > 0 ? kPacks : (d + kWarpSize * kCount - 1) / (kWarpSize * kCount);
}

template <class S, class B, int kCount>
GOLF_DEVICE Floats<kCount> mixed(const NormForward& args, int64_t row, int64_t at) {
  Floats<kCount> value = load_floats<kCount>(static_cast<const S*>(args.x) + row * args.x_stride + at);
  if (args.y != nullptr) {
    const Floats<kCount> y = load_floats<kCount>(static_cast<const B*>(args.y) + row * args.y_stride + at);
    if (args.s != nullptr) {
      const Floats<kCount> s = load_floats<kCount>(args.s + at);
#pragma unroll
      for (int i = 0; i < kCount; ++i) value.at[i] = fmaf(s.at[i], y.at[i], value.at[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) value.at[i] += y.at[i];
    }
  }
  if (args.a != nullptr) {
    const Floats<kCount> a = load_floats<kCount>(args.a + at);
#pragma unroll
    for (int i = 0; i < kCount; ++i) value.at[i] *= a.at[i];
  }
  if (args.b != nullptr) {
    const Floats<kCount> b = load_floats<kCount>(args.b + at);
    const Floats<kCount> x0 = load_floats<kCount>(static_cast<const S*>(args.x0) + row * args.x0_stride + at);
#pragma unroll
    for (int i = 0; i < kCount; ++i) value.at[i] = fmaf(b.at[i], x0.at[i], value.at[i]);
  }
  return value;
}

template <class S, class B, int kCount, int kPacks>
GOLF_KERNEL(forward, kThreads, 3, NormForward args) {
  const int64_t lane = threadIdx.x % kWarpSize, packs = packs_of<kCount, kPacks>(args.d);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
  for (int64_t row = first; row < args.n; row += static_cast<int64_t>(gridDim.x) * kWarps) {
    Floats<kCount> values[kPacks > 0 ? kPacks : 1];
    float squares = 0.0f;
#pragma unroll
    for (int64_t j = 0; j < packs; ++j) {
      const int64_t at = (j * kWarpSize + lane) * kCount;
      if (at >= args.d) break;
      Floats<kCount>& value = values[kPacks > 0 ? j : 0];
      value = mixed<S, B, kCount>(args, row, at);
      if (args.r != nullptr) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) value.at[i] = to_float(from_float<S>(value.at[i]));
        store_floats(static_cast<S*>(args.r) + row * args.d + at, value);
      }
#pragma unroll
      for (int i = 0; i < kCount; ++i) squares = fmaf(value.at[i], value.at[i], squares);
    }
    if (args.h == nullptr) continue;  // the residual's sum alone
    const float rstd = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(args.d) + args.eps), scale = rstd * args.c;
    if (lane == 0) args.rstd[row] = rstd;
    const S* again = args.r != nullptr ? static_cast<const S*>(args.r) + row * args.d
                                       : static_cast<const S*>(args.x) + row * args.x_stride;
#pragma unroll
    for (int64_t j = 0; j < packs; ++j) {
      const int64_t at = (j * kWarpSize + lane) * kCount;
      if (at >= args.d) break;
      Floats<kCount> value;
      if constexpr (kPacks > 0)
        value = values[j];
      else
        value = load_own_floats<kCount>(again + at);
#pragma unroll
      for (int i = 0; i < kCount; ++i) value.at[i] *= scale;
      store_floats(static_cast<B*>(args.h) + row * args.d + at, value);
    }
  }
}

// The three sums of a thread's columns.
template <int kCount>
struct Sums {
  Floats<kCount> a, s, b;
};

template <int kCount>
GOLF_DEVICE void add_product(Floats<kCount>& sum, const Floats<kCount>& x, const Floats<kCount>& y) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum.at[i] = fmaf(x.at[i], y.at[i], sum.at[i]);
}

template <int kCount>
GOLF_DEVICE Floats<kCount> product(const Floats<kCount>& x, const Floats<kCount>& y) {
  Floats<kCount> out;
#pragma unroll
  for (int i = 0; i < kCount; ++i) out.at[i] = x.at[i] * y.at[i];
  return out;
}

// From the gradient g of r at `at`: the gradients of what was mixed.
template <class S, class B, int kCount>
GOLF_DEVICE void unmix(const NormBackward& args, int64_t row, int64_t at, Floats<kCount> g, Sums<kCount>& sums) {
  if (args.b != nullptr) {
    if (args.db != nullptr)
      add_product(sums.b, g, load_floats<kCount>(static_cast<const S*>(args.x0) + row * args.x0_stride + at));
    if (args.dx0 != nullptr)
      store_floats(static_cast<S*>(args.dx0) + row * args.d + at, product(g, load_floats<kCount>(args.b + at)));
  }
  Floats<kCount> y{}, s;
#pragma unroll
  for (int i = 0; i < kCount; ++i) s.at[i] = 1.0f;
  if (args.y != nullptr) {
    y = load_floats<kCount>(static_cast<const B*>(args.y) + row * args.y_stride + at);
    if (args.s != nullptr) s = load_floats<kCount>(args.s + at);
  }
  if (args.a != nullptr) {
    Floats<kCount> mix = load_floats<kCount>(static_cast<const S*>(args.x) + row * args.x_stride + at);
    if (args.y != nullptr) add_product(mix, s, y);
    add_product(sums.a, g, mix);
    g = product(g, load_floats<kCount>(args.a + at));
  }
  if (args.ds != nullptr) add_product(sums.s, g, y);
  if (args.dy != nullptr) store_floats(static_cast<B*>(args.dy) + row * args.d + at, product(s, g));
  if (args.dx != nullptr) store_floats(static_cast<S*>(args.dx) + row * args.d + at, g);
}

// dh . r over the row; with kPacks both stay in registers.
template <class S, class B, int kCount, int kPacks>
struct Row {
  Floats<kCount> r[kPacks > 0 ? kPacks : 1], dh[kPacks > 0 ? kPacks : 1];

  GOLF_DEVICE void read(const NormBackward& args, int64_t row, int64_t at, int64_t j) {
    r[kPacks > 0 ? j : 0] = load_floats<kCount>(static_cast<const S*>(args.r) + row * args.r_stride + at);
    dh[kPacks > 0 ? j : 0] = load_floats<kCount>(static_cast<const B*>(args.dh) + row * args.dh_stride + at);
  }

  GOLF_DEVICE float dot(const NormBackward& args, int64_t row, int64_t lane) {
    float total = 0.0f;
#pragma unroll
    for (int64_t j = 0; j < packs_of<kCount, kPacks>(args.d); ++j) {
      const int64_t at = (j * kWarpSize + lane) * kCount;
      if (at >= args.d) break;
      read(args, row, at, j);
#pragma unroll
      for (int i = 0; i < kCount; ++i) total = fmaf(dh[kPacks > 0 ? j : 0].at[i], r[kPacks > 0 ? j : 0].at[i], total);
    }
    return warp_sum(total);
  }
};

// Rows first, first + step, ...; with_sums(j, at, add) calls add() with the thread's sums for pack j, which begins at
// column `at`.
template <class S, class B, int kCount, int kPacks, class WithSums>
GOLF_DEVICE void backward_rows(const NormBackward& args, int64_t first, int64_t step, const WithSums& with_sums) {
  const int64_t lane = threadIdx.x % kWarpSize;
  for (int64_t row = first; row < args.n; row += step) {
    Row<S, B, kCount, kPacks> numbers;
    const float rstd = args.dh != nullptr ? args.rstd[row] : 0.0f, scale = rstd * args.c;
    const float dot = args.dh != nullptr ? numbers.dot(args, row, lane) : 0.0f;
    const float pull = rstd * rstd * scale * dot / static_cast<float>(args.d);
#pragma unroll
    for (int64_t j = 0; j < packs_of<kCount, kPacks>(args.d); ++j) {
      const int64_t at = (j * kWarpSize + lane) * kCount;
      if (at >= args.d) break;
      Floats<kCount> g{};
      if (args.dr != nullptr) g = load_floats<kCount>(static_cast<const S*>(args.dr) + row * args.dr_stride + at);
      if (args.dh != nullptr) {
        if constexpr (kPacks == 0) numbers.read(args, row, at, j);
#pragma unroll
        for (int i = 0; i < kCount; ++i)
          g.at[i] = fmaf(-pull, numbers.r[kPacks > 0 ? j : 0].at[i],
                         fmaf(scale, numbers.dh[kPacks > 0 ? j : 0].at[i], g.at[i]));
      }
      with_sums(j, at, [&](Sums<kCount>& sums) { unmix<S, B, kCount>(args, row, at, g, sums); });
    }
  }
}

template <class S, class B, int kCount, int kPacks>
GOLF_KERNEL(backward, kBackThreads, kPacks > 2 ? 2 : 3, NormBackward args) {
  static_assert(kPacks > 0);
  constexpr int kColumns = kWarpSize * kCount, kAll = kBackWarps * kColumns;
  GOLF_SHARED(float, of_warps, kAll);
  Sums<kCount> sums[kPacks] = {};
  const int64_t warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  backward_rows<S, B, kCount, kPacks>(args, blockIdx.x * int64_t{kBackWarps} + warp, gridDim.x * int64_t{kBackWarps},
                                      [&](int64_t j, int64_t, const auto& add) { add(sums[j]); });
  if (args.partials == nullptr) return;
  float* const out = args.partials + blockIdx.x * 3 * args.d;
#pragma unroll
  for (int j = 0; j < kPacks; ++j) {
#pragma unroll
    for (int which = 0; which < 3; ++which) {
      const Floats<kCount>& mine = which == 0 ? sums[j].a : which == 1 ? sums[j].s : sums[j].b;
      __syncthreads();  // the sums before these have been read
      store_floats(of_warps + (warp * kWarpSize + lane) * kCount, mine);
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < kColumns; i += kBackThreads) {
        const int64_t column = j * int64_t{kColumns} + i;
        float total = 0.0f;
#pragma unroll
        for (int w = 0; w < kBackWarps; ++w) total += of_warps[w * kColumns + i];
        if (column < args.d) out[which * args.d + column] = total;
      }
    }
  }
}

// Any width: a block is one warp, whose sums lie in shared memory, [3, d], each column with one owner.
template <class S, class B, int kCount>
GOLF_KERNEL(backward_wide, kWarpSize, 1, NormBackward args) {
  GOLF_DYNAMIC_SHARED(bytes);
  float* const shared = reinterpret_cast<float*>(bytes);
  const int64_t lane = threadIdx.x, d = args.d;
  const bool summed = args.partials != nullptr;
  const auto for_columns = [&](const auto& fn) {
    for (int64_t at = lane * kCount; summed && at < d; at += kWarpSize * kCount) fn(at);
  };
  const auto keep = [&](int64_t at, const Sums<kCount>& sums) {
    store_floats(shared + at, sums.a);
    store_floats(shared + d + at, sums.s);
    store_floats(shared + 2 * d + at, sums.b);
  };
  const auto kept = [&](int64_t at) {
    return Sums<kCount>{load_own_floats<kCount>(shared + at), load_own_floats<kCount>(shared + d + at),
                        load_own_floats<kCount>(shared + 2 * d + at)};
  };
  for_columns([&](int64_t at) { keep(at, Sums<kCount>{}); });
  backward_rows<S, B, kCount, 0>(args, blockIdx.x, gridDim.x, [&](int64_t, int64_t at, const auto& add) {
    Sums<kCount> sums = summed ? kept(at) : Sums<kCount>{};
    add(sums);
    if (summed) keep(at, sums);
  });
  float* const out = args.partials + blockIdx.x * 3 * d;
  for_columns([&](int64_t at) {
    const Sums<kCount> sums = kept(at);
    store_floats(out + at, sums.a);
    store_floats(out + d + at, sums.s);
    store_floats(out + 2 * d + at, sums.b);
  });
}

GOLF_KERNEL(add_partials, kSumThreads, 1, NormBackward args, int64_t rows) {
  const ColumnSum sum = column_sum(args.partials, rows, 3 * args.d);
  if (!sum.valid) return;
  const int64_t which = sum.column / args.d;
  float* const out = which == 0 ? args.da : which == 1 ? args.ds : args.db;
  if (out != nullptr) out[sum.column % args.d] = sum.total;
}

int64_t partials_of(int64_t n) noexcept {
  const int64_t blocks = (n + kBackWarps - 1) / kBackWarps;
  return blocks < kMaxPartials ? blocks : kMaxPartials;
}

// Whether every row that is given can be read and written in 16-byte accesses of packs of 8.
template <class Args>
bool packed(const Args& args, int64_t size_of_stream, int64_t size_of_branch, const void* const* stream,
            const int64_t* stream_strides, int streams, const void* const* branch, const int64_t* branch_strides,
            int branches) noexcept {
  bool all = args.d % 8 == 0;
  for (int i = 0; i < streams; ++i) all &= aligned<16>(stream[i], stream_strides[i] * size_of_stream);
  for (int i = 0; i < branches; ++i) all &= aligned<16>(branch[i], branch_strides[i] * size_of_branch);
  return all;
}

template <class S, class B, int kCount, int kPacks>
Status launch_forward(const NormForward& args, Stream stream) noexcept {
  return GOLF_LAUNCH((forward<S, B, kCount, kPacks>), blocks_for(args.n, kWarps), kThreads, 0, stream, args);
}

template <class S, class B>
Status forward_of(const NormForward& args, Stream stream) noexcept {
  const void* const streams[] = {args.x, args.x0, args.r, args.a, args.s, args.b};
  const int64_t stream_strides[] = {args.x_stride, args.x0_stride, 0, 0, 0, 0};
  const void* const branches[] = {args.y, args.h};
  const int64_t branch_strides[] = {args.y_stride, 0};
  if (!packed(args, sizeof(S), sizeof(B), streams, stream_strides, 6, branches, branch_strides, 2))
    return launch_forward<S, B, 1, 0>(args, stream);
  if (args.d <= 512) return launch_forward<S, B, 8, 2>(args, stream);
  if (args.d <= 1024) return launch_forward<S, B, 8, 4>(args, stream);
  return launch_forward<S, B, 8, 0>(args, stream);
}

template <class S, class B>
Status backward_of(const NormBackward& args, Stream stream) noexcept {
  const void* const streams[] = {args.dr, args.r, args.x, args.x0, args.dx, args.dx0, args.a, args.s, args.b};
  const int64_t stream_strides[] = {args.dr_stride, args.r_stride, args.x_stride, args.x0_stride, 0, 0, 0, 0, 0};
  const void* const branches[] = {args.dh, args.y, args.dy};
  const int64_t branch_strides[] = {args.dh_stride, args.y_stride, 0};
  const bool in_packs = packed(args, sizeof(S), sizeof(B), streams, stream_strides, 9, branches, branch_strides, 3);
  const unsigned blocks = static_cast<unsigned>(partials_of(args.n));
  const size_t sums = args.partials != nullptr ? static_cast<size_t>(3 * args.d) * sizeof(float) : 0;
  if (in_packs && args.d <= 512) return GOLF_LAUNCH((backward<S, B, 8, 2>), blocks, kBackThreads, 0, stream, args);
  if (in_packs && args.d <= 1024) return GOLF_LAUNCH((backward<S, B, 8, 4>), blocks, kBackThreads, 0, stream, args);
  if (in_packs) return GOLF_LAUNCH((backward_wide<S, B, 8>), blocks, kWarpSize, sums, stream, args);
  return GOLF_LAUNCH((backward_wide<S, B, 1>), blocks, kWarpSize, sums, stream, args);
}

}  // namespace

int64_t norm_partials_device(int64_t n) noexcept { return partials_of(n); }

Status norm_forward_device(DType stream_type, DType branch_type, const NormForward& args, Stream stream) noexcept {
  if (args.d <= 0 || args.n < 0) return Status::kInvalidArgument;
  if (args.n == 0) return Status::kOk;
  if ((args.b == nullptr) != (args.x0 == nullptr)) return Status::kInvalidArgument;
  if (args.h == nullptr && args.r == nullptr) return Status::kInvalidArgument;
  if (stream_type == DType::kBF16)
    return branch_type == DType::kBF16 ? forward_of<bf16, bf16>(args, stream) : Status::kInvalidArgument;
  return branch_type == DType::kF32 ? forward_of<float, float>(args, stream) : forward_of<float, bf16>(args, stream);
}

Status norm_backward_device(DType stream_type, DType branch_type, const NormBackward& args, Stream stream) noexcept {
  const bool summed = args.da != nullptr || args.ds != nullptr || args.db != nullptr;
  if (args.d <= 0 || args.n < 0 || (summed && args.partials == nullptr && args.n > 0)) return Status::kInvalidArgument;
  if (args.d > kNormMaxWidthDevice && summed) return Status::kInvalidArgument;
  Status status = Status::kOk;
  if (args.n > 0) {
    if ((args.b == nullptr) != (args.x0 == nullptr)) return Status::kInvalidArgument;
    if (stream_type == DType::kBF16)
      status = branch_type == DType::kBF16 ? backward_of<bf16, bf16>(args, stream) : Status::kInvalidArgument;
    else
      status =
          branch_type == DType::kF32 ? backward_of<float, float>(args, stream) : backward_of<float, bf16>(args, stream);
  }
  if (status != Status::kOk || !summed) return status;
  return GOLF_LAUNCH(add_partials, column_sum_blocks(3 * args.d), kSumThreads, 0, stream, args, partials_of(args.n));
}

}  // namespace golf
