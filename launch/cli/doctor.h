// The parts of `lockstep doctor`: each check is one line of its answer.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace lockstep::cli {

struct Check {
  enum class Level { kOk, kWarn, kFail };
  std::string name;
  Level level = Level::kOk;
  std::string found;
  std::string todo;  // What to do; empty where all is well.
};

/// What lockstep-trainer tells of itself.
struct TrainerFacts {
  std::string path;     // Empty where there is none.
  std::string profile;  // "cpu" or "cuda"; empty where it does not start.
  // The libraries it needs, and the file the loader takes for each; empty where it finds none.
  std::map<std::string, std::string> libraries;
};

/// "GPU driver", "GPUs" and "GPU links" (where there are any), and "NCCL" for a trainer of profile
/// cuda. In tests LOCKSTEP_NVML_LIBRARY and LOCKSTEP_NVIDIA_DRIVER name a stand-in for the driver's
/// libnvidia-ml.so.1 and /proc/driver/nvidia/version; LOCKSTEP_NCCL names the NCCL the trainer
/// loads.
std::vector<Check> GpuChecks(const TrainerFacts& trainer);

}  // namespace lockstep::cli
