// The run directory: the contract between a run and everyone who looks at it.
//
//   DIR/run.yaml                                 resolved config, loadable again
//   DIR/metrics.jsonl                            one row per logged step, epoch and evaluation
//   DIR/tensorboard/                             event files (trainer/tensorboard/event_log.h)
//   DIR/result.json                              how the run ended
//   DIR/checkpoints/step-000000123/              one folder per checkpoint (format:
//   trainer/checkpoint/store.h) DIR/lock                                     flock()ed by the rank
//   0 that may write here DIR/attempt                                  number of the attempt that
//   may write here DIR/attempt-1/rank-0.log trainer.log         what the ranks and mpirun printed
//   DIR/attempt-1/board                          live state of each rank (config/rank_board.h)
//   DIR/attempt-1/failure-rank-1.json            why a rank gave up:
//   {"rank","exit_code","reason","message","step"}
//
// Writing a small file here is one call, WriteFileDurably: temporary file, fsync, rename, fsync of
// the folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep::config {

class RunDirectory {
 public:
  explicit RunDirectory(std::filesystem::path root) : root_(std::move(root)) {}

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path run_yaml() const { return root_ / "run.yaml"; }
  std::filesystem::path metrics() const { return root_ / "metrics.jsonl"; }
  std::filesystem::path tensorboard() const { return root_ / "tensorboard"; }
  std::filesystem::path result() const { return root_ / "result.json"; }
  std::filesystem::path checkpoints() const { return root_ / "checkpoints"; }
  std::filesystem::path lock() const { return root_ / "lock"; }
  std::filesystem::path current_attempt() const { return root_ / "attempt"; }
  std::filesystem::path attempt(int number) const {
    return root_ / ("attempt-" + std::to_string(number));
  }
  std::filesystem::path trainer_log(int number) const { return attempt(number) / "trainer.log"; }
  std::filesystem::path rank_log(int number, int rank) const {
    return attempt(number) / ("rank-" + std::to_string(rank) + ".log");
  }
  std::filesystem::path board(int number) const { return attempt(number) / "board"; }
  std::filesystem::path failure(int number, int rank) const {
    return attempt(number) / ("failure-rank-" + std::to_string(rank) + ".json");
  }

  /// The number in `attempt`; 0 where the file is absent. INVALID_ARGUMENT where it is not a
  /// number.
  absl::StatusOr<int> ReadCurrentAttempt() const;
  /// Makes `number` the only attempt that may commit checkpoints. Durable on return.
  absl::Status WriteCurrentAttempt(int number) const;

 private:
  std::filesystem::path root_;
};

/// Replaces `path` by `contents`, all or nothing, durable on return.
absl::Status WriteFileDurably(const std::filesystem::path& path, std::string_view contents);
/// Reads at most `max_bytes`; RESOURCE_EXHAUSTED when the file is larger, NOT_FOUND when absent.
absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path,
                                     size_t max_bytes = 64u << 20);

}  // namespace lockstep::config
