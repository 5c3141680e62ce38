// Sends this process's stdout and stderr to DIR/attempt-K/rank-R.log and keeps that file bounded.
//
// For ranks that the coordinator launched: their output must not go through mpirun, whose log the
// ranks of all would share. Both streams become line-buffered, so that what a rank said is in the
// file when it is killed. When the file passes half of the limit it becomes rank-R.log.1 (the older
// one of that name is dropped) and a new one is begun; what is written within one look (50 ms, less
// while much is written) may go beyond the limit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <thread>

#include "absl/status/statusor.h"

namespace lockstep::trainer {

class RankLog {
 public:
  /// Opens (appending) and redirects. An error leaves the streams as they were. One per process.
  static absl::StatusOr<std::unique_ptr<RankLog>> Redirect(const std::filesystem::path& path,
                                                           int64_t limit_bytes);
  /// Flushes, stops looking after the file; the streams stay with it.
  ~RankLog();
  RankLog(const RankLog&) = delete;
  RankLog& operator=(const RankLog&) = delete;

 private:
  RankLog(std::filesystem::path path, int64_t limit_bytes);
  void Watch(const std::stop_token& stop);
  void Rotate();

  const std::filesystem::path path_;
  const int64_t limit_bytes_;
  std::jthread thread_;
};

}  // namespace lockstep::trainer
