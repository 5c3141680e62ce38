// Taking a run directory for one attempt: one writer at a time, and only the newest attempt.
//
// Two fences. The lock (flock, held by rank 0 for its life) keeps two processes of one host apart.
// The attempt number in DIR/attempt stops an older attempt that is still alive somewhere from
// committing a checkpoint (trainer/saver.cc asks before each commit).
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "config/run_directory.h"

namespace lockstep::trainer {

class Claim {
 public:
  /// Makes the folder, takes the lock (waits up to `patience_seconds` for an earlier attempt that
  /// is just ending), makes `attempt` (0 = the next one) the current attempt and its folder.
  /// UNAVAILABLE names the process that holds the lock; ABORTED when a newer attempt exists.
  static absl::StatusOr<std::unique_ptr<Claim>> Take(const config::RunDirectory& directory,
                                                     int attempt, double patience_seconds);
  ~Claim();
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

  int attempt() const { return attempt_; }

 private:
  Claim(int lock_fd, int attempt) : lock_fd_(lock_fd), attempt_(attempt) {}
  int lock_fd_;
  int attempt_;
};

}  // namespace lockstep::trainer
