// Following runs at a terminal or into a log, until they end or the person has seen enough.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "launch/cli/context.h"
#include "lockstep/v1/run.pb.h"

namespace lockstep::cli {

// Turns a run's snapshots into the lines worth keeping: changes of state with their reasons,
// evaluations, checkpoints, limits that come near and ranks that hold the others up, each once;
// and, away from a terminal, progress now and then. Pure.
class Narrator {
 public:
  struct Options {
    bool name_runs = false;  // Several runs: each line says which.
    bool color = false;
    bool plain_progress = false;
    double progress_every_seconds = 5;
  };
  explicit Narrator(Options options) : options_(options) {}

  /// `now` in seconds on any clock; `clock` is put in front of each line.
  std::vector<std::string> Tell(const v1::Run& run, double now, const std::string& clock);

 private:
  struct Told;
  std::vector<std::string> TellTrouble(const v1::Run& run, double now, Told& told) const;

  struct Told {
    v1::RunState state = v1::RUN_STATE_UNSPECIFIED;
    std::string reason;
    int attempt = 0;
    int64_t evaluated_step = -1;
    int64_t checkpoint_step = -1;
    std::string checkpoint_error;
    int warned_percent = 0;
    int straggler = -1;
    std::string straggler_cause;
    double straggler_at = -1e300;
    int64_t progress_step = -1;
    double progress_at = -1e300;
  };
  Options options_;
  std::map<std::string, Told> told_;
};

// SIGINT, SIGTERM and SIGHUP as something to poll. They are blocked from construction on, in this
// thread and in those it starts later, so make it before the first call to the coordinator.
class Interrupts {
 public:
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;
  int fd() const { return fd_; }
  int Take();  // The signal's number; 0 = none.

 private:
  int fd_;
};

struct FollowOptions {
  bool quiet = false;          // Say nothing until the end (`wait`).
  bool discover = false;       // Runs that start later are followed too (`watch` of all).
  double give_up_seconds = 0;  // 0 = never; DEADLINE_EXCEEDED after it.
};

struct Followed {
  std::vector<v1::Run> runs;  // As last seen.
  int signal = 0;             // Ended by this signal.
  bool reader_gone = false;   // Nobody reads the answer any more.
  absl::Status status;        // Why following ended before the runs did.
};

/// Follows `runs` until all are over: ended, or paused for good because the budget is used up. At
/// most 32 at a time: which others there are is said, and they come as those end.
Followed Follow(Context& context, Interrupts& interrupts, const std::vector<v1::Run>& runs,
                const FollowOptions& options);

/// What a person wants to know at the end: outcome, accuracy, speed, cost, where it lies.
std::string Summary(const v1::Run& run, bool color);
/// 0 completed, 1 failed, 8 budget, 9 stopped.
config::ExitCode Outcome(const v1::Run& run);

}  // namespace lockstep::cli
