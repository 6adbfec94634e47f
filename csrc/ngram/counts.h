// What has followed which context: counts of tokens by hashed context, in memory of a fixed largest size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace golf::ngram {

// A context: the tokens that followed it, newest first in its list, and what the gates ask about it.
struct Context {
  uint64_t key;
  uint32_t successors;  // the first Successor; 0: none
  uint32_t total;       // sum of the counts
  uint32_t best_count;
  uint16_t kinds;  // different tokens; stays at 65,535
  uint16_t best;   // the token with the largest count, the latest of equals
  uint16_t last;   // the latest token
  uint16_t run;    // how often it came in a row before
};

struct Successor {
  uint32_t next;
  uint32_t count;
  uint16_t token;
};

// Contexts by a key of 64 bits, which stands for the tokens themselves: two contexts share one with probability 2^-64 a
// pair. Once `max_contexts` are there, or four times as many successors, no more are added; those that are there go on
// counting.
class Counts {
 public:
  explicit Counts(uint32_t max_contexts);  // throws std::bad_alloc, like add()

  // Null if the context was never seen. Valid until the next add().
  const Context* find(uint64_t key) const noexcept;
  // How often `token` followed.
  uint32_t count(const Context& context, uint16_t token) const noexcept;
  void add(uint64_t key, uint16_t token);

  template <class Fn>
  void for_each(const Context& context, const Fn& fn) const {
    for (uint32_t i = context.successors; i != 0; i = successors_[i].next)
      fn(successors_[i].token, successors_[i].count);
  }
  uint64_t contexts() const noexcept { return used_; }

 private:
  Context* slot(uint64_t key) noexcept;
  void grow();

  uint64_t max_contexts_, used_ = 0;
  std::vector<Context> slots_;            // a power of two, at most two thirds full; key 0: free
  std::vector<Successor> successors_{1};  // the first is nobody's, so that 0 can end a list
};

}  // namespace golf::ngram
