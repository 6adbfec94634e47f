#include "quant/quant.h"

#include "isa_table.h"
#include "parallel.h"

namespace golf {
namespace {

constexpr const QuantKernels* kTable[kIsaCount] = GOLF_ISA_TABLE_F32(quant_kernels);
constexpr int64_t kColumnsPerChunk = 128;  // whole cache lines of symbols, states that stay in registers

bool known(const TrellisCode& trellis) noexcept {
  if (trellis.bits < 2 || trellis.bits > kMaxTrellis || trellis.mask[0] != 0) return false;
  const uint32_t top = 1u << (trellis.bits - 1);
  return (trellis.mask[1] & ~(top - 1)) == top && trellis.mask[2] < top &&
         trellis.mask[3] == (trellis.mask[1] ^ trellis.mask[2]);
}

}  // namespace

Status quant_columns(const QuantColumns& args, const TrellisCode& trellis, int32_t threads) noexcept {
  if (args.limit < 1 || args.limit > 127 || (trellis.bits != 0 && !known(trellis))) return Status::kInvalidArgument;
  const QuantKernels& kernels = active_kernels(kTable);
  parallel_for(args.ranges, 1, threads, [&](int64_t, int64_t begin, int64_t) {
    kernels.columns(args, trellis, args.range[begin], args.range[begin + 1]);
  });
  return Status::kOk;
}

Status trellis_points(const int8_t* symbols, int16_t* points, int64_t rows, int64_t columns, const TrellisCode& trellis,
                      int32_t threads) noexcept {
  if (!known(trellis)) return Status::kInvalidArgument;
  parallel_for(columns, kColumnsPerChunk, threads, [&](int64_t, int64_t begin, int64_t end) {
    uint8_t state[kColumnsPerChunk] = {};
    for (int64_t row = 0; row < rows; ++row) {
      const int8_t* from = symbols + row * columns;
      int16_t* to = points + row * columns;
      for (int64_t c = begin; c < end; ++c) {
        const uint32_t s = state[c - begin];
        const int32_t point = 2 * from[c] + static_cast<int32_t>(s & 1);
        to[c] = static_cast<int16_t>(point);
        state[c - begin] = static_cast<uint8_t>((s >> 1) ^ trellis.mask[point & 3]);
      }
    }
  });
  return Status::kOk;
}

}  // namespace golf
