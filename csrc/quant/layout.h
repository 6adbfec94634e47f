// Quantizing a matrix column by column with error feedback (GPTQ, arXiv:2210.17323), by rounding or by the Viterbi
// search of a trellis; and reading trellis-coded symbols back.
//
// Matrices are transposed, [C, O]: a column of the layer is contiguous. A trellis code is docs/reference/formats.md,
// 4: the state's lowest bit z makes symbol k the point p = 2k + z of a grid of half steps, and state = (state >> 1) ^
// mask[p & 3]. Arithmetic is f32 without contraction, in one order: every instruction set and every number of threads
// gives the same symbols.
#pragma once

#include "golf.h"

namespace golf {

constexpr int32_t kMaxTrellis = 8;

// mask[c] for c = p & 3; the highest bit of masks 1 and 3 is bit v - 1, masks 0 and 2 have none.
struct TrellisCode {
  int32_t bits;
  uint32_t mask[4];
};

// A block of columns [C, O] of one or more matrices that are stacked along their rows.
struct QuantColumns {
  float* wanted;          // [C, O] where weights are best rounded for the errors of earlier blocks; those of this one
                          // are added here
  const float* feedback;  // [C, C] strict upper triangle: of the error of column i, what column j makes good
  const float* step;      // [O] what a symbol is worth; 0: the row is zero
  const float* shrink;    // [C] factor on what is wanted before its symbol is chosen: the rate term
  int8_t* symbols;        // [C, O]
  float* error;           // [C, O] in: the weights w; out: w - w_q
  int64_t columns, rows;
  const int64_t* range;  // [ranges + 1] rows that are independent of each other; of a trellis, one matrix each
  int64_t ranges;
  int32_t limit;       // symbols lie in -limit .. limit
  float weight;        // of a trellis: on the squared step of a row, so that costs are of the order of 1
  uint8_t* workspace;  // of a trellis: quant_workspace(rows) bytes
};

constexpr int64_t quant_workspace(int64_t rows) noexcept { return rows * (6 * 4 + (1 << kMaxTrellis) / 8) + 64; }

// trellis.bits 0 rounds to nearest.
Status quant_columns(const QuantColumns& args, const TrellisCode& trellis, int32_t threads) noexcept;

// Points [R, C] of symbols [R, C]; a column's state starts at 0.
Status trellis_points(const int8_t* symbols, int16_t* points, int64_t rows, int64_t columns, const TrellisCode& trellis,
                      int32_t threads) noexcept;

// One range of rows on one thread, for each instruction set.
struct QuantKernels {
  void (*columns)(const QuantColumns& args, const TrellisCode& trellis, int64_t begin, int64_t end);
};
GOLF_KERNELS(QuantKernels, quant_kernels);

}  // namespace golf
