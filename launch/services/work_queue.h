// A few threads and a bounded queue, for work that takes too long for a callback.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace lockstep::launch {

class WorkQueue {
 public:
  WorkQueue(int threads, size_t max_waiting) : max_waiting_(max_waiting) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
  }
  /// Waits for the work in progress; the rest is called too, with stopping() true.
  ~WorkQueue() {
    stopping_ = true;
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  /// False when too much waits already; `work` is not called then.
  bool Post(std::function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      if (waiting_.size() >= max_waiting_) return false;
      waiting_.push_back(std::move(work));
    }
    changed_.notify_one();
    return true;
  }

  /// Long work asks this now and then, and gives up.
  bool stopping() const { return stopping_; }
  void Stop() { stopping_ = true; }

 private:
  void Run() {
    for (;;) {
      std::function<void()> work;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return ended_ || !waiting_.empty(); });
        if (waiting_.empty()) return;
        work = std::move(waiting_.front());
        waiting_.pop_front();
      }
      work();
    }
  }

  const size_t max_waiting_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> waiting_;  // Guarded by mutex_.
  bool ended_ = false;                         // Guarded by mutex_.
  std::vector<std::thread> threads_;
};

}  // namespace lockstep::launch
