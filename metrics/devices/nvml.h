// NVIDIA's management library, NVML: the one place that loads it and knows its ABI.
//
// libnvidia-ml.so.1 comes with the driver, so it is loaded when asked for and never linked:
// programs start where no driver is. Functions are looked up by name at each call; one that an old
// driver lacks answers kNvmlFunctionNotFound, like NVML itself does for a function its driver does
// not know. Any call may hang on a sick driver: whoever must not hang calls from a thread of its
// own (metrics/devices/device_monitor.h). One session is used by one thread at a time.
// Source of names, numbers and layouts: NVIDIA's nvml.h; an ABI is frozen per function name.
#pragma once

#include <dlfcn.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace lockstep::metrics {

using NvmlDevice = void*;

inline constexpr int kNvmlSuccess = 0;
inline constexpr int kNvmlNotSupported = 3;
inline constexpr int kNvmlTimeout = 10;
inline constexpr int kNvmlIrqIssue = 11;
inline constexpr int kNvmlFunctionNotFound = 13;
inline constexpr int kNvmlGpuIsLost = 15;
inline constexpr int kNvmlResetRequired = 16;

struct NvmlMemory {
  unsigned long long total, free, used;
};
struct NvmlUtilization {
  unsigned gpu, memory;  // Percent.
};
struct NvmlPciInfo {  // Of nvmlDeviceGetPciInfo_v3.
  char bus_id_legacy[16];
  unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};
struct NvmlEventData {  // Of nvmlEventSetWait_v2; nvmlEventSetWait fills the first three.
  NvmlDevice device;
  unsigned long long event_type;
  unsigned long long event_data;  // The XID of event type kNvmlEventXid.
  unsigned gpu_instance, compute_instance;
};
inline constexpr unsigned long long kNvmlEventXid = 0x8;

/// The library to load: $LOCKSTEP_NVML_LIBRARY, which tests use, or else the driver's name for it.
std::string NvmlLibraryName();

class Nvml {
 public:
  /// Loads `library`, a path or a name for the loader, and starts NVML. NOT_FOUND where it cannot
  /// be loaded; UNAVAILABLE with NVML's own words where the driver does not answer; UNIMPLEMENTED
  /// where it is no NVML.
  static absl::StatusOr<std::unique_ptr<Nvml>> Load(const std::string& library);
  ~Nvml();  // Ends NVML and unloads it.
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  /// Calls a function by name: Call<int(NvmlDevice, unsigned*)>("nvmlDeviceGetPowerUsage", gpu,
  /// &w).
  template <typename Signature, typename... Arguments>
  int Call(const char* name, Arguments... arguments) const {
    auto* function = reinterpret_cast<Signature*>(dlsym(handle_, name));
    return function == nullptr ? kNvmlFunctionNotFound : function(arguments...);
  }

  /// NVML's words for an error.
  std::string ErrorText(int code) const;

  /// "580.65.06". UNIMPLEMENTED and UNAVAILABLE as of Load, here and below.
  absl::StatusOr<std::string> DriverVersion() const;
  /// GPUs of this host, at most kMostGpus.
  absl::StatusOr<unsigned> CountGpus() const;
  /// The GPU at `index`; *code is kNvmlSuccess, or says why there is none.
  NvmlDevice Gpu(unsigned index, int* code) const;
  /// A text of a GPU ("nvmlDeviceGetName", "nvmlDeviceGetUUID"), control characters as spaces;
  /// empty where it is not told.
  std::string Text(const char* function, NvmlDevice gpu) const;
  std::optional<NvmlMemory> Memory(NvmlDevice gpu) const;

  static constexpr unsigned kMostGpus = 64;

 private:
  Nvml(void* handle, std::string library) : handle_(handle), library_(std::move(library)) {}
  absl::Status Error(const char* function, int code) const;

  void* handle_;
  std::string library_;
  bool initialized_ = false;
};

}  // namespace lockstep::metrics
