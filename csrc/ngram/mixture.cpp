#include "ngram/mixture.h"

#include <algorithm>
#include <cmath>

namespace golf::ngram {
namespace {

// Classes of counts: 12 of the total by 8 of the number of kinds. Classes of agreement: 16 of the model's confidence by
// 2 by 8 of the likeliest token's share (for kLast: of its run).
constexpr uint32_t kTotals = 12, kKinds = 8, kConfidences = 16, kShares = 8;
constexpr uint32_t kCountClasses = kTotals * kKinds, kAgreements = kConfidences * 2 * kShares;
// All tokens say nothing before there are this many.
constexpr uint64_t kFirstAll = 100;
// Keeps AdaGrad's first step, from a sum of squares near 0, below rate / sqrt(kFloor) times the gradient.
constexpr float kFloor = 1e-2f;

uint32_t log2_of(uint64_t x) {
  uint32_t n = 0;
  while (x >>= 1) ++n;
  return n;
}

uint32_t rows_of(const Options& options) { return 2 + 2 * static_cast<uint32_t>(options.order); }

uint64_t mixed(uint64_t h) {
  constexpr uint64_t kFactor = 0xd6e8feb86659fd93;  // Mulvey's rrmxmx family
  h ^= h >> 32;
  h *= kFactor;
  h ^= h >> 32;
  h *= kFactor;
  return h ^ (h >> 32);
}

}  // namespace

Mixture::Mixture(const Options& options)
    : options_(options),
      counts_(options.max_contexts),
      a_(rows_of(options) * kCountClasses, 0.0f),
      b_(rows_of(options) * kAgreements, 0.0f),
      c_(rows_of(options), options.bias),
      keys_(static_cast<size_t>(options.order) + 1),
      all_V_(static_cast<size_t>(options.vocab)),
      document_V_(static_cast<size_t>(options.vocab)) {}

void Mixture::add(Stage::Kind kind, const Context* context, uint32_t row, uint32_t counts_class, uint32_t share,
                  bool agrees, Top top) {
  const float halves = -2.0f * top.log_p;  // a NaN ends as the last class
  const uint32_t confidence = halves <= 0.0f                 ? 0
                              : halves < kConfidences - 1.0f ? static_cast<uint32_t>(halves)
                                                             : kConfidences - 1;
  const uint32_t a = row * kCountClasses + counts_class;
  const uint32_t b = row * kAgreements + (confidence * 2 + agrees) * kShares + std::min(share, kShares - 1);
  const double z = static_cast<double>(a_.value[a]) + b_.value[b] + c_.value[row];
  stages_.push_back({context, kind, a, b, row, 1.0 / (1.0 + std::exp(-z))});
}

void Mixture::stage(Top top) {
  stages_.clear();
  if (document_total_ != 0)
    add(Stage::kDocument, nullptr, 0, std::min(log2_of(document_total_), kTotals - 1) * kKinds, 0, false, top);
  if (all_total_ >= kFirstAll) add(Stage::kAll, nullptr, 1, 0, 0, false, top);
  const auto longest = static_cast<uint32_t>(std::min<size_t>(history_.size(), static_cast<size_t>(options_.order)));
  for (uint32_t k = 1; k <= longest; ++k) {
    const Context* const context = counts_.find(keys_[k]);
    if (context == nullptr || context->total == 0) break;
    const uint32_t total = std::min(log2_of(context->total), kTotals - 1);
    const uint32_t kinds =
        context->kinds <= 3 ? context->kinds - 1u : std::min(2 + log2_of(context->kinds), kKinds - 1);
    const uint32_t counts_class = total * kKinds + kinds;
    const auto share = static_cast<uint32_t>(uint64_t{kShares} * context->best_count / context->total);
    add(Stage::kCounts, context, 2 * k, counts_class, share, context->best == top.token, top);
    if (context->kinds > 1)
      add(Stage::kLast, context, 2 * k + 1, counts_class, context->run, context->last == top.token, top);
  }
}

double Mixture::share_of(const Stage& stage, uint16_t token) const noexcept {
  switch (stage.kind) {
    case Stage::kDocument:
      return static_cast<double>(document_V_[token]) / static_cast<double>(document_total_);
    case Stage::kAll:
      return static_cast<double>(all_V_[token]) / static_cast<double>(all_total_);
    case Stage::kCounts:
      return static_cast<double>(counts_.count(*stage.context, token)) / stage.context->total;
    default:
      return stage.context->last == token ? 1.0 : 0.0;
  }
}

void Mixture::distribution(const float* p_V, Top top, float* mixed_V) {
  stage(top);
  double rest = 1.0;  // what the later stages leave of a stage
  std::vector<double> weights(stages_.size());
  for (size_t i = stages_.size(); i-- > 0;) {
    weights[i] = stages_[i].w * rest;
    rest *= 1.0 - stages_[i].w;
  }
  float document = 0.0f, all = 0.0f;
  for (size_t i = 0; i < stages_.size(); ++i) {
    if (stages_[i].kind == Stage::kDocument) document = static_cast<float>(weights[i] / document_total_);
    if (stages_[i].kind == Stage::kAll) all = static_cast<float>(weights[i] / all_total_);
  }
  const auto kept = static_cast<float>(rest);
  for (size_t v = 0; v < all_V_.size(); ++v) mixed_V[v] = kept * p_V[v] + all * static_cast<float>(all_V_[v]);
  for (const uint16_t token : document_) mixed_V[token] += document * static_cast<float>(document_V_[token]);
  for (size_t i = 0; i < stages_.size(); ++i) {
    const Stage& stage = stages_[i];
    if (stage.kind == Stage::kCounts) {
      const double each = weights[i] / stage.context->total;
      counts_.for_each(*stage.context,
                       [&](uint16_t token, uint32_t count) { mixed_V[token] += static_cast<float>(each * count); });
    } else if (stage.kind == Stage::kLast) {
      mixed_V[stage.context->last] += static_cast<float>(weights[i]);
    }
  }
}

void Mixture::score(const uint16_t* targets_N, const float* log_p_N, const float* top_log_p_N, const uint16_t* top_N,
                    int64_t n, double* losses_N) {
  std::vector<double> before, share;
  for (int64_t i = 0; i < n; ++i) {
    stage({top_log_p_N[i], top_N[i]});
    const uint16_t target = targets_N[i];
    double p = std::exp(static_cast<double>(log_p_N[i]));
    before.clear();
    share.clear();
    for (const Stage& stage : stages_) {
      before.push_back(p);
      share.push_back(share_of(stage, target));
      p = (1.0 - stage.w) * p + stage.w * share.back();
    }
    losses_N[i] = -std::log(p);
    double rest = 1.0;
    for (size_t s = stages_.size(); s-- > 0;) {
      const Stage& stage = stages_[s];
      const double gradient = rest * (share[s] - before[s]) / p * stage.w * (1.0 - stage.w);  // of log p by the gate
      rest *= 1.0 - stage.w;
      update(&a_, stage.a, gradient);
      update(&b_, stage.b, gradient);
      update(&c_, stage.c, gradient);
    }
    learn(target);
  }
}

void Mixture::update(Gates* gates, uint32_t place, double gradient) const {
  const auto g = static_cast<float>(gradient);
  float& squares = gates->squares[place];
  squares += g * g;
  gates->value[place] += options_.rate * g / std::sqrt(squares + kFloor);
}

void Mixture::learn(uint16_t token) {
  const auto longest = static_cast<uint32_t>(std::min<size_t>(history_.size(), static_cast<size_t>(options_.order)));
  for (uint32_t k = 1; k <= longest; ++k) counts_.add(keys_[k], token);
  if (token == options_.bos) {
    history_.clear();
    for (const uint16_t seen : document_) document_V_[seen] = 0;
    document_.clear();
    document_total_ = 0;
  } else {
    if (document_V_[token]++ == 0) document_.push_back(token);
    ++document_total_;
  }
  ++all_V_[token];
  ++all_total_;
  ++learned_;
  if (history_.size() == kMaxOrder) history_.erase(history_.begin());
  history_.push_back(token);
  uint64_t h = 0;
  for (size_t k = 1; k <= std::min<size_t>(history_.size(), static_cast<size_t>(options_.order)); ++k) {
    h = mixed(h * 31 + history_[history_.size() - k] + 1 + k * 0x10001);
    keys_[k] = h | 1;  // 0 is a free slot
  }
}

}  // namespace golf::ngram
