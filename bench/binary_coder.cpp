// An adaptive binary arithmetic coder of symbols: what golfcore's whole-symbol coder is measured against. Not part of
// golfcore; bench/bench_binary_coder.py builds and runs it.
//
// Reads chunks (u32 matrices; u32 rows, columns of each; int8 symbols) from a file, codes and decodes each, and prints
// bytes, seconds of encoding, seconds of decoding. A symbol is: is it zero, its sign, then its magnitude in unary;
// every bit has its context's probability, learned at a rate of 1 / (bits seen), at least 1 / 1024. Contexts are the
// bit's place and the column's mean magnitude so far, in eighths of an octave; they start anew in each chunk (role).
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

constexpr uint32_t kPlaces = 130, kClasses = 260;
constexpr uint64_t kPriorRows = 16;

struct Bit {
  uint16_t one = 1 << 15;  // probability, of 2^16
  uint16_t seen = 0;

  void learn(bool bit) {
    static const std::vector<int32_t> rates = [] {
      std::vector<int32_t> r;
      for (int n = 0; n < 1024; ++n) r.push_back(static_cast<int32_t>(65536 / (n + 1.6)));
      return r;
    }();
    const int32_t next =
        one + static_cast<int32_t>((static_cast<int64_t>((bit ? 65535 : 0) - one) * rates[seen]) >> 16);
    one = static_cast<uint16_t>(next < 32 ? 32 : next > 65504 ? 65504 : next);
    if (seen < 1023) ++seen;
  }
};

// The range coder of LZMA, with probabilities of 16 bits.
struct Encoder {
  std::vector<uint8_t> out;
  uint64_t low = 0, pending = 1;
  uint32_t range = ~uint32_t{0};
  uint8_t cache = 0;

  void shift() {
    if (static_cast<uint32_t>(low) < 0xFF000000u || low >> 32 != 0) {
      for (; pending != 0; --pending) {
        out.push_back(static_cast<uint8_t>(cache + (low >> 32)));
        cache = 0xFF;
      }
      cache = static_cast<uint8_t>(low >> 24);
    }
    ++pending;
    low = (low & 0x00FFFFFF) << 8;
  }
  bool code(Bit& context, bool bit) {
    const uint32_t part = (range >> 16) * context.one;
    if (bit) {
      range = part;
    } else {
      low += part;
      range -= part;
    }
    context.learn(bit);
    for (; range < 1u << 24; range <<= 8) shift();
    return bit;
  }
};

struct Decoder {
  const uint8_t* in;
  uint32_t range = ~uint32_t{0}, value = 0;

  explicit Decoder(const uint8_t* data) : in(data + 1) {
    for (int i = 0; i < 4; ++i) value = value << 8 | *in++;
  }
  bool code(Bit& context, bool) {
    const uint32_t part = (range >> 16) * context.one;
    const bool bit = value < part;
    if (bit) {
      range = part;
    } else {
      value -= part;
      range -= part;
    }
    context.learn(bit);
    for (; range < 1u << 24; range <<= 8) value = value << 8 | *in++;
    return bit;
  }
};

// Codes `symbol`, or decodes one and ignores the argument.
template <class Coder>
int8_t code_symbol(Coder& coder, Bit* contexts, int symbol) {
  if (!coder.code(contexts[0], symbol != 0)) return 0;
  const bool negative = coder.code(contexts[1], symbol < 0);
  int magnitude = 1;
  while (magnitude < 128 && coder.code(contexts[1 + magnitude], magnitude < std::abs(symbol))) ++magnitude;
  return static_cast<int8_t>(negative ? -magnitude : magnitude);
}

uint32_t class_of(uint64_t mean) {
  if (mean == 0) return 0;
  const uint32_t octave = 63 - static_cast<uint32_t>(__builtin_clzll(mean));
  const uint64_t eighth = octave >= 3 ? mean >> (octave - 3) : mean << (3 - octave);
  return 1 + 8 * octave + static_cast<uint32_t>(eighth & 7);
}

template <class Coder>
void code_chunk(Coder& coder, const std::vector<uint32_t>& shapes, int8_t* symbols) {
  std::vector<Bit> contexts(kClasses * kPlaces);
  uint64_t mean = 256;  // of magnitudes, in 1/128
  for (size_t m = 0; m < shapes.size(); m += 2) {
    const uint64_t rows = shapes[m], cols = shapes[m + 1];
    std::vector<uint64_t> sum_C(cols, 0);
    uint64_t sum = 0;
    for (uint64_t r = 0; r < rows; ++r) {
      for (uint64_t c = 0; c < cols; ++c, ++symbols) {
        const uint32_t k = class_of((128 * sum_C[c] + kPriorRows * mean) / (r + kPriorRows));
        *symbols = code_symbol(coder, &contexts[k * kPlaces], *symbols);
        sum_C[c] += static_cast<uint64_t>(std::abs(*symbols));
      }
      sum = 0;
      for (const uint64_t s : sum_C) sum += s;
      mean = 128 * sum / ((r + 1) * cols);
    }
  }
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) {
  std::FILE* const file = argc == 2 ? std::fopen(argv[1], "rb") : nullptr;
  if (file == nullptr) return 2;
  size_t bytes = 0;
  double encode_s = 0, decode_s = 0;
  uint32_t matrices = 0;
  while (std::fread(&matrices, 4, 1, file) == 1) {
    std::vector<uint32_t> shapes(2 * size_t{matrices});
    if (std::fread(shapes.data(), 8, matrices, file) != matrices) return 2;
    size_t size = 0;
    for (size_t m = 0; m < shapes.size(); m += 2) size += size_t{shapes[m]} * shapes[m + 1];
    std::vector<int8_t> symbols(size), back(size);
    if (std::fread(symbols.data(), 1, size, file) != size) return 2;
    const std::vector<int8_t> before = symbols;
    Encoder encoder;
    const auto start = std::chrono::steady_clock::now();
    code_chunk(encoder, shapes, symbols.data());
    for (int i = 0; i < 5; ++i) encoder.shift();
    encode_s += seconds_since(start);
    bytes += encoder.out.size();
    const auto middle = std::chrono::steady_clock::now();
    Decoder decoder(encoder.out.data());
    code_chunk(decoder, shapes, back.data());
    decode_s += seconds_since(middle);
    if (back != before || symbols != before) return 1;
  }
  std::printf("%zu %.5f %.5f\n", bytes, encode_s, decode_s);
  return 0;
}
