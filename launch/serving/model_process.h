// One `lockstep-trainer serve` process: a trained model in memory, asked over a socket pair
// (proto/lockstep/v1/predict.proto).
//
// The process has a session and a clean environment of its own, as every child of the daemon; it
// ends when its end of the socket closes, so it cannot outlive the daemon, and the destructor makes
// sure of it. Not thread-safe.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "config/frame.h"
#include "lockstep/v1/predict.pb.h"

namespace lockstep::launch {

struct ModelProcessOptions {
  std::string trainer;  // Path of lockstep-trainer.
  std::vector<std::string> environment;
  std::filesystem::path log;  // Where its stderr is appended.
  std::chrono::milliseconds start_timeout{120'000};
  std::chrono::milliseconds answer_timeout{60'000};
  std::function<bool()> stopping;  // Asked a few times a second; then every wait ends.
};

class ModelProcess {
 public:
  /// Starts one for `checkpoint` (a checkpoint's folder or a run directory) and waits until the
  /// model is in memory. Errors: what the process says (NOT_FOUND, DATA_LOSS, INVALID_ARGUMENT),
  /// UNAVAILABLE when it died, DEADLINE_EXCEEDED.
  static absl::StatusOr<std::unique_ptr<ModelProcess>> Start(const ModelProcessOptions& options,
                                                             const std::string& checkpoint);
  ~ModelProcess();  // Ends and reaps it, within moments.
  ModelProcess(const ModelProcess&) = delete;
  ModelProcess& operator=(const ModelProcess&) = delete;

  /// One picture. INVALID_ARGUMENT = the process says that it is no picture; DEADLINE_EXCEEDED =
  /// the caller's time is up (the process goes on, its late answer is thrown away); UNAVAILABLE =
  /// the process died or did not answer within its own time. After that broken() is true.
  absl::StatusOr<v1::ServeResponse> Ask(const v1::PredictRequest& request,
                                        config::FrameDeadline deadline);

  bool broken() const { return broken_; }
  const v1::ServeHello& hello() const { return hello_; }
  int64_t pid() const { return pid_; }

 private:
  ModelProcess(pid_t pid, int socket, const ModelProcessOptions& options);
  absl::Status Greet();
  absl::StatusOr<std::string> Await(config::FrameDeadline deadline);
  absl::Status Drain(config::FrameDeadline deadline);
  /// UNAVAILABLE, with how the process ended.
  absl::Status Died(const absl::Status& how);
  int Reap(std::chrono::milliseconds patience);

  const ModelProcessOptions options_;
  pid_t pid_;
  int socket_;
  config::FrameReader reader_;
  v1::ServeHello hello_;
  uint64_t last_id_ = 0;
  bool owed_ = false;                // The answer to last_id_ has not come: its caller
  config::FrameDeadline owed_by_{};  // has given up. When it is due.
  bool broken_ = false;
};

}  // namespace lockstep::launch
