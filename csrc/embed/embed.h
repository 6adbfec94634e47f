// The input of a language model, for tokens t of rows of `length` ids each:
//   e_t = table[id_t] + bigram_scale bigram[hash(id_{t-1}, id_t)]
//   x_t = e_t + gate_t e_{t-1},   gate_t = lambda sigmoid(w . e_t[:smear]),  0 where t starts a document
// A document starts at each row's first id and at each `bos`. There the bigram has no predecessor and takes the table's
// last slot; all other pairs share the slots before it. Tables are f32, x and dx f32 or bf16, arithmetic is f32.
#pragma once

#include "golf.h"

namespace golf {

struct EmbedInput {
  const int64_t* ids;         // [tokens], in [0, vocab): the caller's to check
  const float* table;         // [vocab, width]
  const float* bigram;        // [slots, width], null for none; slots >= 2
  const float* bigram_scale;  // one number
  const float* w;             // [smear], null for none; smear <= width
  const float* lambda;        // one number
  int64_t tokens, length, width, vocab, slots, smear, bos;
};

// What backward leaves behind. Row gradients are added to, those of rows that no token names stay untouched.
struct EmbedGradients {
  float* table;    // [vocab, width]
  float* bigram;   // [slots, width], as in the input
  float* scalars;  // [smear + 2]: dw, dlambda, dbigram_scale; overwritten
};

constexpr int64_t kEmbedGrain = 64;  // tokens of a chunk

// Workspace: place [tokens], for backward to read again.
Status embed_forward(const EmbedInput& in, DType dtype, void* x, int64_t* place, int32_t threads) noexcept;

// Workspace: de [tokens, width], partial [ceil(tokens / kEmbedGrain), smear + 2] and
// order [tokens + max(vocab, slots) + 1].
Status embed_backward(const EmbedInput& in, DType dtype, const void* dx, const int64_t* place,
                      const EmbedGradients& out, float* de, double* partial, int64_t* order, int32_t threads) noexcept;

// The same on a GPU (embed_kernels.cu), where nobody has looked at the ids: one outside of the table gives NaN, and no
// row of the table takes its gradient. Backward gets the tokens in order of their row, as a stable sort leaves them, so
// that a row's sum has one order; e's gradient is not stored but made anew, from dx and two numbers a token, where it
// is added.
struct EmbedOrder {
  const int32_t* rows;    // ascending
  const int64_t* tokens;  // [tokens]
};
// Workspace of backward: factors [tokens, 2], partials [embed_partials_device(tokens), smear + 2] and
// edges [embed_pieces_device(tokens), 2, width].
struct EmbedScratch {
  float* factors;
  float* partials;
  float* edges;
};
constexpr int64_t kEmbedMaxSmearDevice = 4096;
int64_t embed_partials_device(int64_t tokens) noexcept;
int64_t embed_pieces_device(int64_t tokens) noexcept;
Status embed_forward_device(const EmbedInput& in, DType dtype, void* x, int64_t* place, Stream stream) noexcept;
// `by_slot` is read where there is a bigram.
Status embed_backward_device(const EmbedInput& in, DType dtype, const void* dx, const int64_t* place,
                             const EmbedGradients& out, const EmbedOrder& by_id, const EmbedOrder& by_slot,
                             const EmbedScratch& scratch, Stream stream) noexcept;

// One range of tokens, or of table rows, on one thread, for each instruction set. place[t] is the bigram's slot (0
// without a bigram) where t continues a document, and -1 - slot where it starts one.
struct EmbedKernels {
  void (*forward_f32)(const EmbedInput& in, const int64_t* place, float* x, int64_t begin, int64_t end);
  void (*forward_bf16)(const EmbedInput& in, const int64_t* place, bf16* x, int64_t begin, int64_t end);
  // de = gradient of e, and the range's own sums of the scalars.
  void (*backward_f32)(const EmbedInput& in, const int64_t* place, const float* dx, float* de, double* partial,
                       int64_t begin, int64_t end);
  void (*backward_bf16)(const EmbedInput& in, const int64_t* place, const bf16* dx, float* de, double* partial,
                        int64_t begin, int64_t end);
  // grad[row] += scale times the sum of de over tokens[starts[row]] .. tokens[starts[row + 1] - 1].
  void (*add_rows)(const float* de, const int64_t* tokens, const int64_t* starts, float scale, float* grad,
                   int64_t width, int64_t begin, int64_t end);
};
GOLF_KERNELS(EmbedKernels, embed_kernels);

}  // namespace golf
