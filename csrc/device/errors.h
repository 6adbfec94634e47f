// What an error of CUDA means for whoever reads it. The numbers are cudaError_t's (probe.cu holds them against the
// toolkit's); the host model, which can be told to fail (simt/device.h), words them alike.
#pragma once

#include <cstddef>
#include <cstdio>

namespace golf {

constexpr int kErrorMemory = 2;
constexpr int kErrorDriver = 35;  // older than the toolkit, or none
constexpr int kErrorNoFunction = 98, kErrorNoImage = 209, kErrorPtx = 222;
constexpr int kErrorEcc = 214, kErrorAddress = 700, kErrorTimeout = 702, kErrorAssert = 710, kErrorStack = 714,
              kErrorInstruction = 715, kErrorMisaligned = 716, kErrorAddressSpace = 717, kErrorProgramCounter = 718,
              kErrorLaunch = 719;

// Errors of a kernel that ran: they come with a later call, and the process cannot use the device any more.
inline bool loses_device(int code) noexcept {
  return code == kErrorEcc || code == kErrorAddress || code == kErrorTimeout || code == kErrorAssert ||
         (code >= kErrorStack && code <= kErrorLaunch);
}

// Empty where there is none.
inline const char* advice_of(int code) noexcept {
  switch (code) {
    case kErrorMemory:
      return "lower train.micro_batch_tokens, or end what else uses the device";
    case kErrorNoFunction:
    case kErrorNoImage:
      return "this build holds no image for the device: install golfcore again, with CMAKE_CUDA_ARCHITECTURES naming "
             "it";
    case kErrorPtx:
      return "update the driver: it does not know the PTX of this build's toolkit";
    default:
      return loses_device(code) ? "this process cannot use the device any more; start it again" : "";
  }
}

// What is wrong with a driver that serves CUDA up to `driver` (1000 major + 10 minor; 0: none) for a build with
// `toolkit`; empty where nothing is.
inline void describe_driver(char* text, size_t bytes, int driver, int toolkit) noexcept {
  text[0] = '\0';
  if (driver == 0)
    std::snprintf(text, bytes, "there is no NVIDIA driver");
  else if (driver / 1000 < toolkit / 1000)  // minor versions of one major are compatible
    std::snprintf(
        text, bytes,
        "the driver serves CUDA %d.%d at most and this build needs %d.0: update the driver, or build golfcore "
        "with an older toolkit",
        driver / 1000, driver % 1000 / 10, toolkit / 1000);
}

// `what` is the kernel or call that returned the error, `name` CUDA's text. A kernel's own error comes with whichever
// call is next.
inline void describe_error(char* text, size_t bytes, int code, const char* name, const char* what, int driver,
                           int toolkit) noexcept {
  char of_driver[192];
  describe_driver(of_driver, sizeof of_driver, driver, toolkit);
  const char* const more = code == kErrorDriver && of_driver[0] != '\0' ? of_driver : advice_of(code);
  if (loses_device(code))
    std::snprintf(text, bytes, "%s, noticed by %s; %s", name, what, more);
  else
    std::snprintf(text, bytes, more[0] == '\0' ? "%s: %s" : "%s: %s; %s", what, name, more);
}

}  // namespace golf
