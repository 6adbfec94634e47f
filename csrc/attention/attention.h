// Causal attention with grouped heads, forward and backward, without ever holding a T x T matrix.
//
//   s_ij = scale q_i . k_j for j <= i in the same document, and i - j < window where window > 0
//   o_i  = sum_j softmax_j(s_ij) v_j                      query head n reads key/value head n / (heads / kv_heads)
//   z_i  = o_i - (o_i . u_i) u_i,  u_i = v_i / |v_i|      where xsa: the token's own value is projected out
//   y_i  = gate_i z_i                                     where there is a gate, one factor per token and head
//
// q and y are [batch, tokens, heads, head_dim], k and v [batch, tokens, kv_heads, head_dim]; the last dimension of
// every tensor is contiguous, the other strides of q, k and v are free, everything else is contiguous. A document is a
// row of the batch, or, with cu_seqlens, tokens cu_seqlens[s] .. cu_seqlens[s + 1] - 1 of the only row; documents may
// be empty. lse is the logarithm of the softmax's denominator, [heads, batch * tokens]. Arithmetic is f32; with
// avx512bf16, avx512amx and neonbf16 the operands of the products (probabilities among them) are rounded to bf16 as
// torch's own kernels do.
//
// One unit of work is a document and a key/value head. A unit writes results that no other unit touches, in an order of
// its own, so the number of threads never changes a bit. A NaN in v or dy may reach any row of its document.
#pragma once

#include "golf.h"

namespace golf {

struct Strides {
  int64_t batch, token, head;
};

struct AttentionArgs {
  DType dtype;       // of q, k, v, out, y and their gradients
  DType gate_dtype;  // of gate and dgate
  int64_t batch, tokens;
  int32_t heads, kv_heads, head_dim;
  int64_t window;  // 0: unlimited
  float scale;     // above 0
  bool xsa;
  const void *q, *k, *v;
  Strides q_strides, k_strides, v_strides;
  const void* gate;           // null: none
  const int32_t* cu_seqlens;  // null: a document per row of the batch
  int64_t documents;          // batch, or the number of entries of cu_seqlens less one
  int64_t longest;            // tokens in the longest document

  // Forward writes y and lse, and o to out where there is xsa or a gate (out is not touched otherwise: it equals y).
  void *out, *y;
  float* lse;

  // Backward reads out (y where that is o) and lse, and writes these. dgate may be null.
  const void* dy;
  void *dq, *dk, *dv, *dgate;

  // Working memory of backward on a GPU: the gradient of o, like dy, where there is xsa or a gate; two numbers for each
  // query, [heads, batch, 2, tokens rounded up to a multiple of 4].
  void* dout;
  float* row_sums;
};

// Tokens in the longest document; -1 unless cu_seqlens runs from 0 to `tokens` without ever falling.
int64_t attention_longest(const int32_t* cu_seqlens, int64_t documents, int64_t tokens) noexcept;
// Bytes of scratch for one thread, at the active instruction set.
int64_t attention_scratch_bytes(const AttentionArgs& args, bool backward) noexcept;
// `scratch`: 64-byte aligned, threads * attention_scratch_bytes() long.
Status attention_forward(const AttentionArgs& args, void* scratch, int32_t threads) noexcept;
Status attention_backward(const AttentionArgs& args, void* scratch, int32_t threads) noexcept;

// On a GPU (attention_kernels.cu): bf16 only, rows of q, k, v, out and dy at multiples of 16 bytes. Documents are told
// apart by the mask, token for token, so a NaN in v or dy may reach every row of its row of the batch, and cu_seqlens
// is not checked: wrong ones give a wrong result and touch nothing outside of the tensors. The same arguments give the
// same bits.
Status attention_forward_device(const AttentionArgs& args, Stream stream) noexcept;
Status attention_backward_device(const AttentionArgs& args, Stream stream) noexcept;

// Where a document lies: its row of the batch, its first token in that row, its length.
struct Document {
  int64_t row, begin, length;
};

// One unit on one thread, for each instruction set.
struct AttentionKernels {
  int64_t (*scratch_bytes)(const AttentionArgs& args, bool backward);
  void (*forward)(const AttentionArgs& args, const Document& document, int32_t kv_head, void* scratch);
  void (*backward)(const AttentionArgs& args, const Document& document, int32_t kv_head, void* scratch);
};
GOLF_KERNELS(AttentionKernels, attention_kernels);
#if defined(GOLF_AMX)
GOLF_KERNELS_OF(avx512amx, AttentionKernels, attention_kernels);
#endif

}  // namespace golf
