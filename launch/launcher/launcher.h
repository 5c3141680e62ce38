// Starting, watching and ending the processes of one attempt. The seam to the outside world: mpirun
// (launch/launcher/mpirun.h), and a fake in tests.
//
// An attempt's processes outlive the coordinator: they run in a session of their own and write to
// files. So nothing here depends on being their parent: a Gang is found again by pid and start
// time, and how it ended is read from the run directory (result.json,
// attempt-N/failure-rank-R.json) where the wait status is not to be had.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep::launch {

struct LaunchSpec {
  std::string run_id;
  int attempt = 1;
  int ranks = 1;
  std::vector<std::string> gpus;  // The only ones its ranks may see; empty = as the coordinator.
  std::filesystem::path
      run_dir;  // Holds run.yaml; Start() makes attempt-N/ and attempt-N/token (mode 0600).
  std::string token;
  std::string coordinator_socket;
};

// mpirun of one attempt. Survives a restart of the coordinator as these two numbers.
struct Gang {
  int64_t pid = 0;
  uint64_t start_time_ticks = 0;
};

struct GangEnd {
  int exit_code = 0;   // config::TrainerExit where a trainer said so; 128 + signal; -1 = unknown.
  std::string reason;  // "rank 1 was killed by signal 9", …
  // CLOCK_MONOTONIC seconds, where it ended while nobody watched; nothing = just now. Of an earlier
  // boot it is negative.
  std::optional<double> ended_at = std::nullopt;
};

// What a stopped or hanging gang looks like from outside.
struct HangReport {
  int rank = -1;  // The rank the others wait for; -1 = cannot tell.
  std::string phase;
  std::string reason;  // "rank 1 (pid 4711) is stopped (state T) in forward at step 120"
};

class Launcher {
 public:
  virtual ~Launcher() = default;
  virtual absl::StatusOr<Gang> Start(const LaunchSpec& spec) = 0;
  /// How the gang ended; nothing while any of its processes is alive. Does not block.
  virtual std::optional<GangEnd> Poll(const Gang& gang, const std::filesystem::path& run_dir,
                                      int attempt) = 0;
  /// SIGKILL to mpirun, to every process of its session and to every rank on the board. Returns at
  /// once; Poll() tells when it is done.
  virtual void Kill(const Gang& gang, const std::filesystem::path& run_dir, int attempt) = 0;
  /// Which rank is behind, from the board and /proc; saves what can be known of the stacks to
  /// attempt-N/hang.txt.
  virtual HangReport DescribeHang(const Gang& gang, const std::filesystem::path& run_dir,
                                  int attempt) = 0;
};

}  // namespace lockstep::launch
