// What the stand-in library and the fake GPU have in common: a stream is a queue of functions that
// a thread of its own runs in order.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>
#include <utility>

namespace lockstep::trainer {

class FakeStream {
 public:
  FakeStream() : thread_([this](const std::stop_token& stop) { Run(stop); }) {}
  virtual ~FakeStream() = default;  // Runs to the end of the queue.

  // Virtual, so that a library loaded at run time needs no symbol of the program.
  virtual void Enqueue(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    changed_.notify_one();
  }

 private:
  void Run(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stop, [this] { return !queue_.empty(); })) {
      const std::function<void()> work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      work();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::function<void()>> queue_;
  std::jthread thread_;
};

}  // namespace lockstep::trainer
