#include "launch/cli/gpus.h"

#include <future>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "metrics/devices/nvml.h"

namespace lockstep::cli {
namespace {

using metrics::kNvmlSuccess;
using metrics::Nvml;
using metrics::NvmlDevice;

constexpr int kP2pNvlink = 2;  // NVML_P2P_CAPS_INDEX_NVLINK
constexpr int kP2pOk = 0;

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

Gpu Describe(const Nvml& nvml, NvmlDevice device) {
  Gpu gpu;
  gpu.name = nvml.Text("nvmlDeviceGetName", device);
  if (const auto memory = nvml.Memory(device)) {
    gpu.memory_bytes = static_cast<int64_t>(memory->total);
  }
  nvml.Call<int(NvmlDevice, int*, int*)>("nvmlDeviceGetCudaComputeCapability", device,
                                         &gpu.capability_major, &gpu.capability_minor);
  return gpu;
}

std::string LinkKind(const Nvml& nvml, NvmlDevice first, NvmlDevice second) {
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

absl::StatusOr<GpuHost> Ask(const std::string& library) {
  const auto loaded = Nvml::Load(library);
  if (!loaded.ok()) return loaded.status();
  const Nvml& nvml = **loaded;
  GpuHost host;
  const auto version = nvml.DriverVersion();
  if (!version.ok()) return version.status();
  host.driver_version = *version;
  const auto count = nvml.CountGpus();
  if (!count.ok()) return count.status();
  std::vector<NvmlDevice> devices(*count);
  for (unsigned i = 0; i < *count; ++i) {
    int code = kNvmlSuccess;
    devices[i] = nvml.Gpu(i, &code);
    if (code != kNvmlSuccess) {
      return absl::UnavailableError(absl::StrCat("GPU ", i, ": ", nvml.ErrorText(code)));
    }
    host.gpus.push_back(Describe(nvml, devices[i]));
  }
  for (size_t first = 0; first < devices.size(); ++first) {
    for (size_t second = first + 1; second < devices.size(); ++second) {
      host.links.push_back({first, second, LinkKind(nvml, devices[first], devices[second])});
    }
  }
  return host;
}

}  // namespace

absl::StatusOr<GpuHost> AskNvml(const std::string& library, std::chrono::milliseconds patience) {
  const auto answer = std::make_shared<std::promise<absl::StatusOr<GpuHost>>>();
  std::future<absl::StatusOr<GpuHost>> host = answer->get_future();
  std::thread([answer, library] { answer->set_value(Ask(library)); }).detach();
  if (host.wait_for(patience) != std::future_status::ready) {
    return absl::DeadlineExceededError(absl::StrCat(
        "NVML has not answered for ",
        std::chrono::duration_cast<std::chrono::duration<double>>(patience).count(), " s"));
  }
  return host.get();
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
