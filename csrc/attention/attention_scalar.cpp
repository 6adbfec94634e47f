// The plain definition, one query at a time: what the other instruction sets are compared with, and what serves where
// there is none.
#include <cmath>

#include "attention/attention.h"

#define GOLF_ISA_NS scalar
#include "vec.h"

namespace golf {
namespace scalar {
namespace {

// The rows that one unit touches, addressed by the token's place in the document.
template <class In>
struct View {
  const AttentionArgs& args;
  const Document& document;
  int32_t kv_head, group;

  const In* input(const void* base, const Strides& s, int64_t i, int32_t head) const {
    return static_cast<const In*>(base) + document.row * s.batch + (document.begin + i) * s.token + head * s.head;
  }
  int64_t token(int64_t i) const { return document.row * args.tokens + document.begin + i; }
  const In* q(int64_t i, int32_t n) const { return input(args.q, args.q_strides, i, n); }
  const In* k(int64_t i) const { return input(args.k, args.k_strides, i, kv_head); }
  const In* v(int64_t i) const { return input(args.v, args.v_strides, i, kv_head); }
  In* at_query(void* base, int64_t i, int32_t n) const {
    return static_cast<In*>(base) + (token(i) * args.heads + n) * args.head_dim;
  }
  In* at_key(void* base, int64_t i) const {
    return static_cast<In*>(base) + (token(i) * args.kv_heads + kv_head) * args.head_dim;
  }
  float& lse(int64_t i, int32_t n) const { return args.lse[n * args.batch * args.tokens + token(i)]; }
  int64_t oldest(int64_t i) const { return args.window > 0 && i >= args.window ? i - args.window + 1 : 0; }

  float gate(int64_t i, int32_t n) const {
    const int64_t at = token(i) * args.heads + n;
    if (args.gate == nullptr) return 1.0f;
    return args.gate_dtype == DType::kF32 ? static_cast<const float*>(args.gate)[at]
                                          : to_float(static_cast<const bf16*>(args.gate)[at]);
  }
  void put_dgate(int64_t i, int32_t n, float x) const {
    const int64_t at = token(i) * args.heads + n;
    if (args.gate_dtype == DType::kF32)
      static_cast<float*>(args.dgate)[at] = x;
    else
      put(static_cast<bf16*>(args.dgate) + at, x);
  }

  template <class A, class B>
  float dot(const A* a, const B* b) const {
    float total = 0;
    for (int32_t d = 0; d < args.head_dim; ++d) total += to_float(a[d]) * to_float(b[d]);
    return total;
  }
  float inverse_norm(int64_t i) const {  // bounded as torch.nn.functional.normalize bounds it
    return 1.0f / std::fmax(std::sqrt(dot(v(i), v(i))), 1e-12f);
  }
};

int64_t scratch_bytes(const AttentionArgs& args, bool backward) {
  const int64_t row = static_cast<int64_t>(sizeof(float)) * args.head_dim;
  const int64_t floats = (args.longest * static_cast<int64_t>(sizeof(float)) + 63) / 64 * 64;
  return backward ? (2 * args.longest + 2) * row : floats + row;
}

template <class In>
void forward_query(const View<In>& view, int64_t i, int32_t n, float* p, float* o) {
  const AttentionArgs& args = view.args;
  const int64_t oldest = view.oldest(i);
  float top = -INFINITY, total = 0;
  for (int64_t j = oldest; j <= i; ++j) {
    p[j] = args.scale * view.dot(view.q(i, n), view.k(j));
    top = p[j] > top ? p[j] : top;
  }
  for (int32_t d = 0; d < args.head_dim; ++d) o[d] = 0;
  for (int64_t j = oldest; j <= i; ++j) {
    p[j] = std::exp(p[j] - top);
    total += p[j];
    for (int32_t d = 0; d < args.head_dim; ++d) o[d] += p[j] * to_float(view.v(j)[d]);
  }
  view.lse(i, n) = top + std::log(total);
  for (int32_t d = 0; d < args.head_dim; ++d) o[d] /= total;
  if (args.xsa || args.gate != nullptr)
    for (int32_t d = 0; d < args.head_dim; ++d) put(view.at_query(args.out, i, n) + d, o[d]);
  if (args.xsa) {
    const In* v = view.v(i);
    const float inverse = view.inverse_norm(i), along = view.dot(o, v) * inverse * inverse;
    for (int32_t d = 0; d < args.head_dim; ++d) o[d] -= along * to_float(v[d]);
  }
  for (int32_t d = 0; d < args.head_dim; ++d) put(view.at_query(args.y, i, n) + d, view.gate(i, n) * o[d]);
}

template <class In>
void forward_unit(const AttentionArgs& args, const Document& document, int32_t kv_head, void* scratch) {
  const View<In> view{args, document, kv_head, args.heads / args.kv_heads};
  float* o = static_cast<float*>(scratch);
  for (int32_t n = kv_head * view.group; n < (kv_head + 1) * view.group; ++n)
    for (int64_t i = 0; i < document.length; ++i) forward_query(view, i, n, o + args.head_dim, o);
}

// Back through gate and xsa: do into `dout`, what xsa adds to dv[i]; returns do . o. See backward.h for the formulas.
template <class In>
float gradient_of_o(const View<In>& view, int64_t i, int32_t n, float* dout, float* dv) {
  const AttentionArgs& args = view.args;
  const In *dy = view.at_query(const_cast<void*>(args.dy), i, n), *o = view.at_query(args.out, i, n), *v = view.v(i);
  const float gate = view.gate(i, n), inverse = args.xsa ? view.inverse_norm(i) : 0.0f;
  const float a = args.xsa ? view.dot(o, v) * inverse : 0.0f, b = args.xsa ? view.dot(dy, v) * inverse : 0.0f;
  for (int32_t d = 0; d < args.head_dim; ++d) {
    const float u = to_float(v[d]) * inverse;
    dout[d] = gate * (args.xsa ? to_float(dy[d]) - b * u : to_float(dy[d]));
    if (args.xsa) dv[d] -= (a * dout[d] + gate * b * (to_float(o[d]) - a * u)) * inverse;
  }
  if (args.dgate != nullptr) view.put_dgate(i, n, view.dot(dy, o) - a * b);
  return view.dot(dout, o);
}

template <class In>
void backward_unit(const AttentionArgs& args, const Document& document, int32_t kv_head, void* scratch) {
  const View<In> view{args, document, kv_head, args.heads / args.kv_heads};
  const int64_t width = args.head_dim, numbers = document.length * width;
  float *dk = static_cast<float*>(scratch), *dv = dk + numbers, *dq = dv + numbers, *dout = dq + width;
  for (int64_t x = 0; x < numbers; ++x) dk[x] = dv[x] = 0;
  for (int32_t n = kv_head * view.group; n < (kv_head + 1) * view.group; ++n) {
    for (int64_t i = 0; i < document.length; ++i) {
      const In* q = view.q(i, n);
      const float delta = gradient_of_o(view, i, n, dout, dv + i * width);
      for (int64_t d = 0; d < width; ++d) dq[d] = 0;
      for (int64_t j = view.oldest(i); j <= i; ++j) {
        const In *k = view.k(j), *v = view.v(j);
        const float p = std::exp(args.scale * view.dot(q, k) - view.lse(i, n));
        const float ds = args.scale * p * (view.dot(dout, v) - delta);
        for (int64_t d = 0; d < width; ++d) {
          dv[j * width + d] += p * dout[d];
          dk[j * width + d] += ds * to_float(q[d]);
          dq[d] += ds * to_float(k[d]);
        }
      }
      for (int64_t d = 0; d < width; ++d) put(view.at_query(args.dq, i, n) + d, dq[d]);
    }
  }
  for (int64_t j = 0; j < document.length; ++j) {
    for (int64_t d = 0; d < width; ++d) {
      put(view.at_key(args.dk, j) + d, dk[j * width + d]);
      put(view.at_key(args.dv, j) + d, dv[j * width + d]);
    }
  }
}

void forward(const AttentionArgs& args, const Document& document, int32_t kv_head, void* scratch) {
  return args.dtype == DType::kF32 ? forward_unit<float>(args, document, kv_head, scratch)
                                   : forward_unit<bf16>(args, document, kv_head, scratch);
}

void backward(const AttentionArgs& args, const Document& document, int32_t kv_head, void* scratch) {
  return args.dtype == DType::kF32 ? backward_unit<float>(args, document, kv_head, scratch)
                                   : backward_unit<bf16>(args, document, kv_head, scratch);
}

}  // namespace

const AttentionKernels attention_kernels = {scratch_bytes, forward, backward};

}  // namespace scalar
}  // namespace golf
