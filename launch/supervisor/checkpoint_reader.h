// Looks at the checkpoints of a run directory without LibTorch: what is there, and whether every
// byte is as it was written. The trainer writes them (DIR/checkpoints/step-000000123/, committed by
// a rename); here only manifest.json is understood:
//
//   {"format_version": 1, "step": N, "created_unix_seconds": s, "metric": m or null,
//    "files": {"weights.safetensors": {"size": n, "xxh3_128": "32 hex digits"}, …}}
//
// Reading is safe beside a running trainer: a checkpoint that is deleted meanwhile counts as gone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep::launch {

struct CheckpointOnDisk {
  int64_t step = 0;
  std::filesystem::path path;
  int64_t bytes = 0;  // Of the files the manifest lists.
  double created_unix_seconds = 0;
  std::optional<double> metric;
  absl::Status manifest;  // Why the manifest cannot be used.
};

/// Committed checkpoints, oldest first; staged ones are no checkpoints. Empty when there is none.
std::vector<CheckpointOnDisk> ListCheckpoints(const std::filesystem::path& checkpoints);

/// Step of the newest; 0 when there is none.
int64_t NewestCheckpointStep(const std::filesystem::path& checkpoints);

/// Compares every file with the manifest. DATA_LOSS names the file and what differs; CANCELLED when
/// `cancelled` says so (asked between blocks).
absl::Status VerifyCheckpoint(const std::filesystem::path& checkpoint,
                              const std::function<bool()>& cancelled = {});

}  // namespace lockstep::launch
