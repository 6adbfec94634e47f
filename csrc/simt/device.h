// The device as its callers see it: errors, which can be planned, and launches, which can be written down instead of
// run.
#pragma once

#include <string>
#include <vector>

#include "simt/runtime.h"

namespace golf::simt {

// When a planned error happens: where the device is selected, at a launch, or in the kernel: then the launch succeeds
// and the next call reports it, as CUDA does.
enum class Moment : int32_t { kSelect, kLaunch, kKernel };

// One error of CUDA's numbers (device/errors.h). An error of a kernel that loses the device comes again until
// forget_errors().
void plan_error(Moment moment, int32_t code) noexcept;
void forget_errors() noexcept;

struct LaunchRecord {
  Source source;
  dim3 grid, block;
  size_t dynamic_shared;
};

// "forward<bf16, 8>", as machine code has it too.
std::string kernel_name(const Source& source);

// From now on launches are written down and not run, or run again.
void record_launches(bool on) noexcept;
// What was written down since the last call.
std::vector<LaunchRecord> take_launches();

// For run_grid(): the error that is planned for this launch, or kOk.
Status begin_launch(const Config& config) noexcept;
// Whether launches are recorded; writes this one down.
bool recorded(const Config& config) noexcept;
// The error of this thread's call.
Status fail_call(const char* text) noexcept;

}  // namespace golf::simt
