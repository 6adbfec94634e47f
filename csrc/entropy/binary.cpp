#include "entropy/binary.h"

#include "entropy/entropy.h"
#include "entropy/lanes.h"

namespace golf::entropy {
namespace {

constexpr uint32_t kIncrement = 16;  // of a count, for each decision
constexpr uint32_t kHalveAt = 1u << 20;
constexpr uint32_t kOne = 1u << kBinaryPrecision;

}  // namespace

BinaryModel::BinaryModel(const Symbols& symbols, const AdaptiveParams& params, uint32_t first_mean)
    : symbols_(symbols),
      shift_(params.shift),
      places_(2 + static_cast<uint32_t>(symbols.half())),
      trellis_(symbols.trellis),
      columns_(params, kBlockWeights, first_mean) {}

void BinaryModel::start_tensor(uint64_t cols) {
  columns_.start_tensor(cols);
  context_C_.assign(cols, 0);
  state_C_.assign(symbols_.trellis != 0 ? cols : 0, 0);
}

uint64_t BinaryModel::block_rows(uint64_t left) const noexcept {
  return symbols_.trellis != 0 ? 1 : columns_.block_rows(left);
}

uint32_t BinaryModel::context_of(uint32_t column_class) {
  const uint32_t per_class = symbols_.trellis != 0 ? 2 : 1;
  int32_t& first = first_of_class_[column_class];
  if (first < 0) {
    first = static_cast<int32_t>(one_.size());
    for (uint32_t z = 0; z < per_class; ++z) start_row(column_class, z);
  }
  for (uint32_t z = 0; z < per_class; ++z) refresh(static_cast<uint32_t>(first) + z * places_);
  return static_cast<uint32_t>(first);
}

// What the class's first counts of symbols say of each decision.
void BinaryModel::start_row(uint32_t column_class, uint32_t z) {
  uint64_t counts[256];
  first_counts(symbols_, column_class, shift_, z, counts);
  const int32_t half = symbols_.half();
  std::vector<uint32_t> of_size(static_cast<size_t>(half) + 2, 0);
  uint32_t negative = 0;
  for (int32_t k = -half; k < half; ++k) {
    const auto count = static_cast<uint32_t>(counts[k + half]);
    of_size[size_of(k, z)] += count;
    if (k < 0) negative += count;
  }
  const size_t at = seen_.size();
  seen_.resize(at + 2 * places_, 0);
  one_.resize(seen_.size() / 2, 0);
  built_.resize(seen_.size() / 2, UINT32_MAX);
  deepest_.resize(one_.size(), places_);
  uint32_t larger = 0;
  for (uint32_t size = static_cast<uint32_t>(half); size > 0; --size) {
    larger += of_size[size + 1];
    seen_[at + 2 * (1 + size)] = of_size[size];
    seen_[at + 2 * (1 + size) + 1] = larger;
  }
  larger += of_size[1];
  seen_[at] = of_size[0];
  seen_[at + 1] = larger;
  seen_[at + 2] = larger - negative;
  seen_[at + 3] = negative;
}

void BinaryModel::refresh(size_t first) {
  for (size_t i = first; i < first + deepest_[first]; ++i) {
    uint32_t* const seen = &seen_[2 * i];
    if (seen[0] + seen[1] == built_[i]) continue;
    while (seen[0] + seen[1] >= kHalveAt) {
      seen[0] >>= 1;
      seen[1] >>= 1;
    }
    built_[i] = seen[0] + seen[1];
    const uint64_t p = ((2 * uint64_t{seen[1]} + 1) << kBinaryPrecision) / (2 * uint64_t{built_[i]} + 2);
    one_[i] = static_cast<uint16_t>(std::clamp<uint64_t>(p, 1, kOne - 1));
  }
  deepest_[first] = 2;
}

size_t BinaryModel::start_block(uint64_t rows) {
  const size_t cols = columns_.cols(), n = rows * cols;
  uint32_t context = 0;
  columns_.classes([&](size_t c, uint32_t column_class, bool same) {
    if (!same) context = context_of(column_class);
    context_C_[c] = context;
  });
  if (list_.size() < n) {
    for (std::vector<uint32_t>* v : {&base_, &list_}) v->resize(n);
    for (std::vector<uint8_t>* v : {&bits_, &z_, &negative_, &size_}) v->resize(n, 0);
  }
  block_ = n;
  if (symbols_.trellis == 0) {
    for (size_t w = 0; w < n; w += cols)
      std::copy(context_C_.begin(), context_C_.end(), base_.begin() + static_cast<std::ptrdiff_t>(w));
    for (size_t w = 0; w < n; ++w) list_[w] = static_cast<uint32_t>(w);
    return n;
  }
  size_t even = 0;
  for (size_t c = 0; c < cols; ++c) {
    const uint32_t z = state_C_[c] & 1u;
    z_[c] = static_cast<uint8_t>(z);
    base_[c] = context_C_[c] + z * places_;
    list_[even] = static_cast<uint32_t>(c);
    even += 1 - z;
  }
  return even;
}

void BinaryModel::tally(size_t n, uint32_t place) noexcept {
  for (size_t i = 0; i < n; ++i) seen_[2 * (base_[list_[i]] + place) + bits_[i]] += kIncrement;
  if (place > 1)
    for (size_t i = 0; i < n; ++i) deepest_[base_[list_[i]]] = place + 1;
}

size_t BinaryModel::keep_sized(size_t n) noexcept {
  for (size_t w = 0; w < block_; ++w) size_[w] = z_[w];
  for (size_t i = 0; i < n; ++i) size_[list_[i]] = bits_[i];
  size_t left = 0;
  for (size_t w = 0; w < block_; ++w) {
    list_[left] = static_cast<uint32_t>(w);
    left += size_[w];
  }
  return left;
}

size_t BinaryModel::keep_yes(size_t n) noexcept {
  size_t left = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint32_t w = list_[i];
    size_[w] = static_cast<uint8_t>(size_[w] + bits_[i]);
    list_[left] = w;
    left += bits_[i];
  }
  return left;
}

size_t BinaryModel::keep_largest(size_t n) noexcept {
  size_t left = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint32_t w = list_[i];
    list_[left] = w;
    left += negative_[w] | z_[w];
  }
  return left;
}

void BinaryModel::end_block(uint64_t rows, int8_t* weights) noexcept {
  const size_t cols = columns_.cols();
  for (size_t w = 0, c = 0; w < block_; ++w) {
    const int32_t size = size_[w], z = z_[w];
    // A zero has no sign: what an earlier block left there multiplies nothing.
    const int32_t k = negative_[w] != 0 ? -size : size - z;
    weights[w] = static_cast<int8_t>(k);
    columns_.add(c, static_cast<uint64_t>(2 * size - z));
    if (symbols_.trellis != 0) state_C_[c] = trellis_.next(state_C_[c], k);
    if (++c == cols) c = 0;
  }
  columns_.end_block(rows);
}

namespace {

// Collects decisions and writes them backwards.
class BitEncoder {
 public:
  void start_plane() { planes_.push_back(decisions_.size()); }
  void add(uint32_t one, bool bit) { decisions_.push_back(static_cast<uint16_t>(one << 1 | (bit ? 1 : 0))); }

  void finish(uint32_t lanes_log2, std::vector<uint8_t>* out) const {
    const size_t lanes = size_t{1} << lanes_log2;
    std::vector<uint64_t> states(lanes, kBinaryLow);
    std::vector<uint16_t> words;  // backwards
    words.reserve(decisions_.size() / 16);
    size_t end = decisions_.size();
    for (size_t plane = planes_.size(); plane-- > 0;) {
      for (size_t i = end; i-- > planes_[plane];) {
        const uint32_t one = decisions_[i] >> 1;
        const bool bit = (decisions_[i] & 1u) != 0;
        const uint64_t share = bit ? one : kOne - one;
        uint64_t& lane = states[(i - planes_[plane]) & (lanes - 1)];
        uint64_t x = lane;
        if (x >= share << (24 + 16 - kBinaryPrecision)) {
          words.push_back(static_cast<uint16_t>(x));
          x >>= 16;
        }
        lane = ((x / share) << kBinaryPrecision) + x % share + (bit ? 0 : one);
      }
      end = planes_[plane];
    }
    out->reserve(out->size() + kBinaryStateBytes * lanes + 2 * words.size());
    for (const uint64_t x : states)
      for (uint32_t b = 0; b < kBinaryStateBytes; ++b) out->push_back(static_cast<uint8_t>(x >> 8 * b));
    for (size_t i = words.size(); i-- > 0;) put16(out, words[i]);
  }

 private:
  std::vector<uint16_t> decisions_;  // probability of a yes, then the answer
  std::vector<size_t> planes_;
};

class BitDecoder {
 public:
  explicit BitDecoder(uint32_t lanes_log2) : lanes_(size_t{1} << lanes_log2) {}

  Fault open(const uint8_t* data, size_t size) noexcept {
    if (size < kBinaryStateBytes * lanes_) return Fault::kCut;
    for (size_t i = 0; i < lanes_; ++i, data += kBinaryStateBytes) {
      states_[i] = 0;
      for (uint32_t b = 0; b < kBinaryStateBytes; ++b) states_[i] |= uint64_t{data[b]} << 8 * b;
      if (states_[i] < kBinaryLow) return Fault::kEnd;
    }
    front_ = data;
    back_ = data + (size - kBinaryStateBytes * lanes_);
    return Fault::kNone;
  }

  // False where the stream ends early.
  bool plane(const uint16_t* one, const uint32_t* base, const uint32_t* list, size_t n, uint8_t* bits) noexcept {
    size_t i = 0;
    while (i < n) {
      // A decision takes at most a word, so this many need no check of the stream's end.
      const size_t safe = std::min(n - i, static_cast<size_t>(back_ - front_) / 2);
      if (safe == 0) {
        if (!decide<true>(one, base, list, i, i + 1, bits)) return false;
        ++i;
      } else {
        decide<false>(one, base, list, i, i + safe, bits);
        i += safe;
      }
    }
    return true;
  }

  Fault close() const noexcept {
    if (front_ != back_) return Fault::kEnd;
    for (size_t i = 0; i < lanes_; ++i)
      if (states_[i] != kBinaryLow) return Fault::kEnd;
    return Fault::kNone;
  }

 private:
  template <bool kChecked>
  bool decide(const uint16_t* one, const uint32_t* base, const uint32_t* list, size_t begin, size_t end,
              uint8_t* bits) noexcept {
    const size_t lane_mask = lanes_ - 1;
    const uint8_t* front = front_;
    for (size_t i = begin; i < end; ++i) {
      const uint32_t p = one[base[list[i]]];
      uint64_t x = states_[i & lane_mask];
      const auto slot = static_cast<uint32_t>(x) & (kOne - 1);
      const bool bit = slot < p;
      const uint32_t share = bit ? p : kOne - p;
      x = share * (x >> kBinaryPrecision) + (bit ? slot : slot - p);
      const bool due = x < kBinaryLow;
      if (kChecked) {
        if (due) {
          if (back_ - front < 2) return false;
          x = x << 16 | get16(front);
          front += 2;
        }
      } else {
        // Without a branch: whether a word is due is as good as random.
        const uint64_t wide = x << 16 | get16(front);
        front += due ? 2 : 0;
        x = due ? wide : x;
      }
      states_[i & lane_mask] = x;
      bits[i] = bit ? 1 : 0;
    }
    front_ = front;
    return true;
  }

  const size_t lanes_;
  const uint8_t* front_ = nullptr;
  const uint8_t* back_ = nullptr;
  uint64_t states_[size_t{1} << kMaxLanesLog2];
};

// Whether weight w of a block answers yes at a place.
bool answer(int32_t k, uint32_t z, uint32_t place) noexcept {
  if (place == 1) return k < 0;
  return size_of(k, z) > (place == 0 ? 0 : place - 1);
}

}  // namespace

std::vector<uint8_t> encode_binary(const Symbols& symbols, const std::vector<Matrix>& matrices, const int8_t* data,
                                   const AdaptiveParams& params) {
  std::vector<uint8_t> out;
  const uint32_t mean = first_mean(matrices[0], data);
  put16(&out, mean);
  BinaryModel model(symbols, params, mean);
  BitEncoder encoder;
  std::vector<int8_t> again;
  for (const Matrix& m : matrices) {
    model.start_tensor(m.cols);
    for (uint64_t row = 0; row < m.rows;) {
      const uint64_t rows = model.block_rows(m.rows - row);
      again.resize(rows * m.cols);
      const auto run = [&](const uint32_t* list, size_t n, uint32_t place, uint8_t* bits) {
        encoder.start_plane();
        for (size_t i = 0; i < n; ++i) {
          bits[i] = answer(data[list[i]], model.z()[list[i]], place) ? 1 : 0;
          encoder.add(model.one()[model.base()[list[i]] + place], bits[i] != 0);
        }
        return true;
      };
      model.code_block(rows, run, again.data());
      data += rows * m.cols;
      row += rows;
    }
  }
  encoder.finish(params.lanes_log2, &out);
  return out;
}

Fault decode_binary(const Symbols& symbols, const std::vector<Matrix>& matrices, const AdaptiveParams& params,
                    const uint8_t* coded, size_t size, int8_t* data) {
  if (params.lanes_log2 > kMaxLanesLog2 || params.prior_log2 > kMaxPriorLog2 || params.shift > kMaxShift ||
      symbols.bits < 2)
    return Fault::kParameters;
  for (const Matrix& m : matrices)
    if (m.cols > kMaxColumns) return Fault::kParameters;
  if (size < 2) return Fault::kCut;
  BinaryModel model(symbols, params, get16(coded));
  BitDecoder decoder(params.lanes_log2);
  const Fault fault = decoder.open(coded + 2, size - 2);
  if (fault != Fault::kNone) return fault;
  const auto run = [&](const uint32_t* list, size_t n, uint32_t place, uint8_t* bits) {
    return decoder.plane(model.one() + place, model.base(), list, n, bits);
  };
  for (const Matrix& m : matrices) {
    model.start_tensor(m.cols);
    for (uint64_t row = 0; row < m.rows;) {
      const uint64_t rows = model.block_rows(m.rows - row);
      if (!model.code_block(rows, run, data)) return Fault::kCut;
      data += rows * m.cols;
      row += rows;
    }
  }
  return decoder.close();
}

}  // namespace golf::entropy
