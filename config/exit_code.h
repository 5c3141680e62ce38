// The exit codes two programs agree on: what `lockstep` ends with, and what `lockstep-trainer` ends
// with. mpirun passes a trainer's code on. Codes are part of the public contract: add, never
// renumber.
#pragma once

namespace lockstep::config {

// `lockstep` and `lockstepd`.
enum class ExitCode : int {
  kOk = 0,
  kRunFailed = 1,
  kUsage = 2,  // Wrong arguments or config.
  kNotFound = 3,
  kWrongState = 4,
  kUnavailable = 5,  // No coordinator.
  kDeadline = 6,
  kDenied = 7,
  kBudget = 8,  // Budget or quota.
  kStopped = 9,
};

// `lockstep-trainer`. 0 and 2 mean the same as above; the others are reasons a rank cannot go on.
enum class TrainerExit : int {
  kCompleted = 0,
  kInternal = 1,  // Our bug, or an exception nobody named.
  kBadConfig = 2,
  kStopped = 9,  // Asked to stop; a checkpoint was saved.
  kPaused = 10,  // Asked to pause; a checkpoint was saved, the processes are gone.
  kData = 20,    // The data set cannot be read.
  kCommunicatorLost =
      21,  // A rank or the host's link went away, or a collective ran past its deadline.
  kCheckpointFailed = 22,  // A checkpoint could not be written or none could be read.
  kNonFinite = 23,         // The loss stopped being finite.
  kReplicasDiffer = 24,    // The replicas' parameters are no longer equal.
  kOutOfMemory = 25,
  kStaleAttempt = 26,  // A newer attempt of this run exists; this one may not write.
};

const char* Describe(ExitCode code);
const char* Describe(TrainerExit code);

}  // namespace lockstep::config
