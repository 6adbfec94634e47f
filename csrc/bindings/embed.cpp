#include "embed/embed.h"

#include <pybind11/stl.h>

#include <array>
#include <limits>

#include "bindings/places.h"

namespace golf {
namespace {

using Two = std::array<uintptr_t, 2>;
using Three = std::array<uintptr_t, 3>;
using Addresses = std::array<uintptr_t, 6>;  // ids, table, bigram, bigram_scale, w, lambda; 0 for none
using Sizes = std::array<int64_t, 7>;        // in the order of EmbedInput

EmbedInput input_of(const Addresses& a, const Sizes& n) {
  return {address<const int64_t>(a[0]),
          address<const float>(a[1]),
          address<const float>(a[2]),
          address<const float>(a[3]),
          address<const float>(a[4]),
          address<const float>(a[5]),
          n[0],
          n[1],
          n[2],
          n[3],
          n[4],
          n[5],
          n[6]};
}

EmbedGradients gradients_of(const Three& a) {
  return {address<float>(a[0]), address<float>(a[1]), address<float>(a[2])};
}

// Addresses of the rows and of the tokens in their order; 0 for none.
[[maybe_unused]] EmbedOrder order_of(const Two& a) {
  return {address<const int32_t>(a[0]), address<const int64_t>(a[1])};
}

template <class Place>
void bind_backward(pybind11::module_& m) {
  if constexpr (Place::kDevice) {
    def<Place>(m, "embed_backward",
               [](Stream stream, const Addresses& addresses, const Sizes& sizes, int32_t dtype, uintptr_t dx,
                  uintptr_t place, const Three& gradients, const Two& by_id, const Two& by_slot, const Three& scratch) {
                 const EmbedScratch space{address<float>(scratch[0]), address<float>(scratch[1]),
                                          address<float>(scratch[2])};
                 return embed_backward_device(input_of(addresses, sizes), dtype_of(dtype), address<const void>(dx),
                                              address<const int64_t>(place), gradients_of(gradients), order_of(by_id),
                                              order_of(by_slot), space, stream);
               });
  } else {
    def<Place>(m, "embed_backward",
               [](int32_t threads, const Addresses& addresses, const Sizes& sizes, int32_t dtype, uintptr_t dx,
                  uintptr_t place, const Three& gradients, const Three& workspace) {
                 return embed_backward(input_of(addresses, sizes), dtype_of(dtype), address<const void>(dx),
                                       address<const int64_t>(place), gradients_of(gradients),
                                       address<float>(workspace[0]), address<double>(workspace[1]),
                                       address<int64_t>(workspace[2]), threads);
               });
  }
}

template <class Place>
void bind(pybind11::module_& m) {
  using Last = typename Place::Last;
  if constexpr (Place::kDevice) {
    m.attr("embed_max_smear") = kEmbedMaxSmearDevice;
    m.def("embed_partials", &embed_partials_device);
    m.def("embed_pieces", &embed_pieces_device);
  } else {
    m.attr("embed_grain") = kEmbedGrain;
    m.attr("embed_max_smear") = std::numeric_limits<int32_t>::max();
  }
  def<Place>(
      m, "embed_forward",
      [](Last last, const Addresses& addresses, const Sizes& sizes, int32_t dtype, uintptr_t x, uintptr_t place) {
        return GOLF_AT(Place, embed_forward)(input_of(addresses, sizes), dtype_of(dtype), address<void>(x),
                                             address<int64_t>(place), last);
      });
  bind_backward<Place>(m);
}

}  // namespace

GOLF_BIND(embed)

}  // namespace golf
