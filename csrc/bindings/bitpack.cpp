#include "bitpack/bitpack.h"

#include <pybind11/stl.h>

#include <array>

#include "bindings/places.h"

namespace golf {
namespace {

using Addresses = std::array<uintptr_t, 2>;  // data, scales
using Sizes = std::array<int64_t, 4>;        // bits, rows, columns, group

PackedMatrix matrix_of(const Addresses& a, const Sizes& n) {
  return {address<const uint8_t>(a[0]), address<const float>(a[1]), {static_cast<int32_t>(n[0])}, n[1], n[2], n[3]};
}

template <class Place>
void bind_product(pybind11::module_& m) {
  if constexpr (Place::kDevice) {
    def<Place>(
        m, "bitpack_product",
        [](Stream stream, const Addresses& a, const Sizes& n, int32_t dtype, uintptr_t x, uintptr_t y, int64_t batch) {
          return bitpack_product_device(matrix_of(a, n), dtype_of(dtype), address<const void>(x), address<void>(y),
                                        batch, stream);
        });
  } else {
    m.def("bitpack_row_bytes", [](int32_t bits, int64_t columns) { return packed_row_bytes({bits}, columns); });
    m.def("bitpack_workspace", [](int64_t batch, int64_t columns) { return bitpack_workspace(batch, columns); });
    def<Place>(m, "bitpack_product",
               [](int32_t threads, const Addresses& a, const Sizes& n, int32_t dtype, uintptr_t x, uintptr_t y,
                  int64_t batch, uintptr_t prepared) {
                 return bitpack_product(matrix_of(a, n), dtype_of(dtype), address<const void>(x), address<float>(y),
                                        batch, address<void>(prepared), threads);
               });
  }
}

template <class Place>
void bind(pybind11::module_& m) {
  using Last = typename Place::Last;
  def<Place>(m, "bitpack_pack",
             [](Last last, uintptr_t q, int32_t bits, int64_t rows, int64_t columns, uintptr_t data) {
               return GOLF_AT(Place, bitpack_pack)(address<const int8_t>(q), BitFormat{bits}, rows, columns,
                                                   address<uint8_t>(data), last);
             });
  def<Place>(m, "bitpack_unpack", [](Last last, const Addresses& a, const Sizes& n, uintptr_t q) {
    return GOLF_AT(Place, bitpack_unpack)(matrix_of(a, n), address<int8_t>(q), last);
  });
  def<Place>(m, "bitpack_dequantize", [](Last last, const Addresses& a, const Sizes& n, int32_t dtype, uintptr_t w) {
    return GOLF_AT(Place, bitpack_dequantize)(matrix_of(a, n), dtype_of(dtype), address<void>(w), last);
  });
  def<Place>(m, "bitpack_fake_quantize",
             [](Last last, int32_t dtype, uintptr_t w, uintptr_t scales, uintptr_t y, const Sizes& n) {
               return GOLF_AT(Place, bitpack_fake_quantize)(dtype_of(dtype), address<const void>(w),
                                                            address<const float>(scales), address<void>(y),
                                                            static_cast<int32_t>(n[0]), n[1], n[2], n[3], last);
             });
  bind_product<Place>(m);
}

}  // namespace

GOLF_BIND(bitpack)

}  // namespace golf
