// Makes values for consecutive positions on threads of its own, ahead of the consumer, and hands
// them out in order of position whatever the timing of the threads.
//
// Memory is bounded: at most `depth` values are made or being made at once. One consumer. An
// exception of the maker comes out of Next() at its position, after all earlier values, and again
// on every later call. Destruction asks running makers to stop and joins the threads.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace lockstep::trainer {

struct PrefetchOptions {
  int threads = 1;
  int depth = 4;
  int64_t first = 0;                                  // The first position.
  int64_t end = std::numeric_limits<int64_t>::max();  // One past the last position.
};

template <typename Value>
class Prefetch {
 public:
  // Called from many threads at once. Should look at the stop token now and then: once a stop is
  // requested, whatever it returns is thrown away.
  using Maker = std::function<Value(int64_t position, const std::stop_token& stop)>;

  Prefetch(const PrefetchOptions& options, Maker maker)
      : maker_(std::move(maker)),
        end_(options.end),
        next_(options.first),
        claimed_(options.first),
        slots_(static_cast<size_t>(std::max(1, options.depth))) {
    const int threads = std::clamp(options.threads, 1, static_cast<int>(slots_.size()));
    threads_.reserve(static_cast<size_t>(threads));
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this](const std::stop_token& stop) { Work(stop); });
    }
  }
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;
  ~Prefetch() {
    for (std::jthread& thread : threads_) thread.request_stop();
    threads_.clear();  // Joins.
  }

  /// Blocks until the next value is there. Throws std::out_of_range past the last position.
  Value Next() {
    std::unique_lock lock(mutex_);
    if (next_ >= end_) {
      throw std::out_of_range("position " + std::to_string(next_) + " of " + std::to_string(end_));
    }
    Slot& slot = SlotOf(next_);
    ready_.wait(lock, [&] { return slot.value.has_value() || slot.error != nullptr; });
    if (slot.error) std::rethrow_exception(slot.error);
    return Take(slot);
  }

  /// The next value if it is there. Never waits; an error and the end are Next()'s to tell.
  std::optional<Value> TryNext() {
    const std::scoped_lock lock(mutex_);
    if (next_ >= end_) return std::nullopt;
    Slot& slot = SlotOf(next_);
    if (!slot.value.has_value()) return std::nullopt;
    return Take(slot);
  }

 private:
  struct Slot {
    std::optional<Value> value;
    std::exception_ptr error;
  };

  // Positions in work lie in [next_, next_ + depth), so no two share a slot.
  Slot& SlotOf(int64_t position) {
    return slots_[static_cast<size_t>(position % static_cast<int64_t>(slots_.size()))];
  }

  // Under mutex_.
  Value Take(Slot& slot) {
    Value value = std::move(*slot.value);
    slot.value.reset();
    ++next_;
    room_.notify_one();
    return value;
  }

  void Work(const std::stop_token& stop) {
    const auto depth = static_cast<int64_t>(slots_.size());
    std::unique_lock lock(mutex_);
    while (true) {
      const bool room = room_.wait(
          lock, stop, [&] { return failed_ || claimed_ >= end_ || claimed_ < next_ + depth; });
      if (!room || stop.stop_requested() || failed_ || claimed_ >= end_) return;
      const int64_t position = claimed_++;
      lock.unlock();
      std::optional<Value> value;
      std::exception_ptr error;
      try {
        value.emplace(maker_(position, stop));
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      if (stop.stop_requested()) return;
      // After a failure nobody starts later positions, but earlier ones in work still arrive.
      if (error) {
        failed_ = true;
        room_.notify_all();
      }
      Slot& slot = SlotOf(position);
      slot.value = std::move(value);
      slot.error = error;
      ready_.notify_one();
    }
  }

  const Maker maker_;
  const int64_t end_;
  std::mutex mutex_;                  // Guards all below but the threads.
  std::condition_variable ready_;     // A slot was filled.
  std::condition_variable_any room_;  // A slot was emptied, or a maker failed.
  int64_t next_;                      // The consumer's position.
  int64_t claimed_;                   // One past the last position somebody took on.
  bool failed_ = false;
  std::vector<Slot> slots_;
  std::vector<std::jthread> threads_;  // Last: the threads use everything above.
};

}  // namespace lockstep::trainer
