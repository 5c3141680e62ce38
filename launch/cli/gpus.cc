#include "launch/cli/gpus.h"

#include <dlfcn.h>

#include <array>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "launch/cli/format.h"

namespace lockstep::cli {
namespace {

// The few declarations of nvml.h that are needed; its ABI is frozen per function name.
using NvmlDevice = void*;
struct NvmlMemory {
  unsigned long long total, free, used;
};
constexpr int kNvmlSuccess = 0;
constexpr int kP2pNvlink = 2;  // NVML_P2P_CAPS_INDEX_NVLINK
constexpr int kP2pOk = 0;

constexpr size_t kTextBytes = 128;  // More than NVML's longest name (96).
constexpr unsigned kMostGpus = 64;

// What nvmlGpuTopologyLevel_t means, with the letters nvidia-smi prints.
const char* PcieKind(int level) {
  switch (level) {
    case 0:
      return "one board (PSB)";
    case 10:
      return "one PCIe switch (PIX)";
    case 20:
      return "PCIe switches (PXB)";
    case 30:
      return "PCIe through the CPU (PHB)";
    case 40:
      return "PCIe through one NUMA node (NODE)";
    default:
      return "PCIe between NUMA nodes (SYS)";
  }
}

class Nvml {
 public:
  static absl::StatusOr<std::unique_ptr<Nvml>> Load(const std::string& library) {
    void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      const char* why = dlerror();  // NOLINT(concurrency-mt-unsafe): one thread.
      return absl::NotFoundError(why != nullptr ? why : library);
    }
    std::unique_ptr<Nvml> nvml(new Nvml(handle));
    const int code = nvml->Call<int()>("nvmlInit_v2");
    if (!nvml->missing_.empty()) return absl::UnimplementedError(nvml->Missing(library));
    if (code != kNvmlSuccess) return absl::UnavailableError(nvml->ErrorText(code));
    nvml->initialized_ = true;
    return nvml;
  }

  ~Nvml() {
    if (initialized_) Call<int()>("nvmlShutdown");
    dlclose(handle_);
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // Calls a function by name; -1 where the library has none of that name, which missing() tells.
  template <typename Signature, typename... Arguments>
  int Call(const char* name, Arguments... arguments) {
    auto* function = reinterpret_cast<Signature*>(dlsym(handle_, name));
    if (function != nullptr) return function(arguments...);
    missing_ = name;
    return -1;
  }

  std::string ErrorText(int code) {
    auto* function = reinterpret_cast<const char* (*)(int)>(dlsym(handle_, "nvmlErrorString"));
    return function == nullptr ? absl::StrCat("NVML error ", code) : Printable(function(code));
  }

  const std::string& missing() const { return missing_; }
  std::string Missing(const std::string& library) const {
    return absl::StrCat(library, " has no ", missing_);
  }

 private:
  explicit Nvml(void* handle) : handle_(handle) {}

  void* handle_;
  bool initialized_ = false;
  std::string missing_;
};

Gpu Describe(Nvml& nvml, NvmlDevice device) {
  Gpu gpu;
  std::array<char, kTextBytes> name{};
  if (nvml.Call<int(NvmlDevice, char*, unsigned)>("nvmlDeviceGetName", device, name.data(),
                                                  unsigned{kTextBytes - 1}) == kNvmlSuccess) {
    gpu.name = Printable(name.data());
  }
  NvmlMemory memory{};
  if (nvml.Call<int(NvmlDevice, NvmlMemory*)>("nvmlDeviceGetMemoryInfo", device, &memory) ==
      kNvmlSuccess) {
    gpu.memory_bytes = static_cast<int64_t>(memory.total);
  }
  nvml.Call<int(NvmlDevice, int*, int*)>("nvmlDeviceGetCudaComputeCapability", device,
                                         &gpu.capability_major, &gpu.capability_minor);
  return gpu;
}

std::string LinkKind(Nvml& nvml, NvmlDevice first, NvmlDevice second) {
  int status = -1;
  if (nvml.Call<int(NvmlDevice, NvmlDevice, int, int*)>("nvmlDeviceGetP2PStatus", first, second,
                                                        int{kP2pNvlink}, &status) == kNvmlSuccess &&
      status == kP2pOk) {
    return "NVLink";
  }
  int level = -1;
  if (nvml.Call<int(NvmlDevice, NvmlDevice, int*)>("nvmlDeviceGetTopologyCommonAncestor", first,
                                                   second, &level) == kNvmlSuccess) {
    return PcieKind(level);
  }
  return "unknown";
}

}  // namespace

absl::StatusOr<GpuHost> AskNvml(const std::string& library) {
  auto loaded = Nvml::Load(library);
  if (!loaded.ok()) return loaded.status();
  Nvml& nvml = **loaded;
  GpuHost host;
  std::array<char, kTextBytes> version{};
  int code = nvml.Call<int(char*, unsigned)>("nvmlSystemGetDriverVersion", version.data(),
                                             unsigned{kTextBytes - 1});
  if (code == kNvmlSuccess) host.driver_version = Printable(version.data());
  unsigned count = 0;
  if (code == kNvmlSuccess) code = nvml.Call<int(unsigned*)>("nvmlDeviceGetCount_v2", &count);
  std::vector<NvmlDevice> devices(std::min(count, kMostGpus));
  for (unsigned i = 0; code == kNvmlSuccess && i < devices.size(); ++i) {
    code = nvml.Call<int(unsigned, NvmlDevice*)>("nvmlDeviceGetHandleByIndex_v2", i, &devices[i]);
    if (code == kNvmlSuccess) host.gpus.push_back(Describe(nvml, devices[i]));
  }
  if (code == -1) return absl::UnimplementedError(nvml.Missing(library));
  if (code != kNvmlSuccess) return absl::UnavailableError(nvml.ErrorText(code));
  for (size_t first = 0; first < devices.size(); ++first) {
    for (size_t second = first + 1; second < devices.size(); ++second) {
      host.links.push_back({first, second, LinkKind(nvml, devices[first], devices[second])});
    }
  }
  return host;
}

std::string DescribeLinks(const GpuHost& host) {
  std::map<std::string, std::string> by_kind;
  for (const GpuLink& link : host.links) {
    absl::StrAppend(&by_kind[link.kind], " ", link.first, "-", link.second);
  }
  if (by_kind.size() == 1) return absl::StrCat(by_kind.begin()->first, " between all");
  std::string text;
  for (const auto& [kind, pairs] : by_kind) {
    absl::StrAppend(&text, text.empty() ? "" : "; ", kind, pairs);
  }
  return text;
}

}  // namespace lockstep::cli
