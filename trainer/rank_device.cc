#include "trainer/rank_device.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "trainer/failure.h"

namespace lockstep::trainer {

using config::TrainerExit;

std::unique_ptr<Device> OpenRankDevice(const config::RunConfig& config, const World& world) {
  const bool wanted = config.resources.device != config::DeviceChoice::kCpu;
  const int gpus = wanted ? GpuCount() : 0;
  // Whoever gives each rank a host id of its own makes NCCL take one GPU for several: for tests.
  const bool enough = gpus >= world.ranks_on_host() || (gpus > 0 && std::getenv("NCCL_HOSTID"));
  const std::vector<int64_t> counts = world.AllGather(gpus);
  const std::vector<int64_t> fits = world.AllGather(enough ? 1 : 0);
  const auto most = *std::max_element(counts.begin(), counts.end());
  if (most == 0) {
    if (config.resources.device == config::DeviceChoice::kGpu) {
      throw Refusal{TrainerExit::kBadConfig,
                    absl::StrCat("resources.device is gpu, but there is none: ", WhyNoGpu())};
    }
    if (config.training.precision == config::Precision::kFp16) {
      throw Refusal{TrainerExit::kBadConfig,
                    "training.precision is fp16, which needs a GPU; bf16 runs on CPUs too"};
    }
    return OpenCpu();
  }
  for (size_t rank = 0; rank < fits.size(); ++rank) {
    if (fits[rank] != 0) continue;
    throw Refusal{TrainerExit::kBadConfig,
                  absl::StrCat("rank ", rank, "'s host has ", counts[rank],
                               counts[rank] == 1 ? " GPU" : " GPUs",
                               " for more ranks than that; each rank needs one of its own. Start "
                               "fewer ranks there, or set resources.device: cpu")};
  }
  return OpenGpu(world.local_rank() % gpus, {config.training.tf32, config.training.deterministic});
}

}  // namespace lockstep::trainer
