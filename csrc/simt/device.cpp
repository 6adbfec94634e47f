#include "simt/device.h"

#include <cxxabi.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "device/errors.h"
#include "device/runtime.h"

namespace golf {
namespace simt {
namespace {

constexpr int32_t kNothing = 0;
constexpr int32_t kDriver = 12040, kToolkit = 13000;  // a driver that is too old, where one is planned

thread_local char error_text[512];
std::atomic<int32_t> planned[3] = {{kNothing}, {kNothing}, {kNothing}};  // by Moment
std::atomic<int32_t> pending{kNothing};                                  // of a kernel that has run
std::atomic<bool> lost{false};

std::atomic<bool> recording{false};
std::mutex records_mutex;
std::vector<LaunchRecord> records;

const char* name_of(int32_t code) noexcept {
  switch (code) {
    case kErrorMemory:
      return "out of memory";
    case kErrorDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case kErrorNoImage:
      return "no kernel image is available for execution on the device";
    case kErrorAddress:
      return "an illegal memory access was encountered";
    default:
      return "an error";
  }
}

Status fail_with(int32_t code, const char* what) noexcept {
  describe_error(error_text, sizeof error_text, code, name_of(code), what, kDriver, kToolkit);
  if (loses_device(code)) lost = true;
  return Status::kCudaError;
}

// What a kernel before this call has left.
Status report_pending(const char* what) noexcept {
  const int32_t code = pending;
  if (code == kNothing) return Status::kOk;
  if (!loses_device(code)) pending = kNothing;
  return fail_with(code, what);
}

Status happen(Moment moment, const char* what) noexcept {
  const int32_t code = planned[static_cast<int32_t>(moment)].exchange(kNothing);
  return code == kNothing ? Status::kOk : fail_with(code, what);
}

}  // namespace

void plan_error(Moment moment, int32_t code) noexcept { planned[static_cast<int32_t>(moment)] = code; }

void forget_errors() noexcept {
  for (std::atomic<int32_t>& code : planned) code = kNothing;
  pending = kNothing;
  lost = false;
}

std::string kernel_name(const Source& source) {
  // Tag<Kernel<&(void golf::(anonymous namespace)::forward<golf::bf16, 8>(golf::simt::Bounds<256u>, ...))> >, or, of
  // one that is no template, Tag<Kernel<&golf::(anonymous namespace)::adamw> >.
  const std::unique_ptr<char, decltype(&std::free)> type(
      abi::__cxa_demangle(source.instance, nullptr, nullptr, nullptr), &std::free);
  std::string text = type == nullptr ? "" : type.get();
  const size_t begin = text.find("::Kernel<&");
  if (begin == std::string::npos) return source.name;
  text.erase(0, begin + 10);
  const size_t end = text.find("(golf::simt::Bounds");
  text.resize(end != std::string::npos ? end : text.find('>'));
  if (text.rfind("(void ", 0) == 0) text.erase(0, 6);
  for (const std::string part : {"golf::", "(anonymous namespace)::"})
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part)) text.erase(at, part.size());
  return text;
}

void record_launches(bool on) noexcept { recording = on; }

std::vector<LaunchRecord> take_launches() {
  std::lock_guard<std::mutex> lock(records_mutex);
  return std::move(records);
}

Status begin_launch(const Config& config) noexcept {
  if (const Status status = report_pending(config.source.name); status != Status::kOk) return status;
  if (const Status status = happen(Moment::kLaunch, config.source.name); status != Status::kOk) return status;
  if (const int32_t code = planned[static_cast<int32_t>(Moment::kKernel)].exchange(kNothing); code != kNothing)
    pending = code;
  return Status::kOk;
}

bool recorded(const Config& config) noexcept {
  if (!recording) return false;
  std::lock_guard<std::mutex> lock(records_mutex);
  records.push_back({config.source, config.grid, config.block, config.dynamic_shared});
  return true;
}

Status fail_call(const char* text) noexcept {
  std::snprintf(error_text, sizeof error_text, "%s", text);
  return Status::kCudaError;
}

}  // namespace simt

Status select_device(int32_t) noexcept {
  if (const Status status = simt::report_pending("cudaSetDevice"); status != Status::kOk) return status;
  return simt::happen(simt::Moment::kSelect, "cudaSetDevice");
}

Status synchronize(Stream) noexcept { return simt::report_pending("cudaStreamSynchronize"); }

const char* cuda_error() noexcept { return simt::error_text; }

bool device_lost() noexcept { return simt::lost; }

}  // namespace golf
