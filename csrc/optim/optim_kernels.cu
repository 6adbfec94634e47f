// Many tensors in one launch: their addresses are an argument of the kernel, so nothing is copied to the device before,
// and a launch can be captured. Work is cut into chunks of one tensor each, as on the processor. Scalars are arguments
// too: a captured step would repeat its rates.
#include "device/cuda.h"
#include "device/memory.h"
#include "device/reduce.h"
#include "device/types.h"
#include "optim/optim.h"

namespace golf {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;
constexpr int kPack = 8;              // numbers of a thread at a time: 16 bytes of bf16, twice 16 of f32
constexpr int64_t kChunk = 4096;      // two packs a thread
constexpr int64_t kRowsOfBlock = 32;  // of a matrix, in Muon's second pass: the sum over all its rows is taken anew

// What fits into a kernel's arguments, 4 KB on every device and toolkit, beside the scalars.
constexpr int32_t kTensors = 48;
struct Batch {
  OptimTensor tensors[kTensors];
  int32_t count;
};
static_assert(sizeof(Batch) + 128 <= 4096);

// Calls fn(tensor, its index, begin, end) for the block's chunks.
template <class Fn>
GOLF_DEVICE void for_chunks(const Batch& batch, int64_t chunks, const Fn& fn) {
  for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    int32_t low = 0, high = batch.count;  // first_chunk is ascending, and no tensor is empty
    while (high - low > 1) {
      const int32_t middle = (low + high) / 2;
      if (batch.tensors[middle].first_chunk <= chunk)
        low = middle;
      else
        high = middle;
    }
    const OptimTensor& t = batch.tensors[low];
    const int64_t begin = (chunk - t.first_chunk) * kChunk;
    fn(t, low, begin, begin + kChunk < t.n ? begin + kChunk : t.n);
  }
}

GOLF_DEVICE bool in_packs(const OptimTensor& t, const bf16* update) {
  const auto bits = [](const void* p) { return reinterpret_cast<uintptr_t>(p); };
  return (bits(t.p) | bits(t.g) | bits(t.m) | bits(t.v) | bits(t.ema) | bits(t.shadow) | bits(update)) % 16 == 0;
}

// Calls fn(Count<..>{}, i) for the thread's numbers of [begin, end): packs, then what is left over one by one.
template <int kCount_>
struct Count {
  static constexpr int kCount = kCount_;
};

template <class Fn>
GOLF_DEVICE void for_packs(bool packs, int64_t begin, int64_t end, const Fn& fn) {
  const int64_t whole = packs ? begin + (end - begin) / kPack * kPack : begin;
  for (int64_t i = begin + threadIdx.x * kPack; i < whole; i += kThreads * kPack) fn(Count<kPack>{}, i);
  for (int64_t i = whole + threadIdx.x; i < end; i += kThreads) fn(Count<1>{}, i);
}

template <int kCount>
GOLF_DEVICE Floats<kCount> load_gradient(const OptimTensor& t, int64_t i) {
  return t.g_dtype == DType::kF32 ? load_floats<kCount>(static_cast<const float*>(t.g) + i)
                                  : load_floats<kCount>(static_cast<const bf16*>(t.g) + i);
}

// The new parameters, with their average and their copy.
template <int kCount>
GOLF_DEVICE void store_parameters(const OptimTensor& t, int64_t i, const Floats<kCount>& p, float ema_rate) {
  store_floats(t.p + i, p);
  if (t.ema != nullptr) {
    Floats<kCount> average = load_own_floats<kCount>(t.ema + i);
#pragma unroll
    for (int j = 0; j < kCount; ++j) average.at[j] = fmaf(ema_rate, p.at[j] - average.at[j], average.at[j]);
    store_floats(t.ema + i, average);
  }
  if (t.shadow != nullptr) store_floats(t.shadow + i, p);
}

GOLF_KERNEL(adamw, kThreads, 3, Batch batch, int64_t chunks, AdamStep a) {
  for_chunks(batch, chunks, [&](const OptimTensor& t, int32_t, int64_t begin, int64_t end) {
    const float keep = 1.0f - t.lr * t.weight_decay, step = t.lr / a.bias1, inverse_root = 1.0f / sqrtf(a.bias2);
    for_packs(in_packs(t, nullptr), begin, end, [&](auto count, int64_t i) {
      constexpr int kCount = decltype(count)::kCount;
      const Floats<kCount> g = load_gradient<kCount>(t, i);
      Floats<kCount> m = load_own_floats<kCount>(t.m + i), v = load_own_floats<kCount>(t.v + i);
      Floats<kCount> p = load_own_floats<kCount>(t.p + i);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        const float scaled = g.at[j] * a.grad_scale;
        m.at[j] = fmaf(1.0f - a.beta1, scaled - m.at[j], m.at[j]);
        v.at[j] = fmaf(1.0f - a.beta2, scaled * scaled, a.beta2 * v.at[j]);
        p.at[j] = fmaf(-step, m.at[j] / fmaf(sqrtf(v.at[j]), inverse_root, a.eps), p.at[j] * keep);
      }
      store_floats(t.m + i, m);
      store_floats(t.v + i, v);
      store_parameters(t, i, p, a.ema_rate);
    });
  });
}

GOLF_KERNEL(apply, kThreads, 4, Batch batch, int64_t chunks, const bf16* update, float factor, float ema_rate) {
  for_chunks(batch, chunks, [&](const OptimTensor& t, int32_t index, int64_t begin, int64_t end) {
    const float keep = 1.0f - t.lr * t.weight_decay, step = t.lr * factor;
    const bf16* const u = update + index * t.n;  // matrices of one shape
    for_packs(in_packs(t, u), begin, end, [&](auto count, int64_t i) {
      constexpr int kCount = decltype(count)::kCount;
      const Floats<kCount> du = load_floats<kCount>(u + i);
      Floats<kCount> p = load_own_floats<kCount>(t.p + i);
#pragma unroll
      for (int j = 0; j < kCount; ++j) p.at[j] = fmaf(-step, du.at[j], p.at[j] * keep);
      store_parameters(t, i, p, ema_rate);
    });
  });
}

// Muon's first pass: a warp takes a row. norms2 [count, rows]: ||u row||^2.
template <int kCount>
GOLF_KERNEL(momentum, kThreads, 4, Batch batch, int64_t rows, int64_t columns, float mu, float* norms2) {
  const int64_t lane = threadIdx.x % kWarpSize, all = batch.count * rows;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize; at < all;
       at += static_cast<int64_t>(gridDim.x) * kWarps) {
    const OptimTensor& t = batch.tensors[at / rows];
    const int64_t row = at % rows * columns;
    float total = 0.0f;
    for (int64_t i = lane * kCount; i < columns; i += kWarpSize * kCount) {
      const Floats<kCount> g = load_gradient<kCount>(t, row + i);
      Floats<kCount> m = load_own_floats<kCount>(t.m + row + i);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        m.at[j] = fmaf(mu, m.at[j], g.at[j]);
        const float u = fmaf(mu, m.at[j], g.at[j]);
        total = fmaf(u, u, total);
      }
      store_floats(t.m + row + i, m);
    }
    total = warp_sum(total);
    if (lane == 0) norms2[at] = total;
  }
}

// Its second pass: a block takes kRowsOfBlock rows of a matrix.
template <int kCount>
GOLF_KERNEL(normalize, kThreads, 4, Batch batch, int64_t rows, int64_t columns, float mu, bool row_norm, float eps,
            const float* norms2, bf16* bank) {
  GOLF_SHARED(float, of_warps, kWarps);
  const int64_t warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int64_t pieces = (rows + kRowsOfBlock - 1) / kRowsOfBlock;
  const int64_t matrix = blockIdx.x / pieces, first = blockIdx.x % pieces * kRowsOfBlock;
  const float* const norms = norms2 + matrix * rows;
  float total = 0.0f;
  for (int64_t row = threadIdx.x; row < rows; row += kThreads) {
    const float norm = sqrtf(norms[row]), scaled = row_norm ? norm / (norm + eps) : norm;
    total = fmaf(scaled, scaled, total);
  }
  const float whole = 1.0f / (sqrtf(block_sum<kWarps>(total, of_warps)) + eps);
  const OptimTensor& t = batch.tensors[matrix];
  for (int64_t row = first + warp; row < first + kRowsOfBlock && row < rows; row += kWarps) {
    const float scale = row_norm ? whole / (sqrtf(norms[row]) + eps) : whole;
    for (int64_t i = lane * kCount; i < columns; i += kWarpSize * kCount) {
      const Floats<kCount> g = load_gradient<kCount>(t, row * columns + i);
      Floats<kCount> u = load_floats<kCount>(t.m + row * columns + i);
#pragma unroll
      for (int j = 0; j < kCount; ++j) u.at[j] = fmaf(mu, u.at[j], g.at[j]) * scale;
      store_floats(bank + (matrix * rows + row) * columns + i, u);
    }
  }
}

// Calls fn(batch, its number of chunks, index of its first tensor) for the tensors, in order, without the empty ones.
template <class Fn>
Status for_batches(const OptimTensor* tensors, int64_t count, const Fn& fn) noexcept {
  Batch batch;
  for (int64_t next = 0; next < count;) {
    batch.count = 0;
    int64_t chunks = 0;
    const int64_t first = next;
    for (; next < count && batch.count < kTensors; ++next) {
      if (tensors[next].n == 0) continue;
      batch.tensors[batch.count] = tensors[next];
      batch.tensors[batch.count++].first_chunk = chunks;
      chunks += (tensors[next].n + kChunk - 1) / kChunk;
    }
    if (batch.count == 0) continue;
    for (int32_t i = batch.count; i < kTensors; ++i) batch.tensors[i] = {};
    const Status status = fn(batch, chunks, first);
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

template <int kCount>
Status launch_momentum(const Batch& batch, int64_t rows, int64_t columns, float mu, bool row_norm, float eps,
                       bf16* bank, float* norms2, Stream stream) noexcept {
  const Status status = GOLF_LAUNCH((momentum<kCount>), blocks_for(batch.count * rows, kWarps), kThreads, 0, stream,
                                    batch, rows, columns, mu, norms2);
  if (status != Status::kOk) return status;
  const int64_t pieces = batch.count * ((rows + kRowsOfBlock - 1) / kRowsOfBlock);
  return GOLF_LAUNCH((normalize<kCount>), static_cast<unsigned>(pieces), kThreads, 0, stream, batch, rows, columns, mu,
                     row_norm, eps, static_cast<const float*>(norms2), bank);
}

}  // namespace

Status adamw_step_device(const OptimTensor* tensors, int64_t count, const AdamStep& step, Stream stream) noexcept {
  return for_batches(tensors, count, [&](const Batch& batch, int64_t chunks, int64_t) {
    return GOLF_LAUNCH(adamw, blocks_for(chunks, 1), kThreads, 0, stream, batch, chunks, step);
  });
}

Status muon_momentum_device(const OptimTensor* tensors, int64_t count, int64_t rows, int64_t columns, float momentum,
                            bool row_norm, float eps, bf16* bank, float* norms2, Stream stream) noexcept {
  if (rows < 1 || columns < 1 || rows >= int64_t{1} << 26) return Status::kInvalidArgument;
  return for_batches(tensors, count, [&](const Batch& batch, int64_t, int64_t first) {
    bool packs = columns % kPack == 0 && aligned<16>(bank);
    for (int32_t i = 0; i < batch.count; ++i)
      packs = packs && aligned<16>(batch.tensors[i].g) && aligned<16>(batch.tensors[i].m);
    bf16* const to = bank + first * rows * columns;
    return packs ? launch_momentum<kPack>(batch, rows, columns, momentum, row_norm, eps, to, norms2 + first * rows,
                                          stream)
                 : launch_momentum<1>(batch, rows, columns, momentum, row_norm, eps, to, norms2 + first * rows, stream);
  });
}

Status muon_apply_device(const OptimTensor* tensors, int64_t count, const bf16* update, float factor, float ema_rate,
                         Stream stream) noexcept {
  return for_batches(tensors, count, [&](const Batch& batch, int64_t chunks, int64_t first) {
    return GOLF_LAUNCH(apply, blocks_for(chunks, 1), kThreads, 0, stream, batch, chunks, update + first * tensors[0].n,
                       factor, ema_rate);
  });
}

}  // namespace golf
