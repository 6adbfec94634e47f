#include "bindings/bitpack_arguments.h"

namespace golf {

void bind_bitpack(pybind11::module_& m) {
  using Addresses = std::array<uintptr_t, 2>;
  using Sizes = std::array<int64_t, 4>;
  m.def("bitpack_row_bytes", [](int32_t bits, int64_t columns) { return packed_row_bytes({bits}, columns); });
  m.def("bitpack_pack", [](uintptr_t q, int32_t bits, int64_t rows, int64_t columns, uintptr_t data, int32_t threads) {
    run([&] { return bitpack_pack(address<const int8_t>(q), {bits}, rows, columns, address<uint8_t>(data), threads); });
  });
  m.def("bitpack_unpack", [](const Addresses& a, const Sizes& n, uintptr_t q, int32_t threads) {
    const PackedMatrix matrix = packed_matrix(a, n);
    run([&] { return bitpack_unpack(matrix, address<int8_t>(q), threads); });
  });
  m.def("bitpack_dequantize", [](const Addresses& a, const Sizes& n, int32_t dtype, uintptr_t w, int32_t threads) {
    const PackedMatrix matrix = packed_matrix(a, n);
    run([&] { return bitpack_dequantize(matrix, dtype_of(dtype), address<void>(w), threads); });
  });
  m.def("bitpack_fake_quantize",
        [](int32_t dtype, uintptr_t w, uintptr_t scales, uintptr_t y, const Sizes& n, int32_t threads) {
          run([&] {
            return bitpack_fake_quantize(dtype_of(dtype), address<const void>(w), address<const float>(scales),
                                         address<void>(y), static_cast<int32_t>(n[0]), n[1], n[2], n[3], threads);
          });
        });
  m.def("bitpack_workspace", [](int64_t batch, int64_t columns) { return bitpack_workspace(batch, columns); });
  m.def("bitpack_product", [](const Addresses& a, const Sizes& n, int32_t dtype, uintptr_t x, uintptr_t y,
                              int64_t batch, uintptr_t prepared, int32_t threads) {
    const PackedMatrix matrix = packed_matrix(a, n);
    run([&] {
      return bitpack_product(matrix, dtype_of(dtype), address<const void>(x), address<float>(y), batch,
                             address<void>(prepared), threads);
    });
  });
}

}  // namespace golf
