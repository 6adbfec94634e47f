// A warp takes a token; in backward it takes a piece of the sorted tokens and 32 packs of columns. Rows of a table that
// lie inside a piece are added to by its warp; of a row that crosses pieces each leaves its part in `edges`, and the
// warp of the piece where the row begins adds them in order. So each sum has one owner, and no atomics.
#include "device/column_sums.h"
#include "device/cuda.h"
#include "device/memory.h"
#include "device/reduce.h"
#include "device/types.h"
#include "embed/embed.h"

namespace golf {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * kWarpSize;
constexpr int64_t kMaxPartials = 396;  // blocks that leave sums behind: three a multiprocessor of an H100
constexpr int64_t kPiece = 64;         // sorted tokens: long rows have many pieces, and few loads wait for each other

// What e of a token is made of.
struct Source {
  const float* token;   // null: the id lies outside of the table
  const float* bigram;  // null for none
  float scale;
};

GOLF_DEVICE Source source(const EmbedInput& in, int64_t token, int64_t place) {
  const int64_t id = in.ids[token], slot = place < 0 ? -1 - place : place;
  const bool paired = in.bigram != nullptr;
  return {id >= 0 && id < in.vocab ? in.table + id * in.width : nullptr, paired ? in.bigram + slot * in.width : nullptr,
          paired ? *in.bigram_scale : 0.0f};
}

template <int kCount>
GOLF_DEVICE Floats<kCount> embedding(const Source& s, int64_t at) {
  Floats<kCount> e;
  if (s.token != nullptr) {
    e = load_floats<kCount>(s.token + at);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) e.at[i] = __uint_as_float(0x7fc00000u);
  }
  if (s.bigram != nullptr) {
    const Floats<kCount> pair = load_floats<kCount>(s.bigram + at);
#pragma unroll
    for (int i = 0; i < kCount; ++i) e.at[i] = fmaf(s.scale, pair.at[i], e.at[i]);
  }
  return e;
}

// sigmoid(w . e[:smear]), for a whole warp.
GOLF_DEVICE float openness(const EmbedInput& in, const Source& s) {
  float dot = 0.0f;
  for (int64_t i = threadIdx.x % kWarpSize; i < in.smear; i += kWarpSize)
    dot = fmaf(in.w[i], embedding<1>(s, i).at[0], dot);
  return 1.0f / (1.0f + expf(-warp_sum(dot)));
}

// embed.h's place of a token that lies `at` in its row.
GOLF_DEVICE int64_t place_of(const EmbedInput& in, int64_t token, uint32_t at) {
  const bool starts = at == 0 || in.ids[token] == in.bos;
  int64_t slot = 0;
  if (in.bigram != nullptr) {
    const uint32_t now = static_cast<uint32_t>(in.ids[token]);
    const uint32_t before = starts ? 0 : static_cast<uint32_t>(in.ids[token - 1]);
    slot = starts ? in.slots - 1 : ((36313u * now) ^ (27191u * before)) % static_cast<uint32_t>(in.slots - 1);
  }
  return starts ? -1 - slot : slot;
}

template <class T, int kCount>
GOLF_KERNEL(forward, kThreads, 4, EmbedInput in, T* x, int64_t* place) {
  const int64_t lane = threadIdx.x % kWarpSize;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
  for (int64_t t = first; t < in.tokens; t += static_cast<int64_t>(gridDim.x) * kWarps) {
    const uint32_t at_row = static_cast<uint32_t>(t) % static_cast<uint32_t>(in.length);
    const int64_t here = place_of(in, t, at_row);
    if (lane == 0) place[t] = here;
    const Source now = source(in, t, here);
    const bool smeared = in.w != nullptr && here >= 0;
    Source before{};
    float gate = 0.0f;
    if (smeared) {
      before = source(in, t - 1, place_of(in, t - 1, at_row - 1));
      gate = *in.lambda * openness(in, now);
    }
    for (int64_t at = lane * kCount; at < in.width; at += kWarpSize * kCount) {
      Floats<kCount> e = embedding<kCount>(now, at);
      if (smeared) {
        const Floats<kCount> other = embedding<kCount>(before, at);
#pragma unroll
        for (int i = 0; i < kCount; ++i) e.at[i] = fmaf(gate, other.at[i], e.at[i]);
      }
      store_floats(x + t * in.width + at, e);
    }
  }
}

// What e's gradient takes beside dx: of each token its gate, 0 where it starts, and the gradient of the gate's logit.
// Besides, the block's sums of dw, dlambda and dbigram_scale.
template <class T, int kCount>
GOLF_KERNEL(factors_of, kThreads, 3, EmbedInput in, const T* dx, const int64_t* place, float* factors,
            float* partials) {
  GOLF_DYNAMIC_SHARED(bytes);
  const int64_t warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize, sums = in.smear + 2;
  float* const all = reinterpret_cast<float*>(bytes);
  float* const mine = all + warp * sums;  // a lane's own columns, so the warp needs no barrier
  for (int64_t i = lane; i < in.smear; i += kWarpSize) mine[i] = 0.0f;
  float dlambda = 0.0f, dscale = 0.0f;
  for (int64_t t = static_cast<int64_t>(blockIdx.x) * kWarps + warp; t < in.tokens;
       t += static_cast<int64_t>(gridDim.x) * kWarps) {
    const Source now = source(in, t, place[t]);
    const T* const d = dx + t * in.width;
    float gate = 0.0f, dlogit = 0.0f;
    if (in.w != nullptr && place[t] >= 0) {
      const Source before = source(in, t - 1, place[t - 1]);
      float dgate = 0.0f;
      for (int64_t at = lane * kCount; at < in.width; at += kWarpSize * kCount) {
        const Floats<kCount> g = load_floats<kCount>(d + at), e = embedding<kCount>(before, at);
#pragma unroll
        for (int i = 0; i < kCount; ++i) dgate = fmaf(g.at[i], e.at[i], dgate);
      }
      dgate = warp_sum(dgate);
      const float open = openness(in, now);
      gate = *in.lambda * open;
      dlogit = gate * (1.0f - open) * dgate;
      dlambda = fmaf(open, dgate, dlambda);
      for (int64_t i = lane; i < in.smear; i += kWarpSize) mine[i] = fmaf(dlogit, embedding<1>(now, i).at[0], mine[i]);
    }
    if (lane == 0) store_floats(factors + 2 * t, Floats<2>{{gate, dlogit}});
    if (in.bigram == nullptr) continue;
    const bool onward = in.w != nullptr && t + 1 < in.tokens && place[t + 1] >= 0;
    const float next = onward ? *in.lambda * openness(in, source(in, t + 1, place[t + 1])) : 0.0f;
    float dot = 0.0f;
    for (int64_t at = lane * kCount; at < in.width; at += kWarpSize * kCount) {
      Floats<kCount> g = load_floats<kCount>(d + at);
      const Floats<kCount> pair = load_floats<kCount>(now.bigram + at);
      if (onward) {
        const Floats<kCount> after = load_floats<kCount>(d + in.width + at);
#pragma unroll
        for (int i = 0; i < kCount; ++i) g.at[i] = fmaf(next, after.at[i], g.at[i]);
      }
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (at + i < in.smear) g.at[i] = fmaf(dlogit, in.w[at + i], g.at[i]);
        dot = fmaf(g.at[i], pair.at[i], dot);
      }
    }
    dscale += warp_sum(dot);
  }
  if (lane == 0) {
    mine[in.smear] = dlambda;
    mine[in.smear + 1] = dscale;
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < sums; i += kThreads) {
    float total = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total += all[w * sums + i];
    partials[blockIdx.x * sums + i] = total;
  }
}

GOLF_KERNEL(add_partials, kSumThreads, 1, const float* partials, int64_t rows, int64_t columns, float* out) {
  const ColumnSum sum = column_sum(partials, rows, columns);
  if (sum.valid) out[sum.column] = sum.total;
}

// A table's gradient from the sorted tokens.
template <class T>
struct RowSums {
  EmbedOrder order;
  const T* dx;
  const int64_t* place;
  const float* factors;  // null without a smear gate
  const float* w;
  const float* scale;  // null: 1
  float* gradient;     // [rows, width], added to
  float* edges;        // [pieces, 2, width]: the part of a row from an earlier piece, and of one that goes on
  int64_t tokens, rows, width, smear;

  GOLF_DEVICE int64_t end_of(int64_t piece) const {
    return (piece + 1) * kPiece < tokens ? (piece + 1) * kPiece : tokens;
  }
  GOLF_DEVICE float* edge(int64_t piece, int which, int64_t at) const {
    return edges + (2 * piece + which) * width + at;
  }
};

template <class T, int kCount>
GOLF_DEVICE void add_to_row(const RowSums<T>& s, int64_t row, int64_t at, const Floats<kCount>& sum) {
  if (row < 0 || row >= s.rows) return;
  const float scale = s.scale != nullptr ? *s.scale : 1.0f;
  float* const to = s.gradient + row * s.width + at;
  Floats<kCount> total = load_own_floats<kCount>(to);
#pragma unroll
  for (int i = 0; i < kCount; ++i) total.at[i] = fmaf(scale, sum.at[i], total.at[i]);
  store_floats(to, total);
}

template <class T, int kCount>
GOLF_DEVICE void add_gradient(const RowSums<T>& s, int64_t token, int64_t at, const Floats<kCount>& w,
                              Floats<kCount>& sum) {
  const T* const from = s.dx + token * s.width + at;
  const Floats<kCount> d = load_floats<kCount>(from);
  float next = 0.0f, dlogit = 0.0f;
  if (s.factors != nullptr) {
    dlogit = load_floats<1>(s.factors + 2 * token + 1).at[0];
    if (token + 1 < s.tokens && s.place[token + 1] >= 0) next = load_floats<1>(s.factors + 2 * (token + 1)).at[0];
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum.at[i] += fmaf(dlogit, w.at[i], d.at[i]);
  if (next == 0.0f) return;
  const Floats<kCount> after = load_floats<kCount>(from + s.width);
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum.at[i] = fmaf(next, after.at[i], sum.at[i]);
}

// Calls fn(piece, at) for the warp's share of pieces and columns.
template <int kCount, class Fn>
GOLF_DEVICE void for_pieces(int64_t tokens, int64_t width, const Fn& fn) {
  const int64_t blocks = (width + kWarpSize * kCount - 1) / (kWarpSize * kCount);
  const int64_t items = (tokens + kPiece - 1) / kPiece * blocks, lane = threadIdx.x % kWarpSize;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize; item < items;
       item += static_cast<int64_t>(gridDim.x) * kWarps) {
    const int64_t at = (item % blocks * kWarpSize + lane) * kCount;
    if (at < width) fn(item / blocks, at);
  }
}

template <class T, int kCount>
GOLF_KERNEL(sum_pieces, kThreads, 4, RowSums<T> s) {
  for_pieces<kCount>(s.tokens, s.width, [&](int64_t piece, int64_t at) {
    const int64_t begin = piece * kPiece, end = s.end_of(piece);
    Floats<kCount> w{}, sum{};
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      if (at + i < s.smear) w.at[i] = s.w[at + i];
    int32_t row = s.order.rows[begin];
    bool from_before = begin > 0 && s.order.rows[begin - 1] == row;
    for (int64_t i = begin; i < end; ++i) {
      const int32_t here = s.order.rows[i];
      if (here != row) {
        if (from_before)
          store_floats(s.edge(piece, 0, at), sum);
        else
          add_to_row(s, row, at, sum);
        sum = Floats<kCount>{};
        row = here, from_before = false;
      }
      add_gradient(s, s.order.tokens[i], at, w, sum);
    }
    if (from_before)
      store_floats(s.edge(piece, 0, at), sum);
    else if (end < s.tokens && s.order.rows[end] == row)
      store_floats(s.edge(piece, 1, at), sum);
    else
      add_to_row(s, row, at, sum);
  });
}

// Rows that begin in one piece and end in another.
template <class T, int kCount>
GOLF_KERNEL(join_pieces, kThreads, 4, RowSums<T> s) {
  for_pieces<kCount>(s.tokens, s.width, [&](int64_t piece, int64_t at) {
    const int64_t begin = piece * kPiece, end = s.end_of(piece), pieces = (s.tokens + kPiece - 1) / kPiece;
    const int32_t row = s.order.rows[end - 1];
    const bool onward = end < s.tokens && s.order.rows[end] == row;
    if (!onward || (begin > 0 && s.order.rows[begin - 1] == row)) return;
    int64_t last = piece + 1, beyond = pieces;  // of the pieces that begin with the row, the last is in [last, beyond)
    while (beyond - last > 1) {
      const int64_t middle = (last + beyond) / 2;
      if (s.order.rows[middle * kPiece] == row)
        last = middle;
      else
        beyond = middle;
    }
    Floats<kCount> sum = load_floats<kCount>(s.edge(piece, 1, at));
#pragma unroll 4
    for (int64_t p = piece + 1; p <= last; ++p) {
      const Floats<kCount> part = load_floats<kCount>(s.edge(p, 0, at));
#pragma unroll
      for (int i = 0; i < kCount; ++i) sum.at[i] += part.at[i];
    }
    add_to_row(s, row, at, sum);
  });
}

bool valid(const EmbedInput& in) noexcept {
  return in.tokens >= 0 && in.tokens < int64_t{1} << 31 && in.length > 0 && in.length < int64_t{1} << 31 &&
         in.width > 0 && in.smear >= 0 && in.smear <= in.width && in.smear <= kEmbedMaxSmearDevice &&
         (in.bigram == nullptr || in.slots >= 2);
}

// Packs of 8 columns, where every row can be read in 16-byte accesses.
bool packed(const EmbedInput& in, const void* x) noexcept {
  return in.width % 8 == 0 && aligned<16>(in.table) && aligned<16>(in.bigram) && aligned<16>(x);
}

template <class T, int kCount>
Status launch_forward(const EmbedInput& in, void* x, int64_t* place, Stream stream) noexcept {
  return GOLF_LAUNCH((forward<T, kCount>), blocks_for(in.tokens, kWarps), kThreads, 0, stream, in, static_cast<T*>(x),
                     place);
}

template <class T, int kCount>
Status launch_row_sums(const RowSums<T>& sums, Stream stream) noexcept {
  const int64_t columns = (sums.width + kWarpSize * kCount - 1) / (kWarpSize * kCount);
  const unsigned blocks = blocks_for(embed_pieces_device(sums.tokens) * columns, kWarps);
  const Status status = GOLF_LAUNCH((sum_pieces<T, kCount>), blocks, kThreads, 0, stream, sums);
  if (status != Status::kOk) return status;
  return GOLF_LAUNCH((join_pieces<T, kCount>), blocks, kThreads, 0, stream, sums);
}

// The arguments of embed_backward_device().
struct Backward {
  EmbedInput in;
  const void* dx;
  const int64_t* place;
  EmbedGradients out;
  EmbedOrder by_id, by_slot;
  EmbedScratch scratch;
};

template <class T, int kCount>
Status launch_backward(const Backward& b, Stream stream) noexcept {
  const EmbedInput& in = b.in;
  const T* const dx = static_cast<const T*>(b.dx);
  Status status = Status::kOk;
  if (in.w != nullptr || in.bigram != nullptr) {
    const size_t shared = static_cast<size_t>(kWarps * (in.smear + 2)) * sizeof(float);
    status = GOLF_LAUNCH((factors_of<T, kCount>), static_cast<unsigned>(embed_partials_device(in.tokens)), kThreads,
                         shared, stream, in, dx, b.place, b.scratch.factors, b.scratch.partials);
    if (status != Status::kOk) return status;
  }
  RowSums<T> sums{};
  sums.order = b.by_id, sums.dx = dx, sums.place = b.place, sums.w = in.w, sums.edges = b.scratch.edges;
  sums.factors = in.w != nullptr ? b.scratch.factors : nullptr;
  sums.tokens = in.tokens, sums.rows = in.vocab, sums.width = in.width, sums.smear = in.smear;
  sums.gradient = b.out.table;
  status = launch_row_sums<T, kCount>(sums, stream);
  if (status != Status::kOk || in.bigram == nullptr) return status;
  sums.order = b.by_slot, sums.rows = in.slots, sums.scale = in.bigram_scale, sums.gradient = b.out.bigram;
  return launch_row_sums<T, kCount>(sums, stream);
}

template <class T>
Status backward_of(const Backward& b, Stream stream) noexcept {
  const bool in_packs =
      packed(b.in, b.dx) && aligned<16>(b.out.table) && aligned<16>(b.out.bigram) && aligned<16>(b.scratch.edges);
  return in_packs ? launch_backward<T, 8>(b, stream) : launch_backward<T, 1>(b, stream);
}

}  // namespace

int64_t embed_partials_device(int64_t tokens) noexcept {
  const int64_t blocks = (tokens + kWarps - 1) / kWarps;
  return blocks < kMaxPartials ? blocks : kMaxPartials;
}

int64_t embed_pieces_device(int64_t tokens) noexcept { return (tokens + kPiece - 1) / kPiece; }

Status embed_forward_device(const EmbedInput& in, DType dtype, void* x, int64_t* place, Stream stream) noexcept {
  if (!valid(in)) return Status::kInvalidArgument;
  if (in.tokens == 0) return Status::kOk;
  if (dtype == DType::kF32)
    return packed(in, x) ? launch_forward<float, 8>(in, x, place, stream)
                         : launch_forward<float, 1>(in, x, place, stream);
  return packed(in, x) ? launch_forward<bf16, 8>(in, x, place, stream) : launch_forward<bf16, 1>(in, x, place, stream);
}

Status embed_backward_device(const EmbedInput& in, DType dtype, const void* dx, const int64_t* place,
                             const EmbedGradients& out, const EmbedOrder& by_id, const EmbedOrder& by_slot,
                             const EmbedScratch& scratch, Stream stream) noexcept {
  if (!valid(in)) return Status::kInvalidArgument;
  const Backward b{in, dx, place, out, by_id, by_slot, scratch};
  Status status = Status::kOk;
  if (in.tokens > 0) status = dtype == DType::kF32 ? backward_of<float>(b, stream) : backward_of<bf16>(b, stream);
  if (status != Status::kOk) return status;
  const bool any = in.w != nullptr || in.bigram != nullptr;
  return GOLF_LAUNCH(add_partials, column_sum_blocks(in.smear + 2), kSumThreads, 0, stream,
                     static_cast<const float*>(scratch.partials), any ? embed_partials_device(in.tokens) : 0,
                     in.smear + 2, out.scalars);
}

}  // namespace golf
