// Functions of one number that CUDA has only slowly, or only inexactly.
#pragma once

#include "device/cuda.h"
#include "device/ptx.h"

namespace golf {

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// tanh x = x P(x^2) / Q(x^2) with the coefficients of vec_math.h: within 8 ulp, NaN stays. Beyond 9 it is 1 in f32.
GOLF_DEVICE float tanh_rational(float x) {
  x = x > 9.0f ? 9.0f : x < -9.0f ? -9.0f : x;
  const float s = x * x;
  float p = fmaf(1.33546862e-8f, s, 2.06091026e-5f);
  float q = fmaf(7.77656908e-7f, s, 0.000328563707f);
  p = fmaf(p, s, 0.00349558936f);
  q = fmaf(q, s, 0.0258769877f);
  p = fmaf(p, s, 0.133810267f);
  q = fmaf(q, s, 0.467143416f);
  p = fmaf(p, s, 1.0f);
  q = fmaf(q, s, 1.0f);
  return __fdividef(x * p, q);
}

// tanh x = 1 - 2 / (e^2x + 1): off by 2e-7 at most, so inexact near 0, in a third of the instructions. NaN stays.
GOLF_DEVICE float tanh_fast(float x) {
  return fmaf(-2.0f, reciprocal_fast(exp2_fast(x * (2.0f * kLog2E)) + 1.0f), 1.0f);
}

}  // namespace golf
