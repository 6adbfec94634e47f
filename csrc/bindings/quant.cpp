#include "quant/quant.h"

#include <pybind11/stl.h>

#include <array>
#include <vector>

#include "bindings/bindings.h"

namespace golf {
namespace {

TrellisCode code_of(int32_t bits, const std::array<uint32_t, 4>& mask) {
  return {bits, {mask[0], mask[1], mask[2], mask[3]}};
}

}  // namespace

void bind_quant(pybind11::module_& m) {
  m.def("quant_workspace", &quant_workspace);
  // addresses: wanted, feedback, step, shrink, symbols, error, workspace; sizes: columns, rows
  m.def("quant_columns",
        [](const std::array<uintptr_t, 7>& at, const std::array<int64_t, 2>& sizes, const std::vector<int64_t>& range,
           int32_t limit, float weight, int32_t bits, const std::array<uint32_t, 4>& mask, int32_t threads) {
          const QuantColumns args{address<float>(at[0]),
                                  address<const float>(at[1]),
                                  address<const float>(at[2]),
                                  address<const float>(at[3]),
                                  address<int8_t>(at[4]),
                                  address<float>(at[5]),
                                  sizes[0],
                                  sizes[1],
                                  range.data(),
                                  static_cast<int64_t>(range.size()) - 1,
                                  limit,
                                  weight,
                                  address<uint8_t>(at[6])};
          run([&] { return quant_columns(args, code_of(bits, mask), threads); });
        });
  m.def("trellis_points", [](uintptr_t symbols, uintptr_t points, int64_t rows, int64_t columns, int32_t bits,
                             const std::array<uint32_t, 4>& mask, int32_t threads) {
    run([&] {
      return trellis_points(address<const int8_t>(symbols), address<int16_t>(points), rows, columns,
                            code_of(bits, mask), threads);
    });
  });
}

}  // namespace golf
