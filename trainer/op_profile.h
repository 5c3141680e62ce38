// What LibTorch's own profiler sees between construction and Take(): operators of this thread, and
// on a GPU the kernels and copies with the times at which the GPU ran them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace lockstep::trainer {

struct ProfiledOp {
  std::string name;
  bool on_device = false;
  int64_t lane = 0;      // Stream on a device, thread on the host.
  int64_t began_ns = 0;  // CLOCK_REALTIME.
  int64_t ended_ns = 0;
};

class OpProfile {
 public:
  /// Throws c10::Error where the profiler cannot be started: another one is running, say.
  OpProfile();
  ~OpProfile();
  OpProfile(const OpProfile&) = delete;
  OpProfile& operator=(const OpProfile&) = delete;

  /// Ends it; on the thread that began it, once. Waits for the device.
  std::vector<ProfiledOp> Take();

 private:
  bool running_ = false;
};

}  // namespace lockstep::trainer
