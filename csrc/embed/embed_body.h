#include "embed/embed.h"
#include "vec.h"
#include "vec_math.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

// The vectors of e for one token.
struct Source {
  const float* token;
  const float* bigram;  // null for none
  V scale;
};

GOLF_INLINE Source source(const EmbedInput& in, const int64_t* place, int64_t t) {
  const int64_t slot = place[t] < 0 ? -1 - place[t] : place[t];
  const bool paired = in.bigram != nullptr;
  return {in.table + in.ids[t] * in.width, paired ? in.bigram + slot * in.width : nullptr,
          set1(paired ? *in.bigram_scale : 0.0f)};
}

GOLF_INLINE V embedding(const Source& s, int64_t i, int lanes) {
  const V e = load_lanes(s.token + i, lanes);
  return s.bigram == nullptr ? e : fma(s.scale, load_lanes(s.bigram + i, lanes), e);
}

// The sum of term(i, lanes) over [0, n), in f32 for sixteen vectors at a time, then in f64: for what becomes one number
// of the whole batch.
template <class Term>
GOLF_INLINE double long_sum(int64_t n, const Term& term) {
  constexpr int64_t kTerms = 16 * kLanes;
  double total = 0.0;
  for (int64_t begin = 0; begin < n; begin += kTerms) {
    V part = zero();
    for_lanes(n - begin < kTerms ? n - begin : kTerms,
              [&](int64_t i, int lanes) { part = term(part, begin + i, lanes); });
    total += sum(part);
  }
  return total;
}

// sigmoid(w . e[:smear])
GOLF_INLINE float openness(const EmbedInput& in, const Source& s) {
  V dot = zero();
  for_lanes(in.smear,
            [&](int64_t i, int lanes) { dot = fma(load_lanes(in.w + i, lanes), embedding(s, i, lanes), dot); });
  return 1.0f / (1.0f + __builtin_expf(-sum(dot)));
}

template <class T>
void forward(const EmbedInput& in, const int64_t* place, T* x, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const Source now = source(in, place, t);
    T* out = x + t * in.width;
    if (in.w == nullptr || place[t] < 0) {
      for_lanes(in.width, [&](int64_t i, int lanes) { store_lanes(out + i, embedding(now, i, lanes), lanes); });
      continue;
    }
    const Source before = source(in, place, t - 1);
    const V gate = set1(*in.lambda * openness(in, now));
    for_lanes(in.width, [&](int64_t i, int lanes) {
      store_lanes(out + i, fma(gate, embedding(before, i, lanes), embedding(now, i, lanes)), lanes);
    });
  }
}

template <class T>
void backward(const EmbedInput& in, const int64_t* place, const T* dx, float* de, double* partial, int64_t begin,
              int64_t end) {
  double* dlambda = partial + in.smear;
  double* dscale = partial + in.smear + 1;
  for (int64_t i = 0; i < in.smear + 2; ++i) partial[i] = 0.0;
  for (int64_t t = begin; t < end; ++t) {
    const Source now = source(in, place, t);
    const T* d = dx + t * in.width;
    float* out = de + t * in.width;
    const bool onward = in.w != nullptr && t + 1 < in.tokens && place[t + 1] >= 0;
    const V next_gate = set1(onward ? *in.lambda * openness(in, source(in, place, t + 1)) : 0.0f);
    for_lanes(in.width, [&](int64_t i, int lanes) {
      V g = load_lanes(d + i, lanes);
      if (onward) g = fma(next_gate, load_lanes(d + in.width + i, lanes), g);
      store_lanes(out + i, g, lanes);
    });
    if (in.w != nullptr && place[t] >= 0) {
      const Source before = source(in, place, t - 1);
      const double dgate = long_sum(in.width, [&](V dot, int64_t i, int lanes) {
        return fma(load_lanes(d + i, lanes), embedding(before, i, lanes), dot);
      });
      const float open = openness(in, now);
      *dlambda += open * dgate;
      const V dlogit = set1(*in.lambda * open * (1.0f - open) * static_cast<float>(dgate));
      for_lanes(in.smear, [&](int64_t i, int lanes) {
        float term[kLanes];
        store(term, mul(dlogit, embedding(now, i, lanes)));
        for (int j = 0; j < lanes; ++j) partial[i + j] += term[j];
        store_lanes(out + i, fma(dlogit, load_lanes(in.w + i, lanes), load_lanes(out + i, lanes)), lanes);
      });
    }
    if (now.bigram != nullptr) {
      *dscale += long_sum(in.width, [&](V dot, int64_t i, int lanes) {
        return fma(load_lanes(out + i, lanes), load_lanes(now.bigram + i, lanes), dot);
      });
    }
  }
}

void add_rows(const float* de, const int64_t* tokens, const int64_t* starts, float scale, float* grad, int64_t width,
              int64_t begin, int64_t end) {
  const V factor = set1(scale);
  for (int64_t row = begin; row < end; ++row)
    for (int64_t k = starts[row]; k < starts[row + 1]; ++k) {
      const float* d = de + tokens[k] * width;
      float* g = grad + row * width;
      for_lanes(width, [&](int64_t i, int lanes) {
        store_lanes(g + i, fma(factor, load_lanes(d + i, lanes), load_lanes(g + i, lanes)), lanes);
      });
    }
}

}  // namespace

const EmbedKernels embed_kernels = {forward<float>, forward<bf16>, backward<float>, backward<bf16>, add_rows};

}  // namespace GOLF_ISA_NS
}  // namespace golf
