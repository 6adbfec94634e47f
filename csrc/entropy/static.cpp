#include "entropy/static.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace golf::entropy {

std::vector<uint8_t> column_classes(const Symbols& symbols, const std::vector<Matrix>& matrices, const int8_t* data,
                                    uint32_t classes_log2) {
  const Trellis trellis(symbols.trellis);
  std::vector<uint64_t> means;
  for (const Matrix& m : matrices) {
    std::vector<uint64_t> sum_C(m.cols, 0);
    std::vector<uint8_t> state_C(m.cols, 0);
    for (uint64_t r = 0; r < m.rows; ++r, data += m.cols) {
      for (uint64_t c = 0; c < m.cols; ++c) {
        sum_C[c] += magnitude(data[c], state_C[c] & 1u);
        if (symbols.trellis != 0) state_C[c] = trellis.next(state_C[c], data[c]);
      }
    }
    for (const uint64_t sum : sum_C) means.push_back(128 * sum / m.rows);
  }
  std::vector<uint64_t> order(means.size());
  std::iota(order.begin(), order.end(), uint64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](uint64_t a, uint64_t b) { return means[a] < means[b]; });
  std::vector<uint8_t> classes(means.size());
  for (uint64_t rank = 0; rank < order.size(); ++rank)
    classes[order[rank]] = static_cast<uint8_t>((rank << classes_log2) / order.size());
  return classes;
}

std::vector<Frequencies> count_tables(const Symbols& symbols, const std::vector<Matrix>& matrices, const int8_t* data,
                                      const std::vector<uint8_t>& classes, uint32_t classes_log2) {
  const Trellis trellis(symbols.trellis);
  const size_t per_class = symbols.trellis != 0 ? 2 : 1;
  const size_t contexts = per_class << classes_log2;
  std::vector<uint64_t> counts(contexts * 256, 0);
  const uint8_t* class_C = classes.data();
  for (const Matrix& m : matrices) {
    std::vector<uint8_t> state_C(m.cols, 0);
    for (uint64_t r = 0; r < m.rows; ++r, data += m.cols) {
      for (uint64_t c = 0; c < m.cols; ++c) {
        const size_t context = per_class * class_C[c] + (state_C[c] & 1u);
        counts[256 * context + static_cast<size_t>(data[c] + symbols.half())] += 1;
        if (symbols.trellis != 0) state_C[c] = trellis.next(state_C[c], data[c]);
      }
    }
    class_C += m.cols;
  }
  std::vector<Frequencies> tables(contexts);
  for (size_t i = 0; i < contexts; ++i) {
    uint64_t* const row = counts.data() + 256 * i;
    uint64_t total = std::accumulate(row, row + 256, uint64_t{0});
    if (total == 0) total = row[symbols.half()] = 1;  // a class without columns still has a table
    normalize(row, total, symbols.alphabet(), &tables[i]);
  }
  return tables;
}

void put_table(const Frequencies& table, uint32_t alphabet, std::vector<uint8_t>* out) {
  uint32_t first = 0, last = alphabet - 1;
  while (first < last && table.freq[first] == 0) ++first;
  while (last > first && table.freq[last] == 0) --last;
  out->push_back(static_cast<uint8_t>(first));
  out->push_back(static_cast<uint8_t>(last - first));
  for (uint32_t s = first; s <= last; ++s) {
    const uint32_t f = table.freq[s];
    if (f < 128) {
      out->push_back(static_cast<uint8_t>(f));
    } else {
      out->push_back(static_cast<uint8_t>(f | 128));
      out->push_back(static_cast<uint8_t>(f >> 7));
    }
  }
}

Fault get_table(const uint8_t** data, const uint8_t* end, uint32_t alphabet, Frequencies* table) noexcept {
  const uint8_t* p = *data;
  if (end - p < 2) return Fault::kCut;
  const uint32_t first = p[0], last = first + p[1];
  p += 2;
  if (last >= alphabet) return Fault::kTable;
  std::memset(table->freq, 0, sizeof(table->freq));
  uint32_t sum = 0;
  for (uint32_t s = first; s <= last; ++s) {
    if (p == end) return Fault::kCut;
    uint32_t f = *p++;
    if (f >= 128) {
      if (p == end) return Fault::kCut;
      f = (f & 127) | static_cast<uint32_t>(*p++) << 7;
      if (f < 128) return Fault::kTable;
    }
    sum += f;
    if (sum > kTotal) return Fault::kTable;
    table->freq[s] = static_cast<uint16_t>(f);
  }
  table->place(alphabet);
  *data = p;
  return Fault::kNone;
}

}  // namespace golf::entropy
