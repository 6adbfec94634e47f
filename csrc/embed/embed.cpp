#include "embed/embed.h"

#include "isa_table.h"
#include "parallel.h"

namespace golf {
namespace {

constexpr const EmbedKernels* kTable[kIsaCount] = GOLF_ISA_TABLE_F32(embed_kernels);
constexpr int64_t kRowGrain = 16;  // table rows of a chunk

bool valid(const EmbedInput& in) {
  return in.tokens >= 0 && in.length > 0 && in.width > 0 && in.smear >= 0 && in.smear <= in.width &&
         (in.bigram == nullptr || in.slots >= 2);
}

void locate(const EmbedInput& in, int64_t* place, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const bool starts = t % in.length == 0 || in.ids[t] == in.bos;
    int64_t slot = 0;
    if (in.bigram != nullptr) {
      const uint32_t now = static_cast<uint32_t>(in.ids[t]);
      const uint32_t before = starts ? 0 : static_cast<uint32_t>(in.ids[t - 1]);
      slot = starts ? in.slots - 1 : ((36313u * now) ^ (27191u * before)) % static_cast<uint32_t>(in.slots - 1);
    }
    place[t] = starts ? -1 - slot : slot;
  }
}

// Tokens in order of their row (equal rows: of the text), so that each row's sum has one owner and one order.
template <class RowOf>
void sort_by_row(int64_t tokens, int64_t rows, int64_t* order, int64_t* starts, const RowOf& row_of) {
  for (int64_t r = 0; r <= rows; ++r) starts[r] = 0;
  for (int64_t t = 0; t < tokens; ++t) ++starts[row_of(t)];
  int64_t total = 0;
  for (int64_t r = 0; r <= rows; ++r) {
    total += starts[r];
    starts[r] = total;
  }
  for (int64_t t = tokens; t-- > 0;) order[--starts[row_of(t)]] = t;
}

}  // namespace

Status embed_forward(const EmbedInput& in, DType dtype, void* x, int64_t* place, int32_t threads) noexcept {
  if (!valid(in)) return Status::kInvalidArgument;
  const EmbedKernels& kernels = active_kernels(kTable);
  parallel_for(in.tokens, 1024, threads, [&](int64_t, int64_t begin, int64_t end) { locate(in, place, begin, end); });
  parallel_for(in.tokens, kEmbedGrain, threads, [&](int64_t, int64_t begin, int64_t end) {
    if (dtype == DType::kF32)
      kernels.forward_f32(in, place, static_cast<float*>(x), begin, end);
    else
      kernels.forward_bf16(in, place, static_cast<bf16*>(x), begin, end);
  });
  return Status::kOk;
}

Status embed_backward(const EmbedInput& in, DType dtype, const void* dx, const int64_t* place,
                      const EmbedGradients& out, float* de, double* partial, int64_t* order, int32_t threads) noexcept {
  if (!valid(in)) return Status::kInvalidArgument;
  const EmbedKernels& kernels = active_kernels(kTable);
  const int64_t scalars = in.smear + 2;
  parallel_for(in.tokens, kEmbedGrain, threads, [&](int64_t chunk, int64_t begin, int64_t end) {
    if (dtype == DType::kF32)
      kernels.backward_f32(in, place, static_cast<const float*>(dx), de, partial + chunk * scalars, begin, end);
    else
      kernels.backward_bf16(in, place, static_cast<const bf16*>(dx), de, partial + chunk * scalars, begin, end);
  });
  for (int64_t i = 0; i < scalars; ++i) {
    double total = 0;
    for (int64_t chunk = 0; chunk < chunk_count(in.tokens, kEmbedGrain); ++chunk) total += partial[chunk * scalars + i];
    out.scalars[i] = static_cast<float>(total);
  }
  int64_t* starts = order + in.tokens;
  const auto add = [&](int64_t rows, float scale, float* grad) {
    parallel_for(rows, kRowGrain, threads, [&](int64_t, int64_t begin, int64_t end) {
      kernels.add_rows(de, order, starts, scale, grad, in.width, begin, end);
    });
  };
  sort_by_row(in.tokens, in.vocab, order, starts, [&](int64_t t) { return in.ids[t]; });
  add(in.vocab, 1.0f, out.table);
  if (in.bigram != nullptr) {
    sort_by_row(in.tokens, in.slots, order, starts, [&](int64_t t) { return place[t] < 0 ? -1 - place[t] : place[t]; });
    add(in.slots, *in.bigram_scale, out.bigram);
  }
  return Status::kOk;
}

}  // namespace golf
