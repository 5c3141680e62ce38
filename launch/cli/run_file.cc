#include "launch/cli/run_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "config/run_directory.h"

namespace lockstep::cli {
namespace {

constexpr size_t kLargestConfig = 16u << 20;

absl::StatusOr<std::string> ReadStandardInput() {
  std::string text;
  char buffer[65536];
  while (true) {
    const ssize_t count = read(0, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("cannot read standard input: ", strerror(errno)));
    }
    if (count == 0) return text;
    text.append(buffer, static_cast<size_t>(count));
    if (text.size() > kLargestConfig) {
      return absl::InvalidArgumentError("standard input is longer than 16 MiB");
    }
  }
}

}  // namespace

absl::StatusOr<std::string> ReadText(const std::string& path) {
  if (path == "-") return ReadStandardInput();
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is a folder; expected a YAML file"));
  }
  auto text = config::ReadFile(path, kLargestConfig);
  if (text.ok()) return text;
  // A file that is not there is a wrong argument (exit 2), not a run that is not there (exit 3).
  return absl::InvalidArgumentError(absl::IsNotFound(text.status())
                                        ? absl::StrCat("there is no file ", path)
                                        : std::string(text.status().message()));
}

absl::StatusOr<std::vector<config::Override>> ParseOverrides(const std::vector<std::string>& set) {
  std::vector<config::Override> overrides;
  for (const std::string& text : set) {
    auto override = config::ParseOverride(text);
    if (!override.ok()) return override.status();
    override->origin = "--set";
    overrides.push_back(*std::move(override));
  }
  return overrides;
}

absl::StatusOr<RunFile> ReadRunFile(const std::string& path, const std::vector<std::string>& set) {
  RunFile file;
  file.name = path == "-" ? "standard input" : path;
  auto text = ReadText(path);
  if (!text.ok()) return text.status();
  file.yaml = *std::move(text);
  file.overrides = config::EnvironmentOverrides(environ);
  auto overrides = ParseOverrides(set);
  if (!overrides.ok()) return overrides.status();
  file.overrides.insert(file.overrides.end(), overrides->begin(), overrides->end());
  return file;
}

}  // namespace lockstep::cli
