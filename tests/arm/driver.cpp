// The core without Python, for a processor that is emulated (tests/arm/test_arm.py).
//   driver levels             every operation at every instruction set against scalar, on odd sizes
//   driver formats TEXT FILE  checksums of what must be the same bytes everywhere: ids of TEXT, weights FILE coded
// Prints a line for each check and ends with 1 where one failed.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "activation/activation.h"
#include "attention/attention.h"
#include "bitpack/bitpack.h"
#include "bpe/encoder.h"
#include "bpe/trainer.h"
#include "checksum/checksum.h"
#include "embed/embed.h"
#include "entropy/entropy.h"
#include "head/head.h"
#include "norm/norm.h"
#include "optim/optim.h"
#include "qk/qk.h"
#include "quant/quant.h"
#include "simt/fiber.h"

namespace golf {
namespace {

constexpr int32_t kThreads = 2;
constexpr double kExact = 0, kF32 = 3e-5, kBf16 = 1.0 / 128, kPairs = 3e-2;

// Numbers of one result; `tolerance` is relative to the number and to the root mean square of all.
struct Result {
  std::string name;
  std::vector<float> numbers;
  double tolerance;
};
using Results = std::vector<Result>;

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 1) {}
  uint32_t bits() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<uint32_t>(state_ >> 32);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
  float number() {  // about normal
    float sum = 0;
    for (int i = 0; i < 4; ++i) sum += static_cast<float>(bits()) * 0x1p-32f - 0.5f;
    return 1.7f * sum;
  }

 private:
  uint64_t state_;
};

bf16 narrow(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return {static_cast<uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
}
float widen(bf16 x) {
  const uint32_t u = static_cast<uint32_t>(x.bits) << 16;
  float y;
  std::memcpy(&y, &u, 4);
  return y;
}

// A tensor of either type, with random or zero content.
class Tensor {
 public:
  Tensor(DType dtype, int64_t n) : dtype_(dtype), n_(n), bytes_(static_cast<size_t>(n * size_of(dtype))) {}
  Tensor(DType dtype, int64_t n, Random& random, float scale = 1) : Tensor(dtype, n) {
    for (int64_t i = 0; i < n; ++i) set(i, scale * random.number());
  }
  void* data() { return bytes_.data(); }
  float* f32() { return reinterpret_cast<float*>(bytes_.data()); }
  bf16* half() { return reinterpret_cast<bf16*>(bytes_.data()); }
  void set(int64_t i, float x) { dtype_ == DType::kF32 ? void(f32()[i] = x) : void(half()[i] = narrow(x)); }
  std::vector<float> numbers() {
    std::vector<float> out(static_cast<size_t>(n_));
    for (int64_t i = 0; i < n_; ++i) out[static_cast<size_t>(i)] = dtype_ == DType::kF32 ? f32()[i] : widen(half()[i]);
    return out;
  }

 private:
  DType dtype_;
  int64_t n_;
  std::vector<char> bytes_;
};

constexpr DType kTypes[2] = {DType::kF32, DType::kBF16};
double rounding(DType dtype) { return dtype == DType::kF32 ? kF32 : kBf16; }
void check(Status status, const char* what) {
  if (status == Status::kOk) return;
  std::printf("FAILED %s returned %d\n", what, static_cast<int>(status));
  std::exit(1);
}

void activation(Random& random, Results& out) {
  for (const DType dtype : kTypes)
    for (const int64_t n : {1, 7, 8, 9, 15, 17, 100003})
      for (const float slope : {0.0f, 0.5f}) {
        Tensor u(dtype, n, random), dy(dtype, n, random), y(dtype, n), du(dtype, n);
        check(activation_forward(dtype, u.data(), y.data(), n, slope, kThreads), "activation");
        check(activation_backward(dtype, u.data(), dy.data(), du.data(), n, slope, kThreads), "activation");
        out.push_back({"activation", y.numbers(), kExact});
        out.push_back({"activation backward", du.numbers(), kExact});
      }
}

void norm(Random& random, Results& out) {
  const DType pairs[3][2] = {{kTypes[0], kTypes[0]}, {kTypes[1], kTypes[1]}, {kTypes[0], kTypes[1]}};
  for (const auto& [stream, branch] : pairs)
    for (const int64_t d : {1, 13, 40, 259}) {
      const int64_t n = 37;
      Tensor x(stream, n * d, random), y(branch, n * d, random), x0(stream, n * d, random), r(stream, n * d);
      Tensor a(DType::kF32, d, random), s(DType::kF32, d, random), b(DType::kF32, d, random), h(branch, n * d);
      Tensor rstd(DType::kF32, n);
      NormForward f{x.data(),   y.data(), x0.data(), a.f32(), s.f32(), b.f32(), r.data(), h.data(),
                    rstd.f32(), n,        d,         d,       d,       d,       0.5f,     1e-5f};
      check(norm_forward(stream, branch, f, kThreads), "norm");
      out.push_back({"norm r", r.numbers(), rounding(stream)});
      out.push_back({"norm h", h.numbers(), rounding(branch)});
      out.push_back({"norm rstd", rstd.numbers(), kF32});
      Tensor dr(stream, n * d, random), dh(branch, n * d, random), dx(stream, n * d), dy(branch, n * d);
      Tensor dx0(stream, n * d), da(DType::kF32, d), ds(DType::kF32, d), db(DType::kF32, d);
      Tensor partials(DType::kF32, norm_chunks(n) * 3 * d);
      NormBackward g{
          dr.data(), dh.data(), r.data(),   rstd.f32(), x.data(), y.data(), x0.data(),      a.f32(), s.f32(), b.f32(),
          dx.data(), dy.data(), dx0.data(), da.f32(),   ds.f32(), db.f32(), partials.f32(), n,       d,       d,
          d,         d,         d,          d,          d,        0.5f};
      check(norm_backward(stream, branch, g, kThreads), "norm");
      out.push_back({"norm dx", dx.numbers(), rounding(stream)});
      out.push_back({"norm dy", dy.numbers(), rounding(branch)});
      out.push_back({"norm dx0", dx0.numbers(), rounding(stream)});
      for (Tensor* t : {&da, &ds, &db}) out.push_back({"norm sums", t->numbers(), rounding(stream)});
    }
}

void qk(Random& random, Results& out) {
  for (const DType dtype : kTypes)
    for (const int64_t h : {6, 32, 64, 128})
      for (const int64_t half : {h / 2, int64_t{h == 6 ? 1 : 8}}) {
        const int64_t tokens = 53, length = 9, heads = 3, kv = 1;
        const int64_t nq = tokens * heads * h, nk = tokens * kv * h;
        Tensor q(dtype, nq, random), k(dtype, nk, random), dq(dtype, nq, random), dk(dtype, nk, random);
        Tensor yq(dtype, nq), yk(dtype, nk), gq(dtype, nq), gk(dtype, nk), gain(DType::kF32, heads, random);
        Tensor cos(DType::kF32, length * half, random), sin(DType::kF32, length * half, random);
        Tensor dgain(DType::kF32, heads), partials(DType::kF32, qk_chunks(tokens) * heads);
        QkArgs args{{q.data(), nullptr, yq.data(), heads, heads * h, 0},
                    {k.data(), nullptr, yk.data(), kv, kv * h, 0},
                    cos.f32(),
                    sin.f32(),
                    nullptr,
                    gain.f32(),
                    nullptr,
                    nullptr,
                    tokens,
                    length,
                    h,
                    half,
                    1e-6f};
        check(qk_forward(dtype, args, kThreads), "qk");
        out.push_back({"qk q", yq.numbers(), rounding(dtype)});
        out.push_back({"qk k", yk.numbers(), rounding(dtype)});
        args.q = {q.data(), dq.data(), gq.data(), heads, heads * h, heads * h};
        args.k = {k.data(), dk.data(), gk.data(), kv, kv * h, kv * h};
        args.dgain = dgain.f32();
        args.partials = partials.f32();
        check(qk_backward(dtype, args, kThreads), "qk");
        out.push_back({"qk dq", gq.numbers(), rounding(dtype)});
        out.push_back({"qk dk", gk.numbers(), rounding(dtype)});
        out.push_back({"qk dgain", dgain.numbers(), rounding(dtype)});
      }
}

void embed(Random& random, Results& out) {
  for (const DType dtype : kTypes)
    for (const int64_t width : {12, 61}) {
      const int64_t tokens = 130, vocab = 50, slots = 31, smear = 9;
      std::vector<int64_t> ids(tokens), place(tokens), order(tokens + vocab + 1);
      for (int64_t& id : ids) id = random.below(vocab);
      Tensor table(DType::kF32, vocab * width, random), bigram(DType::kF32, slots * width, random);
      Tensor w(DType::kF32, smear, random), x(dtype, tokens * width), dx(dtype, tokens * width, random);
      const float scale = 0.4f, lambda = 0.3f;
      const EmbedInput in{ids.data(), table.f32(), bigram.f32(), &scale, w.f32(), &lambda, tokens,
                          65,         width,       vocab,        slots,  smear,   1};
      check(embed_forward(in, dtype, x.data(), place.data(), kThreads), "embed");
      out.push_back({"embed x", x.numbers(), rounding(dtype)});
      Tensor dtable(DType::kF32, vocab * width), dbigram(DType::kF32, slots * width), scalars(DType::kF32, smear + 2);
      Tensor de(DType::kF32, tokens * width);
      std::vector<double> partial(static_cast<size_t>((tokens / kEmbedGrain + 1) * (smear + 2)));
      check(embed_backward(in, dtype, dx.data(), place.data(), {dtable.f32(), dbigram.f32(), scalars.f32()}, de.f32(),
                           partial.data(), order.data(), kThreads),
            "embed");
      for (Tensor* t : {&dtable, &dbigram, &scalars}) out.push_back({"embed gradients", t->numbers(), kF32});
    }
}

void head(Random& random, Results& out) {
  for (const DType dtype : kTypes)
    for (const int64_t vocab : {3, 100, 1500})
      for (const float cap : {0.0f, 15.0f})
        for (const bool gradient : {false, true}) {
          const int64_t rows = 7;
          Tensor z(dtype, rows * vocab, random, 6), losses(DType::kF32, rows), scale(DType::kF32, rows, random);
          std::vector<int64_t> targets(rows);
          for (int64_t& t : targets) t = random.below(vocab);
          check(head_cross_entropy(dtype, z.data(), targets.data(), gradient ? scale.f32() : nullptr, losses.f32(),
                                   rows, vocab, cap, kThreads),
                "head");
          out.push_back({"head loss", losses.numbers(), kF32});
          out.push_back({"head gradient", z.numbers(), rounding(dtype)});
        }
  Tensor total(DType::kF32, 1001, random), part(DType::kBF16, 1001, random);
  check(head_accumulate(total.f32(), part.half(), 1001, kThreads), "head");
  out.push_back({"head accumulate", total.numbers(), kExact});
}

void bitpack(Random& random, Results& out) {
  for (const int32_t bits : {0, 2, 3, 4, 5, 6, 7, 8})
    for (const int64_t columns : {1, 63, 200, 517})
      for (const int64_t group : {columns, int64_t{64}}) {
        const int64_t rows = 5, scales = rows * ((columns + group - 1) / group), batch = 5;
        const CodeRange range = code_range(bits);
        std::vector<int8_t> q(static_cast<size_t>(rows * columns)), back(q.size());
        for (int8_t& code : q) code = static_cast<int8_t>(range.low + random.below(range.high - range.low + 1));
        std::vector<uint8_t> data(static_cast<size_t>(rows * packed_row_bytes({bits}, columns)));
        check(bitpack_pack(q.data(), {bits}, rows, columns, data.data(), kThreads), "bitpack");
        Tensor scale(DType::kF32, scales, random);
        const PackedMatrix m{data.data(), scale.f32(), {bits}, rows, columns, group};
        check(bitpack_unpack(m, back.data(), kThreads), "bitpack");
        out.push_back({"bitpack bytes", {data.begin(), data.end()}, kExact});
        out.push_back({"bitpack codes", {back.begin(), back.end()}, kExact});
        if (back != q) out.push_back({"bitpack round trip", {NAN}, kExact});
        for (const DType dtype : kTypes) {
          Tensor w(dtype, rows * columns), x(dtype, batch * columns, random), y(DType::kF32, batch * rows);
          check(bitpack_dequantize(m, dtype, w.data(), kThreads), "bitpack");
          out.push_back({"bitpack weights", w.numbers(), kExact});
          std::vector<char> prepared(static_cast<size_t>(bitpack_workspace(batch, columns)));
          check(bitpack_product(m, dtype, x.data(), y.f32(), batch, prepared.data(), kThreads), "bitpack");
          out.push_back({"bitpack product", y.numbers(), kF32});
          Tensor given(dtype, rows * columns, random, 30), made(dtype, rows * columns);
          check(bitpack_fake_quantize(dtype, given.data(), scale.f32(), made.data(), bits, rows, columns, group,
                                      kThreads),
                "bitpack");
          out.push_back({"bitpack fake", made.numbers(), kExact});
        }
      }
}

void quant(Random& random, Results& out) {
  for (const int32_t bits : {0, 2, 3, 4, 5, 6, 7, 8})
    for (const int32_t limit : {3, 31}) {
      const int64_t columns = 9, rows = 300;
      const entropy::Trellis masks(static_cast<uint32_t>(bits));
      TrellisCode trellis{bits, {}};
      for (int c = 0; c < 4; ++c) trellis.mask[c] = masks.mask[c];
      Tensor wanted(DType::kF32, columns * rows), feedback(DType::kF32, columns * columns, random, 0.1f);
      Tensor step(DType::kF32, rows), shrink(DType::kF32, columns), error(DType::kF32, columns * rows, random);
      for (int64_t r = 0; r < rows; ++r) step.set(r, r % 50 == 7 ? 0.0f : 0.02f + std::fabs(0.05f * random.number()));
      for (int64_t c = 0; c < columns; ++c) shrink.set(c, 0.99f);
      std::memcpy(wanted.data(), error.data(), static_cast<size_t>(columns * rows) * 4);
      std::vector<int8_t> symbols(static_cast<size_t>(columns * rows));
      std::vector<uint64_t> workspace(static_cast<size_t>(quant_workspace(rows) / 8 + 1));
      const int64_t ranges[4] = {0, 131, 200, rows};
      const QuantColumns args{wanted.f32(),
                              feedback.f32(),
                              step.f32(),
                              shrink.f32(),
                              symbols.data(),
                              error.f32(),
                              columns,
                              rows,
                              ranges,
                              3,
                              limit,
                              200.0f,
                              reinterpret_cast<uint8_t*>(workspace.data())};
      check(quant_columns(args, trellis, kThreads), "quant");
      out.push_back({"quant symbols", {symbols.begin(), symbols.end()}, kExact});
      out.push_back({"quant errors", error.numbers(), kExact});
      if (bits == 0) continue;
      std::vector<int16_t> points(symbols.size());
      check(trellis_points(symbols.data(), points.data(), columns, rows, trellis, kThreads), "quant");
      out.push_back({"quant points", {points.begin(), points.end()}, kExact});
    }
}

void attention(Random& random, Results& out) {
  struct Shape {
    int64_t tokens, window;
    int32_t heads, kv_heads, head_dim;
    bool xsa, gated;
  };
  const Shape shapes[] = {{1, 0, 2, 1, 32, false, false},
                          {67, 0, 2, 2, 32, true, true},
                          {130, 0, 4, 2, 64, true, false},
                          {150, 70, 2, 1, 64, false, true},
                          {90, 17, 2, 1, 128, true, true}};
  for (const Shape& s : shapes)
    for (const DType dtype : kTypes) {
      const int64_t nq = s.tokens * s.heads * s.head_dim, nk = s.tokens * s.kv_heads * s.head_dim;
      Tensor q(dtype, nq, random), k(dtype, nk, random), v(dtype, nk, random), gate(DType::kF32, s.tokens * s.heads);
      for (int64_t i = 0; i < s.tokens * s.heads; ++i) gate.set(i, random.number());
      Tensor o(dtype, nq), y(dtype, nq), lse(DType::kF32, s.heads * s.tokens), dy(dtype, nq, random), dq(dtype, nq);
      Tensor dk(dtype, nk), dv(dtype, nk), dgate(DType::kF32, s.tokens * s.heads);
      AttentionArgs args{};
      args.dtype = dtype;
      args.gate_dtype = DType::kF32;
      args.batch = 1, args.tokens = s.tokens, args.heads = s.heads, args.kv_heads = s.kv_heads;
      args.head_dim = s.head_dim, args.window = s.window, args.scale = 0.2f, args.xsa = s.xsa;
      args.q = q.data(), args.k = k.data(), args.v = v.data();
      args.q_strides = {nq, s.heads * s.head_dim, s.head_dim};
      args.k_strides = args.v_strides = {nk, s.kv_heads * s.head_dim, s.head_dim};
      if (s.gated) args.gate = gate.data(), args.dgate = dgate.data();
      args.documents = 1, args.longest = s.tokens;
      args.out = o.data(), args.y = y.data(), args.lse = lse.f32();
      const bool saves = s.xsa || s.gated;
      void* scratch = nullptr;
      for (const bool backward : {false, true}) {
        const auto bytes = static_cast<size_t>(attention_scratch_bytes(args, backward)) * kThreads + 64;
        if (posix_memalign(&scratch, 64, bytes) != 0) std::exit(1);
        if (backward) {
          if (!saves) args.out = y.data();
          args.dy = dy.data(), args.dq = dq.data(), args.dk = dk.data(), args.dv = dv.data();
        }
        check(backward ? attention_backward(args, scratch, kThreads) : attention_forward(args, scratch, kThreads),
              "attention");
        std::free(scratch);
      }
      // At the levels with bf16 products probabilities are rounded too.
      const double tolerance = dtype == DType::kF32 ? kF32 : kPairs;
      for (Tensor* t : {&y, &lse}) out.push_back({"attention", t->numbers(), tolerance});
      for (Tensor* t : {&dq, &dk, &dv}) out.push_back({"attention backward", t->numbers(), tolerance});
      if (s.gated) out.push_back({"attention dgate", dgate.numbers(), tolerance});
    }
}

void optim(Random& random, Results& out) {
  for (const DType dtype : kTypes)
    for (const int64_t n : {5, 1003}) {
      Tensor p(DType::kF32, n, random), g(dtype, n, random), m(DType::kF32, n, random), v(DType::kF32, n);
      Tensor ema(DType::kF32, n, random), shadow(DType::kBF16, n);
      for (int64_t i = 0; i < n; ++i) v.set(i, std::fabs(random.number()));
      OptimTensor t{p.f32(), g.data(), m.f32(), v.f32(), ema.f32(), shadow.half(), n, 0.1f, 0.2f, dtype, 0};
      number_chunks(&t, 1);
      check(adamw_step(&t, 1, {0.9f, 0.99f, 1e-8f, 0.7f, 0.01f, 0.3f, 0.4f}, kThreads), "adamw");
      for (Tensor* x : {&p, &m, &v, &ema}) out.push_back({"adamw", x->numbers(), kF32});
      out.push_back({"adamw shadow", shadow.numbers(), kBf16});
    }
  for (const DType dtype : kTypes)
    for (const bool row_norm : {false, true}) {
      const int64_t rows = 11, columns = 29, n = rows * columns;
      Tensor p(DType::kF32, n, random), g(DType::kBF16, n, random), m(DType::kF32, n, random), bank(dtype, n);
      Tensor row_scale(DType::kF32, rows), update(dtype, n, random);
      OptimTensor t{p.f32(), g.data(), m.f32(), nullptr, nullptr, nullptr, n, 0.1f, 0.2f, DType::kBF16, 0};
      number_chunks(&t, 1);
      check(muon_momentum(&t, 1, rows, columns, 0.95f, row_norm, 1e-7f, dtype, bank.data(), row_scale.f32(), kThreads),
            "muon");
      check(muon_apply(&t, 1, dtype, update.data(), 0.3f, 0.0f, kThreads), "muon");
      out.push_back({"muon bank", bank.numbers(), dtype == DType::kF32 ? kF32 : kBf16});
      out.push_back({"muon momentum", m.numbers(), kF32});
      out.push_back({"muon parameters", p.numbers(), kF32});
    }
  // The polynomial of one Newton-Schulz step where there are products for its dtype, else the same in f64.
  for (const DType dtype : kTypes)
    for (const bool turned : {false, true})
      for (const int64_t m : {7, 40, 101}) {
        const int64_t k = m + 36, row = turned ? 1 : k, column = turned ? m : 1;
        Tensor x(dtype, m * k, random, 0.1f), square(dtype, m * m), made(dtype, m * m);
        const Coefficients c{3.4f, -4.7f, 2.0f};
        if (has_symmetric_product(dtype)) {
          const Polynomial p{dtype, x.data(), square.data(), made.data(), 1, m, k, m * k, row, column, 1, {c, c}};
          std::vector<uint64_t> packed(static_cast<size_t>(polynomial_workspace(dtype, 1, m, k) / 8 + 8));
          check(newton_schulz_polynomial(p, packed.data(), kThreads), "newton_schulz");
        } else {
          const std::vector<float> X = x.numbers();
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < m; ++j) {
              double sum = 0;
              for (int64_t l = 0; l < k; ++l)
                sum += double(X[static_cast<size_t>(i * row + l * column)]) *
                       double(X[static_cast<size_t>(j * row + l * column)]);
              square.set(i * m + j, static_cast<float>(sum));
            }
          const std::vector<float> G = square.numbers();
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < m; ++j) {
              double sum = 0;
              for (int64_t l = 0; l < m; ++l)
                sum += double(G[static_cast<size_t>(i * m + l)]) * double(G[static_cast<size_t>(j * m + l)]);
              made.set(i * m + j, static_cast<float>((i == j ? c.a : 0) +
                                                     c.b * double(G[static_cast<size_t>(i * m + j)]) + c.c * sum));
            }
        }
        out.push_back({"newton_schulz", made.numbers(), dtype == DType::kF32 ? kF32 : kPairs});
      }
}

void checksum(Random& random, Results& out) {
  std::vector<uint8_t> data(1031);
  for (uint8_t& byte : data) byte = static_cast<uint8_t>(random.bits());
  Result crc{"crc32c", {}, kExact};
  for (size_t i = 0; i < 9; ++i)
    for (const size_t n : {size_t{0}, size_t{1}, size_t{13}, size_t{1000}}) {
      const uint32_t sum = crc32c(77, data.data() + i, n);
      crc.numbers.insert(crc.numbers.end(), {static_cast<float>(sum >> 16), static_cast<float>(sum & 0xffff)});
    }
  out.push_back(crc);
}

// How far the numbers are off, in units of what they may be; above 1 or NaN is a failure.
double excess(const Result& expected, const Result& found) {
  if (expected.name != found.name || expected.numbers.size() != found.numbers.size()) return HUGE_VAL;
  if (expected.tolerance == kExact)
    return std::memcmp(expected.numbers.data(), found.numbers.data(), 4 * found.numbers.size()) == 0 ? 0 : HUGE_VAL;
  double squares = 0, most = 0;
  for (const float x : expected.numbers) squares += double(x) * double(x);
  const double size = std::sqrt(squares / static_cast<double>(expected.numbers.size()));
  for (size_t i = 0; i < found.numbers.size(); ++i) {
    const double a = expected.numbers[i], off = std::fabs(found.numbers[i] - a);
    if (!(off <= 1e300)) return HUGE_VAL;
    most = std::max(most, off / (expected.tolerance * (std::fabs(a) + size) + 1e-6));  // what is zero may be a little
  }
  return most;
}

// Two stacks take turns; numbers in registers that a function must keep survive each switch (simt/fiber.h).
simt::Context main_context, fiber_context;
double fiber_sum = 0;

void fiber_entry() {
  simt::entered(main_context);
  double a = 1, b = 2, c = 3, d = 5;
  for (int64_t i = 0;; ++i) {
    fiber_sum += a + b + c + d + static_cast<double>(i);
    simt::switch_to(fiber_context, main_context, false);
    a += 1, b += 2, c += 3, d += 5;
  }
}

bool fibers() {
  std::vector<char> stack(1 << 18);
  simt::prepare(fiber_context, stack.data(), stack.size(), fiber_entry);
  double x = 0.5, expected = 0;
  for (int64_t i = 0; i < 1000; ++i) {
    simt::switch_to(main_context, fiber_context, false);
    expected += 11 * static_cast<double>(i + 1) + static_cast<double>(i);
    x += 0.5;
  }
  const bool same = fiber_sum == expected && x == 500.5;
  std::printf("%s fibers\n", same ? "ok" : "FAILED");
  return same;
}

int levels() {
  struct Operation {
    const char* name;
    void (*run)(Random& random, Results& out);
  };
  const Operation operations[] = {{"activation", activation},
                                  {"attention", attention},
                                  {"bitpack", bitpack},
                                  {"checksum", checksum},
                                  {"embed", embed},
                                  {"head", head},
                                  {"norm", norm},
                                  {"optim", optim},
                                  {"qk", qk},
                                  {"quant", quant}};
  bool failed = false;
  for (const Operation& operation : operations) {
    Results expected;
    for (int32_t level = 0; level <= static_cast<int32_t>(detected_isa()); ++level) {
      set_isa(static_cast<Isa>(level));
      Random random(17);
      Results found;
      operation.run(random, found);
      if (level == 0) {
        expected = found;
        continue;
      }
      double most = 0;
      size_t bad = found.size() == expected.size() ? 0 : 1;
      for (size_t i = 0; i < std::min(found.size(), expected.size()); ++i) {
        const double off = excess(expected[i], found[i]);
        if (off > 1) std::printf("  result %zu, %s: off by %.3g times what it may\n", i, found[i].name.c_str(), off);
        bad += off > 1;
        most = std::max(most, off);
      }
      std::printf("%s %s %s: %zu results, at most %.2g of what they may be off\n", bad == 0 ? "ok" : "FAILED",
                  operation.name, isa_name(static_cast<Isa>(level)), found.size(), most);
      failed |= bad != 0;
    }
  }
  return failed || !fibers() ? 1 : 0;
}

std::vector<uint8_t> bytes_of(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <class T>
void tell(const char* name, const T* data, size_t n) {
  std::printf("%s %08x\n", name, crc32c(0, reinterpret_cast<const uint8_t*>(data), n * sizeof(T)));
}

int formats(const char* text_path, const char* weights_path) {
  const std::vector<uint8_t> text = bytes_of(text_path), weights = bytes_of(weights_path);
  const bpe::Bytes document{text.data(), text.size()};
  const std::vector<bpe::Merge> merges = bpe::train({document}, 300, kThreads);
  std::vector<uint16_t> flat;
  for (const bpe::Merge& merge : merges) flat.insert(flat.end(), {merge.first, merge.second});
  tell("merges", flat.data(), flat.size());
  bpe::Encoder encoder(merges);
  const bpe::EncodedBatch batch = encoder.encode_batch({document, document}, kThreads);
  tell("ids", batch.ids.data(), batch.ids.size());

  const std::vector<entropy::Matrix> shapes = {{weights.size() / 96, 96}};
  const auto* data = reinterpret_cast<const int8_t*>(weights.data());
  bool same = true;
  std::vector<int8_t> back(weights.size());
  const auto tell_coder = [&](const char* name, const std::vector<uint8_t>& coded, entropy::Fault fault) {
    tell(name, coded.data(), coded.size());
    same &= fault == entropy::Fault::kNone && std::memcmp(back.data(), data, back.size()) == 0;
    std::fill(back.begin(), back.end(), int8_t{0});
  };
  for (const uint32_t trellis : {0u, 4u}) {
    const entropy::Symbols symbols{6, trellis};
    const entropy::StaticParams plain{5, 2};
    const entropy::AdaptiveParams adaptive{5, 4, 0};
    std::vector<uint8_t> coded = entropy::encode_static(symbols, shapes, data, plain);
    entropy::Fault fault = entropy::decode_static(symbols, shapes, plain, coded.data(), coded.size(), back.data());
    tell_coder("static", coded, fault);
    coded = entropy::encode_adaptive(symbols, shapes, data, adaptive);
    fault = entropy::decode_adaptive(symbols, shapes, adaptive, coded.data(), coded.size(), back.data());
    tell_coder("adaptive", coded, fault);
    coded = entropy::encode_binary(symbols, shapes, data, adaptive);
    fault = entropy::decode_binary(symbols, shapes, adaptive, coded.data(), coded.size(), back.data());
    tell_coder("binary", coded, fault);
  }
  std::printf("%s\n", same ? "decoded" : "FAILED to decode");
  return same ? 0 : 1;
}

}  // namespace
}  // namespace golf

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "levels") == 0) return golf::levels();
  if (argc == 4 && std::strcmp(argv[1], "formats") == 0) return golf::formats(argv[2], argv[3]);
  std::fprintf(stderr, "driver levels | driver formats TEXT WEIGHTS\n");
  return 2;
}
