// The NVIDIA GPUs of this host, as the driver's management library (NVML) tells them.
//
// Asked through metrics/devices/nvml.h; the library is unloaded before an answer is returned.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace lockstep::cli {

struct Gpu {
  std::string name;
  int64_t memory_bytes = 0;
  // Compute capability, 9.0 for Hopper; 0.0 where the driver does not tell.
  int capability_major = 0;
  int capability_minor = 0;
};

/// How two GPUs reach each other: "NVLink", or what their PCIe paths have in common.
struct GpuLink {
  size_t first = 0;
  size_t second = 0;
  std::string kind;
};

struct GpuHost {
  std::string driver_version;  // "580.65.06"
  std::vector<Gpu> gpus;
  std::vector<GpuLink> links;  // Each pair once.
};

/// Asks `library`, a path or a name for the loader. NOT_FOUND where it cannot be loaded;
/// UNAVAILABLE with NVML's own words where the driver or a GPU does not answer; UNIMPLEMENTED where
/// a function is missing. A sick driver may hang for ever: DEADLINE_EXCEEDED after `patience`, and
/// the thread that hangs is left to itself. Healthy ones may need seconds a GPU to wake up.
absl::StatusOr<GpuHost> AskNvml(const std::string& library,
                                std::chrono::milliseconds patience = std::chrono::seconds(30));

/// The links by kind: "NVLink between all", or "NVLink 0-1 2-3; PCIe … 0-2 0-3 1-2 1-3". Empty for
/// fewer than two GPUs.
std::string DescribeLinks(const GpuHost& host);

}  // namespace lockstep::cli
