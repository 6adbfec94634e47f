#include "ngram/counts.h"

#include <limits>
#include <utility>

namespace golf::ngram {

namespace {
constexpr uint64_t kFirstSlots = 1 << 12;
}  // namespace

Counts::Counts(uint32_t max_contexts) : max_contexts_(max_contexts), slots_(kFirstSlots) {}

Context* Counts::slot(uint64_t key) noexcept {
  const uint64_t mask = slots_.size() - 1;
  uint64_t i = key & mask;
  while (slots_[i].key != 0 && slots_[i].key != key) i = (i + 1) & mask;
  return &slots_[i];
}

const Context* Counts::find(uint64_t key) const noexcept {
  const Context* const found = const_cast<Counts*>(this)->slot(key);
  return found->key == 0 ? nullptr : found;
}

uint32_t Counts::count(const Context& context, uint16_t token) const noexcept {
  for (uint32_t i = context.successors; i != 0; i = successors_[i].next)
    if (successors_[i].token == token) return successors_[i].count;
  return 0;
}

void Counts::grow() {
  std::vector<Context> old(slots_.size() * 2);
  std::swap(old, slots_);
  for (const Context& context : old)
    if (context.key != 0) *slot(context.key) = context;
}

void Counts::add(uint64_t key, uint16_t token) {
  Context* context = slot(key);
  if (context->key == 0) {
    if (used_ >= max_contexts_) return;
    if ((used_ + 1) * 3 > slots_.size() * 2) {
      grow();
      context = slot(key);
    }
    context->key = key;
    ++used_;
  }
  uint32_t i = context->successors;
  uint32_t before = 0;
  while (i != 0 && successors_[i].token != token) {
    before = i;
    i = successors_[i].next;
  }
  if (i == 0) {
    if (successors_.size() > 4 * max_contexts_) return;
    successors_.push_back({context->successors, 0, token});
    i = context->successors = static_cast<uint32_t>(successors_.size() - 1);
    if (context->kinds < std::numeric_limits<uint16_t>::max()) ++context->kinds;
  } else if (before != 0) {  // to the front: what came lately comes again
    successors_[before].next = successors_[i].next;
    successors_[i].next = context->successors;
    context->successors = i;
  }
  const uint32_t count = ++successors_[i].count;
  context->run = context->total != 0 && context->last == token
                     ? static_cast<uint16_t>(context->run + (context->run < std::numeric_limits<uint16_t>::max()))
                     : uint16_t{0};
  context->last = token;
  ++context->total;
  if (count >= context->best_count) {
    context->best_count = count;
    context->best = token;
  }
}

}  // namespace golf::ngram
