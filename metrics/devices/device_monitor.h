// Watches this host's GPUs (NVML) and the energy of its CPUs (RAPL) for as long as it lives.
//
// Two threads: one reads RAPL's files and is joined at the end; the other makes every call into
// NVML. A call may hang on a sick driver, for minutes or for ever, and no thread can be freed from
// it. So nobody ever waits for that thread: it owns what it works with, it is left to itself when
// the monitor goes while it hangs, and what the monitor shows then is its last word, marked as
// stale. When the call returns all goes on. Energy never falls. NVML that does not start is tried
// again every 30 periods; a host without its library has no GPUs, and says why in nvml_trouble.
// Newest() may be called from any thread; it copies, and waits for nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "metrics/devices/gpu_reading.h"

namespace lockstep::metrics {

class DeviceMonitor {
 public:
  struct Options {
    std::string nvml_library = "libnvidia-ml.so.1";  // NvmlLibraryName() where variables count.
    std::filesystem::path powercap = "/sys/class/powercap";
    std::chrono::milliseconds period{1000};   // Between the beginnings of two rounds.
    std::chrono::milliseconds timeout{2000};  // For all calls about one GPU.
  };
  /// Starts the threads and returns at once.
  static std::unique_ptr<DeviceMonitor> Start(const Options& options);
  ~DeviceMonitor();
  DeviceMonitor(const DeviceMonitor&) = delete;
  DeviceMonitor& operator=(const DeviceMonitor&) = delete;

  DeviceReadings Newest() const;
  /// Waits until that many rounds have ended since the start. False at the deadline, and at once
  /// where NVML cannot be loaded, so that there will be none.
  bool WaitForRounds(int64_t rounds, std::chrono::milliseconds deadline) const;

 private:
  struct Shared;
  class RaplThread;
  explicit DeviceMonitor(const Options& options);
  static void ReadRounds(std::shared_ptr<Shared> shared);

  std::shared_ptr<Shared> shared_;
  std::unique_ptr<RaplThread> rapl_;
};

}  // namespace lockstep::metrics
