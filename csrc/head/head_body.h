#include "head/head.h"
#include "vec.h"
#include "vec_math.h"

namespace golf {
namespace GOLF_ISA_NS {
namespace {

// Soft-capped logits are bounded, so up to this cap their exponentials need no shift: 2^16 e^64 is far below f32's end.
constexpr float kNoShift = 64.0f;

struct Capped {
  V y, slope;  // slope = dy / dz
};

template <bool kCap>
GOLF_INLINE Capped capped(V z, V cap, V inverse) {
  if (!kCap) return {z, set1(1.0f)};
  const V t = tanh(mul(z, inverse));
  return {mul(cap, t), fnma(t, t, set1(1.0f))};
}

GOLF_INLINE V keep_first(V x, int lanes) {
  float whole[kLanes];
  store(whole, x);
  return load_n(whole, lanes);
}

// In place for f32; bf16 rows hold their unrounded exponentials here until the sum is known.
GOLF_INLINE float* exponentials(float* z, float*) { return z; }
GOLF_INLINE float* exponentials(bf16*, float* scratch) { return scratch; }

GOLF_INLINE float lane0(V x) {
  float whole[kLanes];
  store(whole, x);
  return whole[0];
}

template <class T>
float largest(const T* z, int64_t vocab) {
  V most = set1(-__builtin_inff());
  int64_t i = 0;
  for (; i + kLanes <= vocab; i += kLanes) most = max(most, load(z + i));
  float lanes[kLanes];
  store(lanes, most);
  float m = lanes[0];
  for (int j = 1; j < kLanes; ++j) m = lanes[j] > m ? lanes[j] : m;
  for (; i < vocab; ++i) m = to_float(z[i]) > m ? to_float(z[i]) : m;
  return m;
}

constexpr int64_t kBlock = 1024;  // terms added in f32 before the sum goes on in f64

template <bool kCap, bool kGrad, class T>
float row(T* z, int64_t target, int64_t vocab, float cap, float scale, float* scratch) {
  const V cap_v = set1(cap), inverse = set1(kCap ? 1.0f / cap : 0.0f);
  float shift = 0.0f;
  if (!kCap || cap > kNoShift) shift = lane0(capped<kCap>(set1(largest(z, vocab)), cap_v, inverse).y);
  const V shift_v = set1(shift);
  const Capped at_target = capped<kCap>(load_n(z + target, 1), cap_v, inverse);
  const float y_target = lane0(at_target.y), e_target = lane0(exp(sub(at_target.y, shift_v)));

  float* u = exponentials(z, scratch);
  double total = 0.0;
  for (int64_t begin = 0; begin < vocab; begin += kBlock) {
    V part = zero();
    for_lanes(vocab - begin < kBlock ? vocab - begin : kBlock, [&](int64_t j, int lanes) {
      const Capped c = capped<kCap>(load_lanes(z + begin + j, lanes), cap_v, inverse);
      V e = exp(sub(c.y, shift_v));
      if (lanes != kLanes) e = keep_first(e, lanes);
      part = add(part, e);
      if (kGrad) store_lanes(u + begin + j, kCap ? mul(e, c.slope) : e, lanes);
    });
    total += sum(part);
  }
  const float all = static_cast<float>(total), p_target = e_target / all;
  if (kGrad) {
    const V factor = set1(scale / all);
    for_lanes(vocab, [&](int64_t i, int lanes) { store_lanes(z + i, mul(load_lanes(u + i, lanes), factor), lanes); });
    put(z + target, (p_target - 1.0f) * lane0(at_target.slope) * scale);
  }
  // The quotient keeps small losses exact to f32; the difference keeps large ones finite.
  return p_target > 1e-6f ? -__builtin_logf(p_target) : __builtin_logf(all) + shift - y_target;
}

template <bool kCap, class T>
void rows_capped(T* z, const int64_t* targets, const float* scale, float* losses, int64_t rows, int64_t vocab,
                 float cap) {
  float scratch[kHeadMaxVocab];
  for (int64_t r = 0; r < rows; ++r)
    losses[r] = scale != nullptr ? row<kCap, true>(z + r * vocab, targets[r], vocab, cap, scale[r], scratch)
                                 : row<kCap, false>(z + r * vocab, targets[r], vocab, cap, 0.0f, scratch);
}

template <class T>
void rows_of(T* z, const int64_t* targets, const float* scale, float* losses, int64_t rows, int64_t vocab, float cap) {
  return cap > 0 ? rows_capped<true>(z, targets, scale, losses, rows, vocab, cap)
                 : rows_capped<false>(z, targets, scale, losses, rows, vocab, cap);
}

void accumulate(float* total, const bf16* part, int64_t n) {
  for_lanes(n, [&](int64_t i, int lanes) {
    store_lanes(total + i, add(load_lanes(total + i, lanes), load_lanes(part + i, lanes)), lanes);
  });
}

}  // namespace

const HeadKernels head_kernels = {rows_of<float>, rows_of<bf16>, accumulate};

}  // namespace GOLF_ISA_NS
}  // namespace golf
