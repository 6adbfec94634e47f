// Static coding: columns are sorted into classes of equal number by their mean magnitude; the classes' tables and each
// column's class are stored.
#pragma once

#include <vector>

#include "entropy/tables.h"

namespace golf::entropy {

struct StaticParams {
  uint32_t lanes_log2;
  uint32_t classes_log2;
};

// The class of each column, the matrices' columns one after the other.
std::vector<uint8_t> column_classes(const Symbols& symbols, const std::vector<Matrix>& matrices, const int8_t* data,
                                    uint32_t classes_log2);

// One table a class, two with a trellis.
std::vector<Frequencies> count_tables(const Symbols& symbols, const std::vector<Matrix>& matrices, const int8_t* data,
                                      const std::vector<uint8_t>& classes, uint32_t classes_log2);

// Tables as stored: first symbol, symbols - 1, then each frequency as a varint of one or two bytes.
void put_table(const Frequencies& table, uint32_t alphabet, std::vector<uint8_t>* out);
Fault get_table(const uint8_t** data, const uint8_t* end, uint32_t alphabet, Frequencies* table) noexcept;

}  // namespace golf::entropy
