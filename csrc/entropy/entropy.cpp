#include "entropy/entropy.h"

#include "entropy/lanes.h"

namespace golf::entropy {
namespace {

uint64_t weights(const std::vector<Matrix>& matrices) noexcept {
  uint64_t sum = 0;
  for (const Matrix& m : matrices) sum += m.rows * m.cols;
  return sum;
}

// The lanes of one step must not meet a column twice where its state moves on.
bool lanes_allowed(const Symbols& symbols, const std::vector<Matrix>& matrices, uint32_t lanes_log2) noexcept {
  if (lanes_log2 > kMaxLanesLog2) return false;
  const uint64_t least = symbols.trellis != 0 ? uint64_t{1} << lanes_log2 : 1;
  for (const Matrix& m : matrices)
    if (m.cols < least || m.cols > kMaxColumns) return false;
  return true;
}

std::vector<uint8_t> first_states(const Symbols& symbols, uint64_t cols) {
  return std::vector<uint8_t>(symbols.trellis != 0 ? cols : 0, 0);
}

// Adds a run of rows to the encoder; `table(context)` gives the frequencies.
template <class Table>
void add_run(const Symbols& symbols, const Trellis& trellis, const Table& table, const uint16_t* context_C,
             std::vector<uint8_t>* state_C, uint64_t rows, uint64_t cols, const int8_t* data, LaneEncoder* encoder) {
  encoder->start_run();
  for (uint64_t r = 0; r < rows; ++r, data += cols) {
    for (uint64_t c = 0; c < cols; ++c) {
      uint32_t z = 0;
      if (symbols.trellis != 0) {
        uint8_t& state = (*state_C)[c];
        z = state & 1u;
        state = trellis.next(state, data[c]);
      }
      encoder->add(table(context_C[c] + z), static_cast<uint32_t>(data[c] + symbols.half()));
    }
  }
}

// The contexts of static classes, two apart with a trellis.
std::vector<uint16_t> static_contexts(const Symbols& symbols, const std::vector<uint8_t>& classes) {
  std::vector<uint16_t> contexts;
  contexts.reserve(classes.size());
  for (const uint8_t c : classes) contexts.push_back(static_cast<uint16_t>(symbols.trellis != 0 ? 2 * c : c));
  return contexts;
}

uint64_t columns(const std::vector<Matrix>& matrices) noexcept {
  uint64_t sum = 0;
  for (const Matrix& m : matrices) sum += m.cols;
  return sum;
}

}  // namespace

std::vector<uint8_t> encode_static(const Symbols& symbols, const std::vector<Matrix>& matrices, const int8_t* data,
                                   const StaticParams& params) {
  const std::vector<uint8_t> classes = column_classes(symbols, matrices, data, params.classes_log2);
  const std::vector<Frequencies> tables = count_tables(symbols, matrices, data, classes, params.classes_log2);
  const std::vector<uint16_t> contexts = static_contexts(symbols, classes);
  std::vector<uint8_t> out;
  for (const Frequencies& table : tables) put_table(table, symbols.alphabet(), &out);
  if (params.classes_log2 != 0) {
    const size_t start = out.size();
    out.resize(start + (classes.size() * params.classes_log2 + 7) / 8, 0);
    for (size_t i = 0; i < classes.size(); ++i)
      for (uint32_t b = 0; b < params.classes_log2; ++b) {
        const size_t bit = i * params.classes_log2 + b;
        out[start + bit / 8] = static_cast<uint8_t>(out[start + bit / 8] | ((classes[i] >> b & 1) << bit % 8));
      }
  }
  LaneEncoder encoder(weights(matrices));
  const Trellis trellis(symbols.trellis);
  const uint16_t* context_C = contexts.data();
  for (const Matrix& m : matrices) {
    std::vector<uint8_t> state_C = first_states(symbols, m.cols);
    const auto table = [&](size_t context) -> const Frequencies& { return tables[context]; };
    add_run(symbols, trellis, table, context_C, &state_C, m.rows, m.cols, data, &encoder);
    data += m.rows * m.cols;
    context_C += m.cols;
  }
  encoder.finish(params.lanes_log2, &out);
  return out;
}

Fault decode_static(const Symbols& symbols, const std::vector<Matrix>& matrices, const StaticParams& params,
                    const uint8_t* coded, size_t size, int8_t* data) {
  if (!lanes_allowed(symbols, matrices, params.lanes_log2) || params.classes_log2 > kMaxStaticClassesLog2)
    return Fault::kParameters;
  const uint8_t* at = coded;
  const uint8_t* const end = coded + size;
  std::vector<Slots> tables((symbols.trellis != 0 ? size_t{2} : size_t{1}) << params.classes_log2);
  for (Slots& table : tables) {
    const Fault fault = get_table(&at, end, symbols.alphabet(), &table.frequencies);
    if (fault != Fault::kNone) return fault;
    table.fill(symbols.alphabet());
  }
  std::vector<uint8_t> classes(columns(matrices), 0);
  if (params.classes_log2 != 0) {
    const uint64_t bits = classes.size() * params.classes_log2;
    if (static_cast<uint64_t>(end - at) < (bits + 7) / 8) return Fault::kCut;
    for (size_t i = 0; i < classes.size(); ++i)
      for (uint32_t b = 0; b < params.classes_log2; ++b) {
        const size_t bit = i * params.classes_log2 + b;
        classes[i] = static_cast<uint8_t>(classes[i] | ((at[bit / 8] >> bit % 8 & 1) << b));
      }
    if (bits % 8 != 0 && at[bits / 8] >> bits % 8 != 0) return Fault::kTable;
    at += (bits + 7) / 8;
  }
  LaneDecoder decoder(symbols, params.lanes_log2);
  Fault fault = decoder.open(at, static_cast<size_t>(end - at));
  const std::vector<uint16_t> contexts = static_contexts(symbols, classes);
  const uint16_t* context_C = contexts.data();
  for (const Matrix& m : matrices) {
    if (fault != Fault::kNone) return fault;
    std::vector<uint8_t> state_C = first_states(symbols, m.cols);
    fault = decoder.run(tables, context_C, state_C.data(), m.rows, m.cols, data);
    data += m.rows * m.cols;
    context_C += m.cols;
  }
  return fault != Fault::kNone ? fault : decoder.close();
}

std::vector<uint8_t> encode_adaptive(const Symbols& symbols, const std::vector<Matrix>& matrices, const int8_t* data,
                                     const AdaptiveParams& params) {
  std::vector<uint8_t> out;
  const uint32_t mean = first_mean(matrices[0], data);
  put16(&out, mean);
  AdaptiveModel model(symbols, params, mean);
  LaneEncoder encoder(weights(matrices));
  const Trellis trellis(symbols.trellis);
  const auto table = [&](size_t context) -> const Frequencies& { return model.frequencies(context); };
  for (const Matrix& m : matrices) {
    std::vector<uint8_t> state_C = first_states(symbols, m.cols);
    model.start_tensor(m.cols);
    for (uint64_t row = 0; row < m.rows;) {
      const uint64_t rows = model.block_rows(m.rows - row);
      model.start_block();
      add_run(symbols, trellis, table, model.context_C(), &state_C, rows, m.cols, data, &encoder);
      model.learn(data, rows);
      data += rows * m.cols;
      row += rows;
    }
  }
  encoder.finish(params.lanes_log2, &out);
  return out;
}

Fault decode_adaptive(const Symbols& symbols, const std::vector<Matrix>& matrices, const AdaptiveParams& params,
                      const uint8_t* coded, size_t size, int8_t* data) {
  if (!lanes_allowed(symbols, matrices, params.lanes_log2) || params.prior_log2 > kMaxPriorLog2 ||
      params.shift > kMaxShift)
    return Fault::kParameters;
  if (size < 2) return Fault::kCut;
  AdaptiveModel model(symbols, params, get16(coded));
  LaneDecoder decoder(symbols, params.lanes_log2);
  Fault fault = decoder.open(coded + 2, size - 2);
  std::vector<Slots> tables;
  for (const Matrix& m : matrices) {
    std::vector<uint8_t> state_C = first_states(symbols, m.cols);
    model.start_tensor(m.cols);
    for (uint64_t row = 0; row < m.rows;) {
      if (fault != Fault::kNone) return fault;
      const uint64_t rows = model.block_rows(m.rows - row);
      model.start_block();
      tables.resize(model.contexts());
      for (const uint16_t context : model.rebuilt()) {
        tables[context].frequencies = model.frequencies(context);
        tables[context].fill(symbols.alphabet());
      }
      fault = decoder.run(tables, model.context_C(), state_C.data(), rows, m.cols, data);
      if (fault == Fault::kNone) model.learn(data, rows);
      data += rows * m.cols;
      row += rows;
    }
  }
  return fault != Fault::kNone ? fault : decoder.close();
}

const char* fault_text(Fault fault) noexcept {
  switch (fault) {
    case Fault::kNone:
      break;
    case Fault::kParameters:
      return "parameters out of range";
    case Fault::kCut:
      return "the coded symbols end early";
    case Fault::kTable:
      return "a frequency table does not fit its symbols and total";
    case Fault::kEscape:
      return "an escaped symbol is outside the alphabet";
    case Fault::kEnd:
      return "the coded symbols do not end where the last symbol does";
  }
  return "no fault";
}

}  // namespace golf::entropy
