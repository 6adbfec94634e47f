// Fuzz target for the entropy coders, which read hostile bytes without a bounds check of Python's behind them.
//
//   clang++ -std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I csrc \
//     tests/fuzz/fuzz_entropy.cpp csrc/entropy/*.cpp -o fuzz_entropy && ./fuzz_entropy tests/fuzz/corpus/entropy
//
// Input: mode (bit 0: adaptive, bit 1: encode first, bit 2: binary), bits, trellis, three parameters, the number of
// matrices, rows and columns of each, then coded bytes; or with bit 1 set, symbols. Coded bytes are refused or decode
// to symbols that code and decode to themselves. With GOLF_FUZZ_MAIN it needs no libFuzzer: files are replayed, and
// mutated for some rounds.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "entropy/entropy.h"

using namespace golf::entropy;

namespace {

struct Input {
  Symbols symbols;
  bool adaptive, binary;
  AdaptiveParams adaptive_params;
  StaticParams static_params;
  std::vector<Matrix> matrices;
  size_t weights = 0;

  Fault decode(const uint8_t* coded, size_t size, int8_t* to) const {
    if (binary) return decode_binary(symbols, matrices, adaptive_params, coded, size, to);
    return adaptive ? decode_adaptive(symbols, matrices, adaptive_params, coded, size, to)
                    : decode_static(symbols, matrices, static_params, coded, size, to);
  }
  std::vector<uint8_t> encode(const int8_t* from) const {
    if (binary) return encode_binary(symbols, matrices, from, adaptive_params);
    return adaptive ? encode_adaptive(symbols, matrices, from, adaptive_params)
                    : encode_static(symbols, matrices, from, static_params);
  }
};

void must(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

void round_trip(const Input& input, const std::vector<int8_t>& symbols) {
  const std::vector<uint8_t> coded = input.encode(symbols.data());
  // A copy of its own size, so that one byte read beyond it is noticed.
  const std::vector<uint8_t> exact(coded.begin(), coded.end());
  std::vector<int8_t> again(input.weights);
  must(input.decode(exact.data(), exact.size(), again.data()) == Fault::kNone, "what was encoded is refused");
  must(std::memcmp(again.data(), symbols.data(), again.size()) == 0, "what was encoded changed");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 7) return 0;
  Input input{};
  input.adaptive = (data[0] & 1) != 0;
  const bool encode_first = (data[0] & 2) != 0;
  input.binary = (data[0] & 4) != 0;
  input.symbols.bits = 1 + data[1] % 8;
  if (input.binary && encode_first && input.symbols.bits == 1) return 0;
  const uint32_t trellis = data[2] % 9;
  input.symbols.trellis = trellis < 2 ? 0 : trellis;
  input.adaptive_params = {data[3], data[4], data[5]};
  input.static_params = {data[3], data[4]};
  const size_t count = 1 + data[6] % 4;
  size_t at = 7;
  if (size < at + 2 * count) return 0;
  for (size_t i = 0; i < count; ++i, at += 2) {
    input.matrices.push_back({1 + uint64_t{data[at]}, 1 + uint64_t{data[at + 1]}});
    input.weights += input.matrices.back().rows * input.matrices.back().cols;
  }
  if (input.weights > 1 << 14) return 0;
  std::vector<int8_t> symbols(input.weights);
  if (encode_first) {
    for (size_t i = 0; i < input.weights; ++i) {
      const uint32_t value = at + i < size ? data[at + i] : 0;
      symbols[i] = static_cast<int8_t>(static_cast<int32_t>(value % input.symbols.alphabet()) - input.symbols.half());
    }
    // The encoder trusts its parameters: make them such as Python gives.
    uint32_t lanes = data[3] % (kMaxLanesLog2 + 1);
    if (input.symbols.trellis != 0)
      for (const Matrix& m : input.matrices)
        while (m.cols < uint64_t{1} << lanes) --lanes;
    input.adaptive_params = {lanes, data[4] % (kMaxPriorLog2 + 1), data[5] % (kMaxShift + 1)};
    input.static_params = {lanes, data[4] % (kMaxStaticClassesLog2 + 1)};
    round_trip(input, symbols);
    return 0;
  }
  const std::vector<uint8_t> exact(data + at, data + size);
  if (input.decode(exact.data(), exact.size(), symbols.data()) != Fault::kNone) return 0;
  for (const int8_t s : symbols)
    must(s >= -input.symbols.half() && s < input.symbols.half(), "a symbol outside the alphabet");
  round_trip(input, symbols);
  return 0;
}

#ifdef GOLF_FUZZ_MAIN
#include <fstream>
#include <iterator>

namespace {

uint64_t state = 1;
uint64_t draw(uint64_t below) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state % below;
}

std::vector<uint8_t> mutated(std::vector<uint8_t> data) {
  for (uint64_t edits = 1 + draw(4); edits > 0; --edits) {
    const size_t at = draw(data.size() + 1);
    const auto where = data.begin() + static_cast<std::ptrdiff_t>(at);
    switch (draw(4)) {
      case 0:
        if (at < data.size()) data[at] = static_cast<uint8_t>(data[at] ^ (1u << draw(8)));
        break;
      case 1:
        if (at < data.size()) data[at] = static_cast<uint8_t>(draw(256));
        break;
      case 2:
        data.insert(where, static_cast<uint8_t>(draw(256)));
        break;
      default:
        data.erase(where, data.begin() + static_cast<std::ptrdiff_t>(std::min(data.size(), at + 1 + draw(4))));
    }
  }
  return data;
}

}  // namespace

// fuzz_entropy ROUNDS FILE...
int main(int argc, char** argv) {
  std::vector<std::vector<uint8_t>> corpus;
  for (int i = 2; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    LLVMFuzzerTestOneInput(corpus.back().data(), corpus.back().size());
  }
  for (long round = 0; round < std::atol(argv[1]); ++round) {
    const std::vector<uint8_t> data = mutated(corpus[draw(corpus.size())]);
    LLVMFuzzerTestOneInput(data.data(), data.size());
  }
}
#endif
