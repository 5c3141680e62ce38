// What the monitor of this host's devices knows, as plain data. Absent values are nullopt: a
// driver or a GPU that does not tell is no reason to show a zero. Thread-free; copied out of the
// monitor.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace lockstep::metrics {

// The keys of GpuReading::throttle_seconds.
inline constexpr const char* kThrottleReasons[] = {"power",      "thermal",           "power_brake",
                                                   "sync_boost", "hardware_slowdown", "other"};

struct GpuReading {
  int index = 0;           // NVML's, in order of PCI bus id.
  std::string uuid;        // "GPU-…"; stays with the card.
  std::string name;        // "NVIDIA H100 80GB HBM3".
  std::string pci_bus_id;  // "00000000:3B:00.0", as nvidia-smi prints it.
  // False after an XID that only a reset ends (until the daemon starts anew), while the GPU is
  // lost, and while NVML does not answer. `trouble` is a sentence that says why, empty when
  // healthy.
  bool healthy = true;
  std::string trouble;

  std::optional<double> utilization_ratio;  // 0 to 1; not told for a GPU that is divided by MIG.
  std::optional<double> memory_used_bytes, memory_total_bytes;
  std::optional<double> temperature_celsius;
  std::optional<double> power_watts, power_limit_watts;
  std::optional<double> sm_clock_hertz, memory_clock_hertz;

  double energy_joules = 0;       // Since the monitor began; grows only.
  bool energy_estimated = false;  // A part is integrated from power, or is not known.
  // Seconds in which the clocks were held down, by reason; every known reason is present.
  std::map<std::string, double> throttle_seconds;
  std::vector<std::string> throttled_by;  // The reasons of now.
  int64_t xid_errors = 0;                 // Since the monitor began.
  int last_xid = 0;                       // 0 where there was none.
  // 0 where it is not told. An idle GPU may lower its generation, never its width.
  int pcie_width = 0, pcie_width_max = 0;
  int pcie_generation = 0, pcie_generation_max = 0;
};

struct DeviceReadings {
  std::vector<GpuReading> gpus;
  // RAPL, all packages, since the monitor began; nullopt where it cannot be read.
  std::optional<double> cpu_energy_joules;
  double read_seconds = 0;  // What the newest round took.
  bool stale = false;       // NVML has not answered within its timeout.
  // Rounds that came to an end, and those of them, plus one that is late, in which NVML did not
  // start, or was late, or a GPU did not answer.
  int64_t rounds = 0, failed_rounds = 0;
  std::string nvml_trouble;        // Why there are no GPUs, or why they are stale; else empty.
  std::string cpu_energy_trouble;  // Why there is no cpu_energy_joules; else empty.
};

}  // namespace lockstep::metrics
