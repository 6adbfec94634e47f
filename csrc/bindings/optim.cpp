#include "optim/optim.h"

#include <pybind11/stl.h>

#include <array>
#include <tuple>
#include <vector>

#include "bindings/places.h"

namespace golf {
namespace {

using Address = uintptr_t;
// p, g, m, v, ema, shadow, n, lr, weight_decay, dtype of g; 0 for what is absent.
using Row = std::tuple<Address, Address, Address, Address, Address, Address, int64_t, float, float, int32_t>;
using Rows = std::vector<Row>;

template <class Place>
std::vector<OptimTensor> tensors_of(const Rows& rows) {
  std::vector<OptimTensor> tensors;
  tensors.reserve(rows.size());
  for (const auto& [p, g, m, v, ema, shadow, n, lr, weight_decay, g_dtype] : rows)
    tensors.push_back({address<float>(p), address<const void>(g), address<float>(m), address<float>(v),
                       address<float>(ema), address<bf16>(shadow), n, lr, weight_decay, dtype_of(g_dtype), 0});
  if constexpr (!Place::kDevice) number_chunks(tensors.data(), static_cast<int64_t>(tensors.size()));
  return tensors;
}

// The kernels for GPUs take banks and updates in bf16 alone.
[[maybe_unused]] bf16* bf16_of(int32_t dtype, Address at, const char* message) {
  if (dtype_of(dtype) != DType::kBF16) throw std::invalid_argument(message);
  return address<bf16>(at);
}

template <class Place>
void bind_newton_schulz(pybind11::module_& m) {
  m.def("has_symmetric_product", [](int32_t dtype) { return has_symmetric_product(dtype_of(dtype)); });
  m.def("polynomial_workspace", [](int32_t dtype, int64_t count, int64_t rows, int64_t columns) {
    return polynomial_workspace(dtype_of(dtype), count, rows, columns);
  });
  def<Cpu>(
      m, "newton_schulz_polynomial",
      [](int32_t threads, int32_t dtype, Address x, Address square, Address out, const std::array<int64_t, 3>& shape,
         const std::array<int64_t, 3>& strides, const std::vector<float>& abc, Address packed) {
        if (abc.size() != 3 && abc.size() != 6) throw std::invalid_argument("one or two steps of three coefficients");
        Polynomial p{dtype_of(dtype),
                     address<const void>(x),
                     address<void>(square),
                     address<void>(out),
                     shape[0],
                     shape[1],
                     shape[2],
                     strides[0],
                     strides[1],
                     strides[2],
                     static_cast<int32_t>(abc.size() / 3),
                     {}};
        for (int32_t i = 0; i < p.steps; ++i) p.step[i] = {abc[3 * i], abc[3 * i + 1], abc[3 * i + 2]};
        return newton_schulz_polynomial(p, address<void>(packed), threads);
      });
}

template <class Place>
void bind(pybind11::module_& m) {
  using Last = typename Place::Last;
  def<Place>(m, "adamw_step",
             [](Last last, const Rows& rows, float beta1, float beta2, float eps, float grad_scale, float ema_rate,
                float bias1, float bias2) {
               const std::vector<OptimTensor> tensors = tensors_of<Place>(rows);
               const AdamStep step{beta1, beta2, eps, grad_scale, ema_rate, bias1, bias2};
               return GOLF_AT(Place, adamw_step)(tensors.data(), static_cast<int64_t>(tensors.size()), step, last);
             });
  def<Place>(m, "muon_momentum",
             [](Last last, const Rows& matrices, int64_t rows, int64_t columns, float momentum, bool row_norm,
                float eps, int32_t bank_dtype, Address bank, Address norms) {
               const std::vector<OptimTensor> tensors = tensors_of<Place>(matrices);
               const int64_t count = static_cast<int64_t>(tensors.size());
               if constexpr (Place::kDevice)
                 return muon_momentum_device(tensors.data(), count, rows, columns, momentum, row_norm, eps,
                                             bf16_of(bank_dtype, bank, "a bank on a GPU is bf16"),
                                             address<float>(norms), last);
               else
                 return muon_momentum(tensors.data(), count, rows, columns, momentum, row_norm, eps,
                                      dtype_of(bank_dtype), address<void>(bank), address<float>(norms), last);
             });
  def<Place>(m, "muon_apply",
             [](Last last, const Rows& rows, int32_t update_dtype, Address update, float factor, float ema_rate) {
               const std::vector<OptimTensor> tensors = tensors_of<Place>(rows);
               const int64_t count = static_cast<int64_t>(tensors.size());
               if constexpr (Place::kDevice)
                 return muon_apply_device(tensors.data(), count,
                                          bf16_of(update_dtype, update, "an update on a GPU is bf16"), factor, ema_rate,
                                          last);
               else
                 return muon_apply(tensors.data(), count, dtype_of(update_dtype), address<const void>(update), factor,
                                   ema_rate, last);
             });
  if constexpr (!Place::kDevice) bind_newton_schulz<Place>(m);
}

}  // namespace

GOLF_BIND(optim)

}  // namespace golf
