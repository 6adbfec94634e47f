// The three entropy coders of quantized matrices: what Python and the fuzzers call.
//
// Encoders trust their input: symbols inside the alphabet, no empty matrices, lanes within what a trellis allows.
// Decoders trust nothing but the matrices, whose size bounds what they allocate.
#pragma once

#include "entropy/adaptive.h"
#include "entropy/binary.h"
#include "entropy/entropy_layout.h"
#include "entropy/static.h"

namespace golf::entropy {

std::vector<uint8_t> encode_static(const Symbols& symbols, const std::vector<Matrix>& matrices, const int8_t* data,
                                   const StaticParams& params);
Fault decode_static(const Symbols& symbols, const std::vector<Matrix>& matrices, const StaticParams& params,
                    const uint8_t* coded, size_t size, int8_t* data);

std::vector<uint8_t> encode_adaptive(const Symbols& symbols, const std::vector<Matrix>& matrices, const int8_t* data,
                                     const AdaptiveParams& params);
Fault decode_adaptive(const Symbols& symbols, const std::vector<Matrix>& matrices, const AdaptiveParams& params,
                      const uint8_t* coded, size_t size, int8_t* data);

std::vector<uint8_t> encode_binary(const Symbols& symbols, const std::vector<Matrix>& matrices, const int8_t* data,
                                   const AdaptiveParams& params);
Fault decode_binary(const Symbols& symbols, const std::vector<Matrix>& matrices, const AdaptiveParams& params,
                    const uint8_t* coded, size_t size, int8_t* data);

const char* fault_text(Fault fault) noexcept;

}  // namespace golf::entropy
