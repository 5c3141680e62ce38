// Runs one attempt under mpirun: one fixed argument vector, no shell, an allow-listed environment,
// a session of its own, output to files.
//
// What it leaves beside the run's own files:
//   DIR/attempt-K/token         the attempt's secret, mode 0600, durable before mpirun starts
//   DIR/attempt-K/gang.json     pid, start time, boot, temporary folder: what Find() reads
//   DIR/attempt-K/trainer.log   what mpirun itself prints; the ranks write rank-R.log
//   DIR/attempt-K/hang.txt      what DescribeHang() saw
//   DIR/attempt-K/end.json      how the attempt ended, so that Poll() says the same ever after
//   /tmp/lockstep-gang-XXXXXX   TMPDIR of the attempt (a short path: Open MPI makes sockets in it);
//                               removed with all that killed ranks left behind, once all are gone
//
// Thread-safe. Keeps the wait status of its own children and nothing else that matters: a new
// launcher finds a gang again by its two numbers. SIGCHLD must not be ignored in this process.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "launch/launcher/launcher.h"

namespace lockstep::launch {

struct MpirunOptions {
  std::string mpirun = "mpirun";  // A name is looked up in PATH; anything with a '/' is a path.
  std::string trainer;            // Absolute path of lockstep-trainer.
  bool allow_root = false;        // Run ranks as root: an explicit opt-in.
  bool oversubscribe = false;     // Let mpirun start more ranks than the host has cores.
  int64_t log_limit_bytes = 256ll << 20;  // Per rank and attempt.
  // Ranks that outlive mpirun have this long to end by themselves (and say why) before SIGKILL.
  std::chrono::milliseconds orphan_grace{1500};
};

class MpirunLauncher : public Launcher {
 public:
  explicit MpirunLauncher(MpirunOptions options);

  /// INVALID_ARGUMENT: a run id, folder or socket that is not fit for an argument vector.
  /// PERMISSION_DENIED: root without the opt-in. NOT_FOUND: no mpirun, no trainer. Others: the
  /// system's.
  absl::StatusOr<Gang> Start(const LaunchSpec& spec) override;
  std::optional<GangEnd> Poll(const Gang& gang, const std::filesystem::path& run_dir,
                              int attempt) override;
  void Kill(const Gang& gang, const std::filesystem::path& run_dir, int attempt) override;
  /// Blocks for up to about 6 s where gdb is installed.
  HangReport DescribeHang(const Gang& gang, const std::filesystem::path& run_dir,
                          int attempt) override;

  /// The gang that Start() recorded for an attempt, alive or not; nothing when it never started or
  /// the host was started anew since. For a coordinator that died between Start() and its own
  /// record.
  static std::optional<Gang> Find(const std::filesystem::path& run_dir, int attempt);

  /// The argument vector of an attempt; argv[0] is mpirun as configured.
  std::vector<std::string> Arguments(const LaunchSpec& spec) const;
  /// What an attempt's processes see of `environment` (NAME=value), and what is added.
  static std::vector<std::string> Environment(char** environment, const LaunchSpec& spec,
                                              const std::string& tmp_dir);

 private:
  struct Watched {
    bool child = false;              // Ours to wait for.
    std::optional<int> wait_status;  // As from waitpid.
    bool killed = false;             // By Kill().
    std::optional<std::chrono::steady_clock::time_point> leader_gone;
  };
  using Key = std::pair<int64_t, uint64_t>;

  bool LeaderAlive(const Gang& gang, Watched& watched);

  const MpirunOptions options_;
  std::mutex mutex_;
  std::map<Key, Watched> watched_;  // Guarded by mutex_. Removed when the gang has ended.
};

}  // namespace lockstep::launch
