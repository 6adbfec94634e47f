#include "optim/optim.h"

#include <cmath>

#include "isa_table.h"
#include "parallel.h"

namespace golf {
namespace {

constexpr const OptimKernels* kTable[kIsaCount] = GOLF_ISA_TABLE(optim_kernels);
constexpr int64_t kGrain = 32768;    // elements of a chunk: large against the hand-out
constexpr int64_t kWave = 1 << 20;   // elements of the matrices worked on at a time: their parts stay in an L3 cache
constexpr int64_t kInner = 1 << 11;  // smallest chunk of a wave, in elements
constexpr int64_t kWhole = 1 << 18;  // elements of a matrix that one thread takes on alone, where there are several

// The tensor that chunk `chunk` lies in; first_chunk is ascending, and empty tensors share theirs with the next.
const OptimTensor& tensor_of(const OptimTensor* tensors, int64_t count, int64_t chunk) {
  int64_t low = 0, high = count;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (tensors[middle].first_chunk <= chunk ? low : high) = middle;
  }
  return tensors[low];
}

template <class Fn>
void for_chunks(const OptimTensor* tensors, int64_t count, int32_t threads, const Fn& fn) {
  const int64_t chunks = count == 0 ? 0 : tensors[count - 1].first_chunk + chunk_count(tensors[count - 1].n, kGrain);
  parallel_for(chunks, 1, threads, [&](int64_t chunk, int64_t, int64_t) {
    const OptimTensor& t = tensor_of(tensors, count, chunk);
    const int64_t begin = (chunk - t.first_chunk) * kGrain;
    fn(t, Slice{begin, begin + kGrain < t.n ? begin + kGrain : t.n});
  });
}

// fn(matrix, rows of it) over the matrices [first, last).
template <class Fn>
void for_rows(int64_t first, int64_t last, int64_t rows, int64_t columns, int32_t threads, const Fn& fn) {
  const int64_t grain = columns < kInner ? kInner / columns : 1, pieces = chunk_count(rows, grain);
  parallel_for((last - first) * pieces, 1, threads, [&](int64_t chunk, int64_t, int64_t) {
    const int64_t begin = chunk % pieces * grain;
    fn(first + chunk / pieces, Slice{begin, begin + grain < rows ? begin + grain : rows});
  });
}

constexpr int64_t wave_size(int64_t elements) { return elements < kWave ? kWave / elements : 1; }

template <class Fn>
void for_waves(int64_t count, int64_t elements, const Fn& fn) {
  const int64_t size = wave_size(elements);
  for (int64_t first = 0; first < count; first += size) fn(first, first + size < count ? first + size : count);
}

template <class T>
constexpr int64_t packed_words(int64_t m, int64_t k) {
  return chunk_count(m, kPanelOf<T>) * kPanelOf<T> * (sizeof(T) == sizeof(bf16) ? (k + 1) / 2 : k);
}

// From ||u row||^2 to the factor that makes the whole matrix's norm 1; on one thread, in order.
void scales(float* row_scale, int64_t rows, bool row_norm, float eps) {
  double total = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const float norm = std::sqrt(row_scale[i]);
    const double scaled = row_norm ? static_cast<double>(norm) / (norm + eps) : norm;
    total += scaled * scaled;
    row_scale[i] = row_norm ? 1.0f / (norm + eps) : 1.0f;
  }
  const float whole = 1.0f / (static_cast<float>(std::sqrt(total)) + eps);
  for (int64_t i = 0; i < rows; ++i) row_scale[i] *= whole;
}

int32_t stages(const Polynomial& p) { return p.steps == 1 ? 2 : 6; }

// The products that make up a Polynomial, in order. G, P and PG are matrix i's squares in the workspace. A
// symmetric matrix is its own transpose, which packs without one.
template <class T>
SymmetricProduct<T> product_of(const Polynomial& p, int64_t i, int32_t stage) {
  const int64_t size = p.m * p.m;
  T* G = static_cast<T*>(p.square) + i * size;
  T* P = G + p.count * size;
  T* PG = P + p.count * size;
  T* out = static_cast<T*>(p.out) + i * size;
  const auto plain = [&](const T* a, const T* b, T* to) {
    return SymmetricProduct<T>{a, b, nullptr, to, p.m, p.m, 1, p.m, 1.0f, 0.0f, 0.0f};
  };
  const auto polynomial = [&](const Coefficients& k, T* to) {
    return SymmetricProduct<T>{G, nullptr, G, to, p.m, p.m, 1, p.m, k.c, k.b, k.a};
  };
  switch (stage) {
    case 0:
      return {static_cast<const T*>(p.x) + i * p.matrix_stride,
              nullptr,
              nullptr,
              G,
              p.m,
              p.k,
              p.row_stride,
              p.column_stride,
              1.0f,
              0.0f,
              0.0f};
    case 1:
      return polynomial(p.step[0], p.steps == 1 ? out : P);
    case 2:
      return plain(P, G, PG);
    case 3:
      return plain(PG, P, G);
    case 4:
      return polynomial(p.step[1], PG);
    default:
      return plain(PG, P, out);
  }
}

template <class T>
void polynomial_of(const Polynomial& p, const SymmetricKernels<T>& kernels, void* packed, int32_t threads) {
  const int64_t panels = chunk_count(p.m, kPanelOf<T>), words = packed_words<T>(p.m, p.k);
  const auto left = [&](int64_t i) { return static_cast<uint32_t*>(packed) + 2 * i * words; };
  const auto right = [&](int64_t i, const SymmetricProduct<T>& s) {
    return s.b == nullptr ? left(i) : left(i) + words;
  };
  if (p.m * p.k <= kWhole && p.count >= 4 * threads) {
    parallel_for(p.count, 1, threads, [&](int64_t i, int64_t, int64_t) {
      for (int32_t stage = 0; stage < stages(p); ++stage) {
        const SymmetricProduct<T> s = product_of<T>(p, i, stage);
        for (int64_t j = 0; j < panels; ++j) {
          kernels.pack(s, s.a, j, left(i));
          if (s.b != nullptr) kernels.pack(s, s.b, j, right(i, s));
        }
        for (int64_t j = 0; j < panels; ++j) kernels.multiply(s, j, left(i), right(i, s));
        for (int64_t j = 0; j < panels; ++j) kernels.mirror(s, j);
      }
    });
    return;
  }
  for_waves(p.count, p.m * p.k, [&](int64_t first, int64_t last) {
    const int64_t matrices = last - first;
    for (int32_t stage = 0; stage < stages(p); ++stage) {
      parallel_for(matrices * panels, 1, threads, [&](int64_t at, int64_t, int64_t) {
        const int64_t i = at / panels;
        const SymmetricProduct<T> s = product_of<T>(p, first + i, stage);
        kernels.pack(s, s.a, at % panels, left(i));
        if (s.b != nullptr) kernels.pack(s, s.b, at % panels, right(i, s));
      });
      // By panel first: the long columns are handed out before the short ones.
      parallel_for(matrices * panels, 1, threads, [&](int64_t at, int64_t, int64_t) {
        const int64_t i = at % matrices;
        const SymmetricProduct<T> s = product_of<T>(p, first + i, stage);
        kernels.multiply(s, at / matrices, left(i), right(i, s));
      });
      parallel_for(matrices * panels, 1, threads, [&](int64_t at, int64_t, int64_t) {
        kernels.mirror(product_of<T>(p, first + at / panels, stage), at % panels);
      });
    }
  });
}

}  // namespace

void number_chunks(OptimTensor* tensors, int64_t count) noexcept {
  int64_t chunk = 0;
  for (int64_t i = 0; i < count; ++i) {
    tensors[i].first_chunk = chunk;
    chunk += chunk_count(tensors[i].n, kGrain);
  }
}

Status adamw_step(const OptimTensor* tensors, int64_t count, const AdamStep& step, int32_t threads) noexcept {
  const OptimKernels& kernels = active_kernels(kTable);
  for_chunks(tensors, count, threads, [&](const OptimTensor& t, Slice s) { kernels.adamw(t, s, step); });
  return Status::kOk;
}

Status muon_momentum(const OptimTensor* tensors, int64_t count, int64_t rows, int64_t columns, float momentum,
                     bool row_norm, float eps, DType bank_dtype, void* bank, float* row_scale,
                     int32_t threads) noexcept {
  if (rows < 1 || columns < 1) return Status::kInvalidArgument;
  const OptimKernels& kernels = active_kernels(kTable);
  const auto index = static_cast<int32_t>(bank_dtype);
  for_waves(count, rows * columns, [&](int64_t first, int64_t last) {
    for_rows(first, last, rows, columns, threads,
             [&](int64_t b, Slice s) { kernels.momentum(tensors[b], s, columns, momentum, row_scale + b * rows); });
    parallel_for(last - first, 1, threads,
                 [&](int64_t b, int64_t, int64_t) { scales(row_scale + (first + b) * rows, rows, row_norm, eps); });
    for_rows(first, last, rows, columns, threads, [&](int64_t b, Slice s) {
      char* matrix = static_cast<char*>(bank) + b * rows * columns * size_of(bank_dtype);
      kernels.normalize[index](tensors[b], s, columns, momentum, row_scale + b * rows, matrix);
    });
  });
  return Status::kOk;
}

Status muon_apply(const OptimTensor* tensors, int64_t count, DType update_dtype, const void* update, float factor,
                  float ema_rate, int32_t threads) noexcept {
  const OptimKernels& kernels = active_kernels(kTable);
  for_chunks(tensors, count, threads, [&](const OptimTensor& t, Slice s) {
    const char* matrix = static_cast<const char*>(update) + (&t - tensors) * t.n * size_of(update_dtype);
    kernels.apply[static_cast<int32_t>(update_dtype)](t, s, matrix, factor, ema_rate);
  });
  return Status::kOk;
}

bool has_symmetric_product(DType dtype) noexcept {
  const OptimKernels& kernels = active_kernels(kTable);
  return dtype == DType::kF32 ? kernels.symmetric_f32.multiply != nullptr : kernels.symmetric_bf16.multiply != nullptr;
}

// Two packed matrices for each of a wave's, or of the whole bank's where threads take a matrix each.
int64_t polynomial_workspace(DType dtype, int64_t count, int64_t m, int64_t k) noexcept {
  const int64_t together = m * k <= kWhole || count < wave_size(m * k) ? count : wave_size(m * k);
  return 2 * (dtype == DType::kF32 ? packed_words<float>(m, k) : packed_words<bf16>(m, k)) * 4 * together;
}

Status newton_schulz_polynomial(const Polynomial& p, void* packed, int32_t threads) noexcept {
  if (p.m < 1 || p.k < p.m || (p.row_stride != 1 && p.column_stride != 1) || p.steps < 1 || p.steps > 2 ||
      !has_symmetric_product(p.dtype))
    return Status::kInvalidArgument;
  const OptimKernels& kernels = active_kernels(kTable);
  p.dtype == DType::kF32 ? polynomial_of(p, kernels.symmetric_f32, packed, threads)
                         : polynomial_of(p, kernels.symmetric_bf16, packed, threads);
  return Status::kOk;
}

}  // namespace golf
