// A run.yaml as the user named it, with the overrides of the environment and of `--set`.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "config/load.h"

namespace lockstep::cli {

struct RunFile {
  std::string name;  // For error messages; "standard input" for "-".
  std::string yaml;
  std::vector<config::Override> overrides;  // Environment first, so that --set wins.
};

/// NOT_FOUND, PERMISSION_DENIED, or INVALID_ARGUMENT where an override is no KEY=VALUE.
absl::StatusOr<RunFile> ReadRunFile(const std::string& path, const std::vector<std::string>& set);

/// The text of a file or, for "-", of standard input; at most 16 MiB.
absl::StatusOr<std::string> ReadText(const std::string& path);
absl::StatusOr<std::vector<config::Override>> ParseOverrides(const std::vector<std::string>& set);

}  // namespace lockstep::cli
