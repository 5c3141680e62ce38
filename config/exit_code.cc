#include "config/exit_code.h"

namespace lockstep::config {

const char* Describe(ExitCode code) {
  switch (code) {
    case ExitCode::kOk:
      return "ok";
    case ExitCode::kRunFailed:
      return "the run failed";
    case ExitCode::kUsage:
      return "wrong arguments or config";
    case ExitCode::kNotFound:
      return "not found";
    case ExitCode::kWrongState:
      return "not possible in the present state";
    case ExitCode::kUnavailable:
      return "no coordinator";
    case ExitCode::kDeadline:
      return "deadline exceeded";
    case ExitCode::kDenied:
      return "denied";
    case ExitCode::kBudget:
      return "budget or quota exhausted";
    case ExitCode::kStopped:
      return "stopped";
  }
  return "unknown exit code";
}

const char* Describe(TrainerExit code) {
  switch (code) {
    case TrainerExit::kCompleted:
      return "completed";
    case TrainerExit::kInternal:
      return "internal error";
    case TrainerExit::kBadConfig:
      return "wrong arguments or config";
    case TrainerExit::kStopped:
      return "stopped";
    case TrainerExit::kPaused:
      return "paused";
    case TrainerExit::kData:
      return "the data set cannot be read";
    case TrainerExit::kCommunicatorLost:
      return "a rank was lost";
    case TrainerExit::kCheckpointFailed:
      return "a checkpoint could not be written or read";
    case TrainerExit::kNonFinite:
      return "the loss is not finite";
    case TrainerExit::kReplicasDiffer:
      return "the replicas differ";
    case TrainerExit::kOutOfMemory:
      return "out of memory";
    case TrainerExit::kStaleAttempt:
      return "a newer attempt of this run exists";
  }
  return "unknown exit code";
}

}  // namespace lockstep::config
