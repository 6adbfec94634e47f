#include "bindings/bitpack_arguments.h"
#include "bindings/device_kernels.h"

namespace golf {

void bind_bitpack_kernels(pybind11::module_& m) {
  using Addresses = std::array<uintptr_t, 2>;
  using Sizes = std::array<int64_t, 4>;
  m.def("bitpack_pack",
        [](uintptr_t q, int32_t bits, int64_t rows, int64_t columns, uintptr_t data, int32_t device, uintptr_t stream) {
          run_on(device, [&] {
            return bitpack_pack_device(address<const int8_t>(q), {bits}, rows, columns, address<uint8_t>(data),
                                       stream_of(stream));
          });
        });
  m.def("bitpack_unpack", [](const Addresses& a, const Sizes& n, uintptr_t q, int32_t device, uintptr_t stream) {
    const PackedMatrix matrix = packed_matrix(a, n);
    run_on(device, [&] { return bitpack_unpack_device(matrix, address<int8_t>(q), stream_of(stream)); });
  });
  m.def("bitpack_dequantize",
        [](const Addresses& a, const Sizes& n, int32_t dtype, uintptr_t w, int32_t device, uintptr_t stream) {
          const PackedMatrix matrix = packed_matrix(a, n);
          run_on(device, [&] {
            return bitpack_dequantize_device(matrix, dtype_of(dtype), address<void>(w), stream_of(stream));
          });
        });
  m.def("bitpack_fake_quantize", [](int32_t dtype, uintptr_t w, uintptr_t scales, uintptr_t y, const Sizes& n,
                                    int32_t device, uintptr_t stream) {
    run_on(device, [&] {
      return bitpack_fake_quantize_device(dtype_of(dtype), address<const void>(w), address<const float>(scales),
                                          address<void>(y), static_cast<int32_t>(n[0]), n[1], n[2], n[3],
                                          stream_of(stream));
    });
  });
  m.def("bitpack_product", [](const Addresses& a, const Sizes& n, int32_t dtype, uintptr_t x, uintptr_t y,
                              int64_t batch, int32_t device, uintptr_t stream) {
    const PackedMatrix matrix = packed_matrix(a, n);
    run_on(device, [&] {
      return bitpack_product_device(matrix, dtype_of(dtype), address<const void>(x), address<void>(y), batch,
                                    stream_of(stream));
    });
  });
}

}  // namespace golf
