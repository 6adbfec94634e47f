#include "parallel.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace golf {
namespace {

struct Job {
  ChunkFn fn;
  void* context;
  int64_t chunks;
  std::atomic<int64_t> next{0};
};

thread_local bool inside = false;

void work(void* opaque) {
  Job& job = *static_cast<Job*>(opaque);
  inside = true;
  for (;;) {
    const int64_t chunk = job.next.fetch_add(1, std::memory_order_relaxed);
    if (chunk >= job.chunks) break;
    job.fn(job.context, chunk);
  }
  inside = false;
}

// Sleeping workers, for processes without an OpenMP runtime to borrow.
class Pool {
 public:
  // False where another thread holds the pool or no thread can be started; the caller then works alone.
  bool run(Job& job, int32_t threads) {
    std::unique_lock<std::mutex> busy(busy_, std::try_to_lock);
    if (!busy.owns_lock() || !grow(threads - 1)) return false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      wanted_ = threads - 1;
      running_ = 0;
    }
    wake_.notify_all();
    work(&job);
    std::unique_lock<std::mutex> lock(mutex_);
    wanted_ = 0;  // a worker that slept through the job must not touch it any more
    done_.wait(lock, [&] { return running_ == 0; });
    return true;
  }

 private:
  bool grow(int32_t workers) {
    try {
      while (static_cast<int32_t>(threads_.size()) < workers) threads_.emplace_back([this] { loop(); });
    } catch (...) {
      return !threads_.empty();
    }
    return true;
  }

  void loop() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return wanted_ > 0; });
      --wanted_;
      ++running_;
      Job* job = job_;
      lock.unlock();
      work(job);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex busy_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  Job* job_ = nullptr;
  int32_t wanted_ = 0, running_ = 0;
};

// Never destroyed: its workers sleep until the process ends. A forked child has none of them and starts afresh.
std::atomic<Pool*> pool{nullptr};

Pool& the_pool() {
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr); }); });
  Pool* current = pool.load();
  if (current == nullptr) {
    Pool* fresh = new Pool;
    if (pool.compare_exchange_strong(current, fresh)) return *fresh;
    delete fresh;
  }
  return *current;
}

std::atomic<OpenMpParallel> openmp{nullptr};

}  // namespace

void borrow_openmp(OpenMpParallel parallel) noexcept { openmp.store(parallel); }

void parallel_chunks(int64_t chunks, int32_t threads, ChunkFn fn, void* context) noexcept {
  if (chunks < threads) threads = static_cast<int32_t>(chunks);
  Job job{fn, context, chunks};
  if (threads > 1 && !inside) {
    if (OpenMpParallel parallel = openmp.load(std::memory_order_relaxed)) {
      parallel(work, &job, static_cast<unsigned>(threads), 0);
      return;
    }
    if (the_pool().run(job, threads)) return;
  }
  for (int64_t chunk = 0; chunk < chunks; ++chunk) fn(context, chunk);
}

}  // namespace golf
