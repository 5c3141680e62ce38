// The file calls a checkpoint is made of, as a struct of functions, so that a test can fail or kill
// at each of them; and what a failed call means.
//
// Codes: RESOURCE_EXHAUSTED = the disk or the quota is full, and nothing else. DATA_LOSS = bytes
// may not have reached the disk (a failed write, fsync or close, EIO anywhere). A failed fsync is
// not retried: the kernel has dropped the dirty pages and would report success the second time.
// Messages hold the call, the path and the system's text.
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
  /// fsync, close. On an error the file may be left, of any length.
  std::function<absl::Status(const std::filesystem::path& path,
                             const std::vector<std::span<const std::byte>>& pieces)>
      write_file;
  std::function<absl::Status(const std::filesystem::path& from, const std::filesystem::path& to)>
      rename;
  std::function<absl::Status(const std::filesystem::path& folder)> sync_folder;
  /// A path that does not exist is no error.
  std::function<absl::Status(const std::filesystem::path& path)> remove_all;
};

/// The status for `call` on `path` that failed with this errno.
absl::Status FileError(int error_number, const std::string& call,
                       const std::filesystem::path& path);

}  // namespace lockstep::trainer
