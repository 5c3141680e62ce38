// A "GPU" in host memory: what the program enqueues on its own stream has run when the call
// returns; the side stream runs behind, in a thread. Enough to see who waits for whom.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "tests/trainer/comm/stand_in/fake_stream.h"
#include "trainer/device/device.h"

namespace lockstep::trainer {

class FakeGpu : public Device {
 public:
  explicit FakeGpu(std::string uuid) : uuid_(std::move(uuid)) {}

  /// A real stream waits without its host. Here, with true, the host waits in StreamWait(), so that
  /// it may look at the sums; with false it goes on, as it would with a GPU.
  void set_host_waits(bool waits) { host_waits_ = waits; }

  at::Device torch() const override { return at::kCPU; }
  std::string Describe() const override { return "a stand-in"; }
  std::string Name() const override { return "a stand-in"; }
  std::string Uuid() const override { return uuid_; }
  int64_t FreeBytes() const override { return 0; }
  StreamHandle CurrentStream() override { return nullptr; }
  StreamHandle SideStream() override { return &side_; }

  EventHandle NewEvent() override {
    const std::lock_guard lock(mutex_);
    return &events_.emplace_back();
  }

  void Record(EventHandle handle, StreamHandle stream) override {
    auto* event = static_cast<Event*>(handle);
    const std::lock_guard lock(mutex_);
    const int64_t ticket = ++event->recorded;
    if (stream == nullptr) {
      event->done = ticket;
      return;
    }
    static_cast<FakeStream*>(stream)->Enqueue([this, event, ticket] {
      const std::lock_guard inner(mutex_);
      event->done = ticket;
      changed_.notify_all();
    });
  }

  void StreamWait(StreamHandle stream, EventHandle handle) override {
    if (stream != nullptr || !host_waits_) return;
    const auto* event = static_cast<Event*>(handle);
    std::unique_lock lock(mutex_);
    const int64_t ticket = event->recorded;
    changed_.wait(lock, [&] { return event->done >= ticket; });
  }

  bool Done(EventHandle handle) override {
    const std::lock_guard lock(mutex_);
    const auto* event = static_cast<Event*>(handle);
    return event->done == event->recorded;
  }

  EventHandle NewTimedEvent() override { throw std::runtime_error("a stand-in has no times"); }
  void Stamp(EventHandle event) override { NewTimedEvent(); }
  double SecondsBetween(EventHandle from, EventHandle to) override {
    throw std::runtime_error("a stand-in has no times");
  }

  std::unique_ptr<StepGraph> Capture(const std::function<void()>& step) override {
    throw std::runtime_error("a stand-in has no graphs");
  }

 private:
  struct Event {
    int64_t recorded = 0;
    int64_t done = 0;
  };
  const std::string uuid_;
  bool host_waits_ = true;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Event> events_;  // Guarded by mutex_.
  FakeStream side_;           // Last: its thread uses everything above.
};

}  // namespace lockstep::trainer
