// A second stream of a device beside the one that computes, and events between streams, for any
// device that LibTorch knows. On the CPU, where everything happens in order, all of it does
// nothing.
//
// A stream is current per thread: Scope and DeviceEvent act on the calling thread's. Neither is
// thread-safe; two threads may use objects of their own.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <optional>

namespace lockstep::trainer {

// A place in a stream that another stream, or the host, waits for. Before the first Record()
// nothing waits.
class DeviceEvent {
 public:
  explicit DeviceEvent(c10::Device device) : device_(device) {
    if (!device.is_cpu()) event_.emplace(device.type());
  }
  /// Marks what the current stream has been given so far.
  void Record() {
    if (event_) event_->record(Current());
  }
  /// The current stream goes on when what was marked is done. The host does not wait.
  void Block() {
    if (event_) event_->block(Current());
  }
  /// The host waits until what was marked is done.
  void Wait() {
    if (event_) event_->synchronize();
  }

 private:
  c10::Stream Current() const {
    return c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
  }
  c10::Device device_;
  std::optional<c10::Event> event_;
};

class SideStream {
 public:
  explicit SideStream(c10::Device device) {
    if (device.is_cpu()) return;
    stream_ = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
  }

  // Makes the side stream the calling thread's current one.
  class Scope {
   public:
    explicit Scope(const SideStream& side) {
      if (side.stream_) guard_.emplace(*side.stream_);
    }

   private:
    std::optional<c10::StreamGuard> guard_;
  };

 private:
  std::optional<c10::Stream> stream_;
};

}  // namespace lockstep::trainer
