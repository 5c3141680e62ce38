#include "launch/launcher/child_environment.h"

#include <algorithm>
#include <array>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace lockstep::launch {
namespace {

// LD_LIBRARY_PATH stays: an MPI outside the system's folders needs it, as a packaged trainer needs
// to know its LibTorch.
constexpr std::array<absl::string_view, 13> kPassedOn = {"PATH",
                                                         "HOME",
                                                         "USER",
                                                         "LOGNAME",
                                                         "SHELL",
                                                         "LANG",
                                                         "LANGUAGE",
                                                         "TZ",
                                                         "LD_LIBRARY_PATH",
                                                         "LOCKSTEP_LIBTORCH",
                                                         "LOCKSTEP_NCCL",
                                                         "CUDA_VISIBLE_DEVICES",
                                                         "CUDA_DEVICE_ORDER"};
constexpr std::array<absl::string_view, 3> kPassedOnPrefixes = {"LC_", "OMP_", "NCCL_"};

}  // namespace

std::vector<std::string> ChildEnvironment(char** environment) {
  std::vector<std::string> passed;
  for (char** entry = environment; entry != nullptr && *entry != nullptr; ++entry) {
    const absl::string_view assignment = *entry;
    const absl::string_view name = assignment.substr(0, assignment.find('='));
    const bool allowed =
        std::find(kPassedOn.begin(), kPassedOn.end(), name) != kPassedOn.end() ||
        std::any_of(kPassedOnPrefixes.begin(), kPassedOnPrefixes.end(),
                    [&](absl::string_view prefix) { return absl::StartsWith(name, prefix); });
    if (allowed) passed.emplace_back(assignment);
  }
  return passed;
}

}  // namespace lockstep::launch
