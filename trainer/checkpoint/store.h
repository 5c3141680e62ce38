// The checkpoints of one run, on disk, and the one act that makes a checkpoint real.
//
//   checkpoints/step-000000123.tmp-ATTEMPT/  weights.safetensors  optimizer.safetensors  state.json
//   each written, fsynced
//                                            manifest.json: format version, step, size and xxh3-128
//                                            of each file, fsynced
//   rename to checkpoints/step-000000123/, fsync checkpoints/            <- the commit
//
// A crash at any call leaves the old checkpoints and either the new one or a .tmp folder that the
// next Open() removes. A checkpoint is verified before it is used; a damaged one is reported, left
// in place, and the previous one is used. Old ones are deleted only after the newer is durable. A
// failed fsync is never retried on the same file: the whole staged folder is thrown away. One
// process writes (rank 0, under the run directory's lock); anyone may read.
//
// A folder is deleted by renaming it to a .tmp name first, so that a crash in the middle leaves no
// half of a checkpoint behind. A file `pinned` in a checkpoint keeps it from deletion. The format
// of the manifest stands in manifest.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/checkpoint/file_operations.h"
#include "trainer/checkpoint/safetensors.h"

namespace lockstep::trainer {

inline constexpr int kCheckpointFormatVersion = 1;

struct CheckpointContents {
  std::vector<TensorBytes> weights;
  std::vector<TensorBytes> optimizer;
  std::string
      state_json;  // Position, seed, best metric, config hash, …: what the trainer needs to go on.
};

struct CheckpointInfo {
  int64_t step = 0;
  std::filesystem::path path;
  int64_t bytes = 0;
  std::optional<double> metric;  // The best_metric's value at this step, if it was evaluated.
  double created_unix_seconds = 0;
  bool pinned = false;
};

// What stays: the newest `keep_last` (at least one), the `keep_best` best by metric (of equal ones
// the earlier), the pinned ones. Damaged ones are neither counted nor deleted.
struct Retention {
  int keep_last = 2;
  int keep_best = 1;
  bool higher_is_better = true;
};

// A checkpoint in memory; tensors borrow from it, so it moves but does not copy.
struct LoadedCheckpoint {
  LoadedCheckpoint() = default;
  LoadedCheckpoint(LoadedCheckpoint&&) = default;
  LoadedCheckpoint& operator=(LoadedCheckpoint&&) = default;

  CheckpointInfo info;
  std::vector<std::byte> weights_file;
  std::vector<std::byte> optimizer_file;
  SafetensorsView weights;
  SafetensorsView optimizer;
  std::string state_json;
};

class CheckpointStore {
 public:
  /// `may_commit` is asked just before the rename (fencing: is this attempt still the current
  /// one?); a non-OK answer abandons the commit. `attempt` names the staging folder.
  CheckpointStore(std::filesystem::path folder, int attempt, Retention retention,
                  std::function<absl::Status()> may_commit = {}, FileOperations operations = {});

  /// Makes the folder if needed, removes what a crash left.
  absl::Status Open();

  /// Durable on OK. RESOURCE_EXHAUSTED = disk full; DATA_LOSS = fsync or write failed; ABORTED =
  /// fenced; INVALID_ARGUMENT = a negative step, or tensors whose bytes do not fit their shapes. On
  /// any error the staged folder is gone and the other checkpoints are as they were. A good
  /// checkpoint of that step that is there already is an OK no-op; a damaged one is replaced. A
  /// non-finite metric counts as none. Old checkpoints that could not be deleted are no error: the
  /// next Commit() tries again.
  absl::Status Commit(int64_t step, const CheckpointContents& contents,
                      std::optional<double> metric);

  /// Where the checkpoint of this step is, or would be.
  std::filesystem::path PathOf(int64_t step) const;

  /// Complete checkpoints, oldest first. Does not verify contents; one whose manifest is damaged is
  /// not among them.
  absl::StatusOr<std::vector<CheckpointInfo>> List() const;

  /// Reads every byte and compares with the manifest. DATA_LOSS names file and reason;
  /// FAILED_PRECONDITION = written by something else or by a newer version; NOT_FOUND = not there.
  absl::Status Verify(const std::filesystem::path& checkpoint) const;

  /// Verifies and loads; errors as Verify().
  absl::StatusOr<LoadedCheckpoint> Load(const std::filesystem::path& checkpoint) const;

  /// Newest that verifies. `refused` collects one line per damaged one that was passed over.
  /// NOT_FOUND when there is none at all; DATA_LOSS when there are some and none is good. Trouble
  /// that is not the checkpoint's (no permission, too many open files) ends the search with that
  /// error, so that a good one is never passed over.
  absl::StatusOr<LoadedCheckpoint> LoadNewestGood(std::vector<std::string>& refused) const;

  /// Deletes by the retention rule; never the newest, never a pinned one. Called by Commit() after
  /// the rename.
  absl::Status Prune();

 private:
  absl::Status Stage(const std::filesystem::path& staged, int64_t step,
                     const CheckpointContents& contents, std::optional<double> metric);
  absl::Status Publish(const std::filesystem::path& staged, const std::filesystem::path& final_path,
                       bool replace);
  std::filesystem::path StagedPath(int64_t step) const;
  std::filesystem::path DiscardedPath(int64_t step) const;

  std::filesystem::path folder_;
  int attempt_;
  Retention retention_;
  std::function<absl::Status()> may_commit_;
  FileOperations operations_;
};

}  // namespace lockstep::trainer
