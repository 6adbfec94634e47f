// A model's next-token distribution, mixed with what was seen so far: an online n-gram expert that cannot look ahead.
//
// The mixture is a chain. It begins with the model's distribution p. Each stage has a distribution e of its own, made
// of counts of tokens that were already scored, and a gate w in (0, 1): p becomes (1 - w) p + w e. So p sums to 1 after
// every stage, whatever w is. Stages, in this order:
//   the tokens of this document; all tokens; then for each order k from 1 to the longest context that was seen before,
//   the tokens that followed the last k, and (if there were several) the one that followed last.
// A gate is sigma(a + b + c): c by stage, a by stage and the context's counts, b by stage, the model's confidence, and
// whether model and context agree on the likeliest token. All of this is known before the target is. After the target
// was booked the gates take one step of AdaGrad on its log-loss, and the counts learn it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ngram/counts.h"

namespace golf::ngram {

inline constexpr int32_t kMaxOrder = 16;

struct Options {
  int32_t vocab;          // at most 65,536
  int32_t order;          // longest context in tokens, 1 to kMaxOrder
  int32_t bos;            // starts a document; no context reaches back over it
  uint32_t max_contexts;  // of all orders together; a context takes about 100 bytes with its successors
  float rate;             // of the gates
  float bias;             // of the gates at the start; -3: a twentieth
};

// What a model says about the next token besides its distribution.
struct Top {
  float log_p;  // of the likeliest token
  uint16_t token;
};

class Mixture {
 public:
  explicit Mixture(const Options& options);  // throws std::bad_alloc, as all members that learn

  // Takes in a token without scoring it, such as the first of a text.
  void learn(uint16_t token);
  // The mixed distribution of the next token, p_V to mixed_V (both [vocab]), given the model's.
  void distribution(const float* p_V, Top top, float* mixed_V);
  // Scores `targets_N`, each and then learns it: log_p_N are the model's log-probabilities of the targets, tops_N what
  // it says besides. Losses in nats.
  void score(const uint16_t* targets_N, const float* log_p_N, const float* top_log_p_N, const uint16_t* top_N,
             int64_t n, double* losses_N);
  int64_t learned() const noexcept { return learned_; }

 private:
  struct Stage {
    const Context* context;  // null for the tables of documents and of all tokens
    enum Kind : uint8_t { kDocument, kAll, kCounts, kLast } kind;
    uint32_t a, b, c;  // places in the gates
    double w;
  };
  struct Gates {
    Gates(size_t n, float start) : value(n, start), squares(n, 0.0f) {}
    std::vector<float> value, squares;
  };

  void stage(Top top);  // what stages_ holds for the next token
  void add(Stage::Kind kind, const Context* context, uint32_t row, uint32_t counts_class, uint32_t share, bool agrees,
           Top top);
  double share_of(const Stage& stage, uint16_t token) const noexcept;
  void update(Gates* gates, uint32_t place, double gradient) const;

  Options options_;
  Counts counts_;
  Gates a_, b_, c_;
  std::vector<Stage> stages_;
  std::vector<uint64_t> keys_;     // of the contexts before the next token, by order
  std::vector<uint16_t> history_;  // of this document, the last kMaxOrder
  std::vector<uint32_t> all_V_, document_V_;
  std::vector<uint16_t> document_;  // tokens whose document_V_ is not 0
  uint64_t all_total_ = 0, document_total_ = 0;
  int64_t learned_ = 0;
};

}  // namespace golf::ngram
