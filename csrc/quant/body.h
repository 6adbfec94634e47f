#include "quant/layout.h"
#include "quant/viterbi.h"
#include "vec.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

// Rows whose errors of a block of 128 columns stay in the first cache while the columns are walked.
constexpr int64_t kRows = 64;

// w[r] -= sum over i of error[i, r] u[i, j]: what the block's columns before j left over. One order of additions.
void pull(const QuantColumns& a, int64_t j, int64_t begin, int64_t end) {
  float* const w = a.w + j * a.rows;
  constexpr int kUnroll = 4;
  int64_t r = begin;
  for (; r + kUnroll * kLanes <= end; r += kUnroll * kLanes) {
    V sum[kUnroll];
    for (int k = 0; k < kUnroll; ++k) sum[k] = load(w + r + k * kLanes);
    for (int64_t i = 0; i < j; ++i) {
      const V u = set1(a.u[i * a.u_stride + j]);
      const float* const e = a.error + i * a.rows + r;
      for (int k = 0; k < kUnroll; ++k) sum[k] = sub(sum[k], mul(load(e + k * kLanes), u));
    }
    for (int k = 0; k < kUnroll; ++k) store(w + r + k * kLanes, sum[k]);
  }
  for_lanes(end - r, [&](int64_t at, int lanes) {
    V sum = load_lanes(w + r + at, lanes);
    for (int64_t i = 0; i < j; ++i)
      sum = sub(sum, mul(load_lanes(a.error + i * a.rows + r + at, lanes), set1(a.u[i * a.u_stride + j])));
    store_lanes(w + r + at, sum, lanes);
  });
}

// Symbols and errors of column j by rounding.
void round_column(const QuantColumns& a, int64_t j, int64_t begin, int64_t end) {
  const float* const w = a.w + j * a.rows;
  float* const error = a.error + j * a.rows;
  int8_t* const symbols = a.symbols + j * a.rows;
  const float limit = static_cast<float>(a.limit), shrink = a.shrink[j], inverse = 1.0f / a.u[j * a.u_stride + j];
  for (int64_t r = begin; r < end; ++r) {
    const float step = a.step[r];
    float k = step > 0 ? nearest(w[r] / step * shrink) : 0.0f;
    k = k > limit ? limit : k < -limit ? -limit : k;
    symbols[r] = static_cast<int8_t>(k);
    error[r] = (w[r] - k * step) * inverse;
  }
}

// Symbols and errors of column j along the best path of the trellis.
void search_column(const QuantColumns& a, const TrellisCode& t, int64_t j, int64_t begin, int64_t end) {
  const int64_t n = end - begin;
  float* const space = reinterpret_cast<float*>(a.workspace) + 6 * begin;
  uint16_t* const choices = reinterpret_cast<uint16_t*>(a.workspace + 6 * 4 * a.rows) + begin * (1 << kMaxTrellis) / 16;
  const float* const w = a.w + j * a.rows + begin;
  const float* const step = a.step + begin;
  float *const x = space, *const cost = space + n;  // [n], [4, n]
  const float bound = 2.0f * static_cast<float>(a.limit), shrink = a.shrink[j];
  for (int64_t r = 0; r < n; ++r) {
    // Cosets lie four points apart, so that the nearest of each is within two of x: symbols stay within the limit.
    const float wanted = step[r] > 0 ? w[r] / step[r] * shrink * 2.0f : 0.0f;
    x[r] = wanted > bound - 2 ? bound - 2 : wanted < 2 - bound ? 2 - bound : wanted;
    const float weight = step[r] * step[r] * a.weight;
    for (int c = 0; c < 4; ++c) {
      const float miss = wanted - coset_point(x[r], c);
      cost[c * n + r] = miss * miss * weight;
    }
  }
  const uint32_t last = viterbi(t, cost, n, choices);
  const float inverse = 1.0f / a.u[j * a.u_stride + j];
  trace_back(t, last, n, choices, [&](int64_t r, uint32_t coset) {
    const float point = coset_point(x[r], static_cast<int>(coset));
    a.symbols[j * a.rows + begin + r] = static_cast<int8_t>(static_cast<int32_t>(point) >> 1);
    a.error[j * a.rows + begin + r] = (w[r] - point * 0.5f * step[r]) * inverse;
  });
}

void columns(const QuantColumns& a, const TrellisCode& trellis, int64_t begin, int64_t end) {
  if (trellis.bits != 0) {
    for (int64_t j = 0; j < a.columns; ++j) {
      pull(a, j, begin, end);
      search_column(a, trellis, j, begin, end);
    }
    return;
  }
  for (int64_t r = begin; r < end; r += kRows) {
    const int64_t stop = r + kRows < end ? r + kRows : end;
    for (int64_t j = 0; j < a.columns; ++j) {
      pull(a, j, r, stop);
      round_column(a, j, r, stop);
    }
  }
}

}  // namespace

const QuantKernels quant_kernels = {columns};

}  // namespace GOLF_ISA_NS
}  // namespace golf
