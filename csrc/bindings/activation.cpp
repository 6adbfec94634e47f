#include "activation/activation.h"

#include "bindings/places.h"

namespace golf {
namespace {

template <class Place>
void bind(pybind11::module_& m) {
  using Last = typename Place::Last;
  def<Place>(m, "activation_forward", [](Last last, int32_t dtype, uintptr_t u, uintptr_t y, int64_t n, float slope) {
    return GOLF_AT(Place, activation_forward)(dtype_of(dtype), address<void>(u), address<void>(y), n, slope, last);
  });
  def<Place>(m, "activation_backward",
             [](Last last, int32_t dtype, uintptr_t u, uintptr_t dy, uintptr_t du, int64_t n, float slope) {
               return GOLF_AT(Place, activation_backward)(dtype_of(dtype), address<void>(u), address<void>(dy),
                                                          address<void>(du), n, slope, last);
             });
}

}  // namespace

GOLF_BIND(activation)

}  // namespace golf
