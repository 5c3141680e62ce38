// Reads every GPU once a round through NVML and keeps what adds up over rounds: energy, seconds of
// throttling, XIDs.
//
// Energy comes from the GPU's counter (millijoules since the driver was loaded). Where there is
// none, or for a round in which it ran backwards (a reset GPU, a reloaded driver), power is
// integrated over the time since the last round; where there is no power either, nothing is added.
// A counter that comes back has counted meanwhile and makes good what was not added. All of these
// mark the GPU's energy as estimated for good. A field the driver does not tell is left out; a GPU
// that is lost is unhealthy and the others go on.
// One thread; `now` is CLOCK_MONOTONIC in seconds. A call may hang: see device_monitor.h.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "metrics/devices/gpu_reading.h"
#include "metrics/devices/nvml.h"

namespace lockstep::metrics {

class GpuReader {
 public:
  explicit GpuReader(std::string library) : library_(std::move(library)) {}

  /// Loads NVML and finds the GPUs, again after Close. The errors are Nvml's.
  absl::Status Open();
  bool open() const { return nvml_ != nullptr; }
  /// Ends the session with NVML; what has added up stays.
  void Close();

  /// One round. `before(index)` is called before each GPU is asked. False where a GPU did not
  /// answer. `readings()` is what is known after it.
  bool Read(double now, const std::function<void(int)>& before);
  std::vector<GpuReading> readings() const;
  /// True when every GPU of the last round failed: a session worth opening again.
  bool all_failed() const { return !gpus_.empty() && failed_ == gpus_.size(); }

 private:
  struct Gpu {
    NvmlDevice device = nullptr;
    bool watched = false;  // Its XIDs come to events_.
    GpuReading reading;
    std::string fatal;            // The sentence on its fatal XID; empty = none.
    double read_at = 0;           // 0 = not yet.
    double counted_at = 0;        // When energy was last added or begun.
    double counter_joules = -1;   // The counter when it was read last; -1 = never.
    double estimated_joules = 0;  // Added without it since then.
  };

  int Find(unsigned index, Gpu& gpu);
  int ReadFields(Gpu& gpu);
  void AddEnergy(Gpu& gpu, double now);
  void Estimate(Gpu& gpu, double now);
  void AddThrottling(Gpu& gpu, double now);
  void TakeEvents();

  std::string library_;
  std::unique_ptr<Nvml> nvml_;
  void* events_ = nullptr;
  std::vector<Gpu> gpus_;
  size_t failed_ = 0;
};

}  // namespace lockstep::metrics
