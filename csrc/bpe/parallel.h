// Work shared out to threads in numbered pieces; whoever is free takes the next one.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace golf::bpe {

// One document of the caller's; never written to.
struct Bytes {
  const uint8_t* data;
  size_t size;
};

// threads <= 0 means one a core.
inline int thread_count(int threads) noexcept {
  return threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// Calls work(thread, piece) for every piece < pieces. The first exception of a thread is rethrown here.
template <class Work>
void parallel(int threads, size_t pieces, const Work& work) {
  threads = static_cast<int>(std::min<size_t>(static_cast<size_t>(threads), pieces));
  std::atomic<size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_lock;
  const auto run = [&](int thread) {
    try {
      for (size_t i = next++; i < pieces; i = next++) work(thread, i);
    } catch (...) {
      const std::lock_guard<std::mutex> guard(failure_lock);
      if (failure == nullptr) failure = std::current_exception();
      next = pieces;
    }
  };
  std::vector<std::thread> others;
  others.reserve(static_cast<size_t>(threads));
  try {
    for (int t = 1; t < threads; ++t) others.emplace_back(run, t);
  } catch (const std::system_error&) {
    // The system gives no more threads: those there are do the work.
  }
  if (threads > 0) run(0);
  for (std::thread& t : others) t.join();
  if (failure != nullptr) std::rethrow_exception(failure);
}

// Ranges of whole documents of about equal size: bounds b[0] = 0 < ... < b.back() = docs.size().
inline std::vector<size_t> split_documents(const std::vector<Bytes>& docs, size_t ranges) {
  size_t total = 0;
  for (const Bytes& d : docs) total += d.size;
  const size_t target = total / ranges + 1;
  std::vector<size_t> bounds{0};
  size_t filled = 0;
  for (size_t i = 0; i < docs.size(); ++i) {
    filled += docs[i].size;
    if (filled >= target) {
      bounds.push_back(i + 1);
      filled = 0;
    }
  }
  if (bounds.back() != docs.size()) bounds.push_back(docs.size());
  return bounds;
}

}  // namespace golf::bpe
