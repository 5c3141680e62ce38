// Reading one checkpoint's folder with suspicion: no link is followed, nothing but regular files is
// opened, nothing is allocated that the manifest and the file's real size do not agree on.
//
// Every error names the file. DATA_LOSS = damaged; FAILED_PRECONDITION = whole, but not for this
// program (manifest.h); NOT_FOUND = no such folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/checkpoint/manifest.h"

namespace lockstep::trainer {

inline constexpr char kPinnedFile[] = "pinned";  // Its presence keeps a checkpoint from deletion.

class CheckpointFolder {
 public:
  /// Opens the folder and reads its manifest, whose step must be the folder name's.
  static absl::StatusOr<CheckpointFolder> Open(const std::filesystem::path& path);

  CheckpointFolder(CheckpointFolder&& other) noexcept;
  CheckpointFolder& operator=(CheckpointFolder&&) = delete;
  ~CheckpointFolder();

  const Manifest& manifest() const { return manifest_; }
  bool pinned() const;

  /// Refuses a folder that holds anything but the manifest's files, the manifest and `pinned`.
  absl::Status CheckNames() const;

  /// The whole file, its size and hash those of the manifest.
  absl::StatusOr<std::vector<std::byte>> Read(const std::string& name) const;

  /// As Read, but in pieces that are not kept.
  absl::Status Check(const std::string& name) const;

 private:
  CheckpointFolder(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::filesystem::path path_;
  int fd_ = -1;
  Manifest manifest_;
};

/// "step-000000120"; nine digits, more where the step needs them.
std::string StepFolderName(int64_t step);
/// The step of exactly such a name; -1 for any other.
int64_t StepOfFolderName(const std::string& name);

}  // namespace lockstep::trainer
