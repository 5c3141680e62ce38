#include "launch/launcher/host_gpus.h"

#include <system_error>

#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace lockstep::launch {

std::vector<std::string> HostGpus(const char* cuda_visible_devices,
                                  const std::filesystem::path& driver) {
  std::vector<std::string> gpus;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(driver, error), end; !error && entry != end;
       entry.increment(error)) {
    gpus.push_back(std::to_string(gpus.size()));
  }
  if (cuda_visible_devices == nullptr || gpus.empty()) return gpus;
  std::vector<std::string> chosen;
  for (const absl::string_view part : absl::StrSplit(cuda_visible_devices, ',')) {
    const absl::string_view name = absl::StripAsciiWhitespace(part);
    if (name.empty() || name == "-1") break;  // What CUDA does: it stops at the first invalid one.
    chosen.emplace_back(name);
  }
  return chosen;
}

}  // namespace lockstep::launch
