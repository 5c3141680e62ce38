// Which NVIDIA GPUs of this host the coordinator may give to runs.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace lockstep::launch {

/// As CUDA_VISIBLE_DEVICES would name them: its own entries where the coordinator runs with it set,
/// otherwise "0", "1", … for each GPU that the driver shows in `driver` (a folder per GPU). Asks
/// the kernel's files only: nothing here can hang on a sick driver.
std::vector<std::string> HostGpus(const char* cuda_visible_devices,
                                  const std::filesystem::path& driver = "/proc/driver/nvidia/gpus");

}  // namespace lockstep::launch
