#include "head/head.h"

#include "bindings/places.h"

namespace golf {
namespace {

template <class Place>
void bind(pybind11::module_& m) {
  using Last = typename Place::Last;
  m.attr("head_max_vocab") = kHeadMaxVocab;
  def<Place>(m, "head_cross_entropy",
             [](Last last, int32_t dtype, uintptr_t z, uintptr_t targets, uintptr_t scale, uintptr_t losses,
                int64_t rows, int64_t vocab, float cap) {
               return GOLF_AT(Place, head_cross_entropy)(dtype_of(dtype), address<void>(z),
                                                         address<const int64_t>(targets), address<const float>(scale),
                                                         address<float>(losses), rows, vocab, cap, last);
             });
  def<Place>(m, "head_accumulate", [](Last last, uintptr_t total, uintptr_t part, int64_t n) {
    return GOLF_AT(Place, head_accumulate)(address<float>(total), address<const bf16>(part), n, last);
  });
}

}  // namespace

GOLF_BIND(head)

}  // namespace golf
