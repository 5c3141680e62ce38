// The file calls a checkpoint is made of, as a struct of functions, so that a test can fail or kill
// at each of them.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace lockstep::trainer {

struct FileOperations {
  FileOperations();  // The real ones.

  /// Creates `path` (must not exist) with the pieces one after another: posix_fallocate, write,
  /// fsync, close.
  std::function<absl::Status(const std::filesystem::path& path,
                             const std::vector<std::span<const std::byte>>& pieces)>
      write_file;
  std::function<absl::Status(const std::filesystem::path& from, const std::filesystem::path& to)>
      rename;
  std::function<absl::Status(const std::filesystem::path& folder)> sync_folder;
  std::function<absl::Status(const std::filesystem::path& path)> remove_all;
};

}  // namespace lockstep::trainer
