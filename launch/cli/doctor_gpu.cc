// What doctor knows of NVIDIA's world: the driver, the GPUs, their links, NCCL, and which versions
// do not fit together.
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "launch/cli/doctor.h"
#include "launch/cli/format.h"
#include "launch/cli/gpus.h"
#include "metrics/devices/nvml.h"

namespace lockstep::cli {
namespace {

using Level = Check::Level;

constexpr int kOldestDriver = 580;     // The first branch that runs CUDA 13.
constexpr int kOldestNccl = 21900;     // 2.19, as ncclGetVersion() writes it.
constexpr int kOldestCapability = 75;  // CUDA 13 has no code for what came before Turing.

// What the trainer calls (trainer/comm/nccl_library.cc, which this folder may not include).
constexpr const char* kNcclFunctions[] = {
    "ncclGetUniqueId", "ncclCommInitRankConfig", "ncclCommGetAsyncError", "ncclCommFinalize",
    "ncclCommDestroy", "ncclCommAbort",          "ncclGetErrorString",    "ncclGetLastError",
    "ncclAllReduce",   "ncclBroadcast",
};

// One thread, and nobody sets variables.
std::string Environment(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  return value != nullptr && *value != '\0' ? value : otherwise;
}

// "580.65.06" out of "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul …". Empty
// where there is no such file.
std::string DriverVersionInProc() {
  std::ifstream file(Environment("LOCKSTEP_NVIDIA_DRIVER", "/proc/driver/nvidia/version"));
  std::string line;
  if (!std::getline(file, line)) return "";
  for (const absl::string_view word : absl::StrSplit(line, ' ', absl::SkipEmpty())) {
    if (absl::ascii_isdigit(static_cast<unsigned char>(word[0])) &&
        word.find('.') != absl::string_view::npos) {
      return Printable(word);
    }
  }
  return "of unknown version";
}

int MajorOf(const std::string& version) {
  int major = 0;
  return absl::SimpleAtoi(version.substr(0, version.find('.')), &major) ? major : 0;
}

Check CheckDriver(const absl::StatusOr<GpuHost>& host, const std::string& in_proc, bool cuda) {
  const std::string name = "GPU driver";
  if (absl::IsNotFound(host.status())) {
    if (in_proc.empty()) return {name, Level::kOk, "none; ranks train on the CPU", ""};
    return {name, Level::kWarn,
            absl::StrCat(in_proc,
                         ", but its library does not load: ", Printable(host.status().message())),
            "in a container pass --gpus all; elsewhere install the rest of the driver "
            "(Debian: libnvidia-ml1, libcuda1)"};
  }
  if (!host.ok()) {
    return {
        name, cuda && !in_proc.empty() ? Level::kFail : Level::kWarn,
        absl::StrCat(in_proc.empty() ? "its library is there, its kernel module is not" : in_proc,
                     ": ", Printable(host.status().message())),
        "after an update of the driver restart the machine; otherwise look at "
        "`dmesg | grep -i nvidia`"};
  }
  if (MajorOf(host->driver_version) < kOldestDriver) {
    return {name, cuda && !host->gpus.empty() ? Level::kFail : Level::kWarn, host->driver_version,
            absl::StrCat("CUDA 13 needs driver ", kOldestDriver, " or newer: update the driver")};
  }
  return {name, Level::kOk, host->driver_version, ""};
}

// Equal ones are counted: "2 x NVIDIA H100 (80 GB), NVIDIA A2 (15 GB)".
std::string ListGpus(const std::vector<Gpu>& gpus) {
  std::vector<std::pair<std::string, int>> kinds;
  for (const Gpu& gpu : gpus) {
    const std::string text = absl::StrCat(gpu.name, " (", FormatBytes(gpu.memory_bytes), ")");
    const auto known = std::find_if(kinds.begin(), kinds.end(),
                                    [&](const auto& kind) { return kind.first == text; });
    if (known != kinds.end()) {
      ++known->second;
    } else {
      kinds.emplace_back(text, 1);
    }
  }
  return absl::StrJoin(kinds, ", ", [](std::string* out, const auto& kind) {
    if (kind.second > 1) absl::StrAppend(out, kind.second, " x ");
    absl::StrAppend(out, kind.first);
  });
}

Check CheckGpus(const GpuHost& host, const TrainerFacts& trainer) {
  if (host.gpus.empty()) {
    return {"GPUs", Level::kWarn, "the driver shows none",
            "in a container pass --gpus all; elsewhere look at `dmesg | grep -i nvidia`"};
  }
  const std::string found = ListGpus(host.gpus);
  for (const Gpu& gpu : host.gpus) {
    const int capability = 10 * gpu.capability_major + gpu.capability_minor;
    if (capability == 0 || capability >= kOldestCapability) continue;
    return {"GPUs", Level::kWarn, found,
            absl::StrCat("CUDA 13 has no code for ", gpu.name, " (compute capability ",
                         gpu.capability_major, ".", gpu.capability_minor,
                         "; it begins at 7.5): hide it with CUDA_VISIBLE_DEVICES")};
  }
  if (trainer.profile == "cpu") {
    return {"GPUs", Level::kWarn, found,
            "lockstep-trainer is of profile cpu and leaves them idle: scripts/setup --cuda && "
            "scripts/build cuda"};
  }
  return {"GPUs", Level::kOk, found, ""};
}

// NCCL as a library that is open while this lives.
class Nccl {
 public:
  explicit Nccl(const std::string& library)
      : handle_(dlopen(library.c_str(), RTLD_LAZY | RTLD_LOCAL)) {
    const char* why = handle_ == nullptr ? dlerror() : nullptr;  // NOLINT(concurrency-mt-unsafe)
    if (why != nullptr) error_ = Printable(why);
  }
  ~Nccl() {
    if (handle_ != nullptr) dlclose(handle_);
  }
  Nccl(const Nccl&) = delete;
  Nccl& operator=(const Nccl&) = delete;

  bool open() const { return handle_ != nullptr; }
  const std::string& error() const { return error_; }
  bool Has(const char* function) const { return dlsym(handle_, function) != nullptr; }
  /// 22809 for 2.28.9; 0 where it does not tell.
  int Version() const {
    auto* function = reinterpret_cast<int (*)(int*)>(dlsym(handle_, "ncclGetVersion"));
    int version = 0;
    return function != nullptr && function(&version) == 0 ? version : 0;
  }

 private:
  void* handle_;
  std::string error_;
};

Check CheckNccl(const TrainerFacts& trainer) {
  const char* todo = "scripts/setup --cuda brings one that fits; --nccl DIR takes one of your own";
  const auto known = trainer.libraries.find("libnccl.so.2");
  const std::string library =
      Environment("LOCKSTEP_NCCL", known != trainer.libraries.end() && !known->second.empty()
                                       ? known->second.c_str()
                                       : "libnccl.so.2");
  const Nccl nccl(library);
  if (!nccl.open()) return {"NCCL", Level::kFail, nccl.error(), todo};
  const int version = nccl.Version();
  const std::string found = absl::StrCat(version / 10000, ".", version / 100 % 100, ".",
                                         version % 100, " (", library, ")");
  if (version < kOldestNccl) {
    return {"NCCL", Level::kFail, absl::StrCat(found, " is older than 2.19"), todo};
  }
  for (const char* function : kNcclFunctions) {
    if (!nccl.Has(function)) {
      return {"NCCL", Level::kFail, absl::StrCat(found, " has no ", function), todo};
    }
  }
  return {"NCCL", Level::kOk, found, ""};
}

}  // namespace

std::vector<Check> GpuChecks(const TrainerFacts& trainer) {
  const absl::StatusOr<GpuHost> host = AskNvml(metrics::NvmlLibraryName());
  const bool cuda = trainer.profile == "cuda";
  std::vector<Check> checks = {CheckDriver(host, DriverVersionInProc(), cuda)};
  if (host.ok()) {
    checks.push_back(CheckGpus(*host, trainer));
    if (!host->links.empty()) {
      checks.push_back({"GPU links", Level::kOk, DescribeLinks(*host), ""});
    }
  }
  if (cuda) checks.push_back(CheckNccl(trainer));
  return checks;
}

}  // namespace lockstep::cli
