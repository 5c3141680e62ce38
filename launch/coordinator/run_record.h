// A run as the coordinator knows it: what was submitted, where it is, and what it has used. Plain
// values; the coordinator changes them, the store keeps them, the service shows them.
//
// Times named `_at` are CLOCK_MONOTONIC seconds (rebased when the store is read on another boot);
// times named `_unix` are for people.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launch/coordinator/run_state.h"
#include "launch/launcher/launcher.h"
#include "metrics/ledger.h"

namespace lockstep::launch {

struct RestartPolicy {
  int max_restarts = 3;  // Crashes in a row without a newer checkpoint that are still restarted.
  double backoff_seconds = 1;
  double max_backoff_seconds = 60;
  double stall_timeout_seconds = 0;  // 0 = max(60 s, 20 x the p99 step).
};

// Where a run has to end although it is not done.
struct Limits {
  double max_seconds = 0;  // Of slots held; 0 = no limit, likewise below.
  double max_cost = 0;     // In the daemon's currency.
  double max_joules = 0;
  bool stop = false;         // At a limit: stop the run. Otherwise it pauses.
  double gain_per_cost = 0;  // Percent of the metric that a unit of the currency must buy.
  std::string metric;        // Name of a score, or "loss".

  bool operator==(const Limits&) const = default;
};

// Limits that a person sets anew. What is there takes the place of the run's own, for all that it
// has used and will; 0 = no limit.
struct LimitChanges {
  std::optional<double> max_seconds = {};
  std::optional<double> max_cost = {};
  std::optional<double> max_joules = {};
  bool empty() const { return !max_seconds && !max_cost && !max_joules; }
};

struct RunSpec {
  std::string id;
  std::string name;
  std::string run_dir;
  std::string submitted_by;
  std::string config_yaml;  // Resolved.
  std::string config_hash;
  std::string model;
  std::string dataset;
  int ranks = 1;
  int priority = 0;
  bool external = false;  // Started by a user under mpirun: takes orders, is never restarted.
  double submitted_unix = 0;
  RestartPolicy restart;
  Limits limits;
};

enum class OrderKind : int { kPause, kHold, kResume, kCheckpoint, kStop, kKill };
const char* OrderName(OrderKind kind);

// Outstanding until it is finished, exactly once. Orders that the ranks must carry out are sent to
// them, again after each reconnect.
struct Order {
  std::string id;
  OrderKind kind = OrderKind::kPause;
  std::string reason;
  bool to_ranks = false;
  double issued_at = 0;
};

struct CheckpointFacts {
  int64_t step = 0;
  int64_t bytes = 0;
  double write_seconds = 0;
  double stall_seconds = 0;
  bool ok = false;
  std::string error;
  std::string path;
  double at_unix = 0;
  int64_t cost_micros = 0;  // Of the run until then.
};

// What an evaluation said of the metric of Limits, and what the run had cost by then.
struct MetricPoint {
  int64_t step = 0;
  double value = 0;
  int64_t cost_micros = 0;
};

// What the ranks read from the data set, over all of them.
struct DataRead {
  int64_t samples = 0;
  int64_t replaced = 0;  // Of them, in the place of bad ones.
};

// What a checkpoint had cost.
struct CheckpointCost {
  int64_t step = 0;
  int64_t micros = 0;
};

// A rank process of an external run; the launcher knows those of the others.
struct RankProcess {
  int64_t pid = 0;
  uint64_t start_time_ticks = 0;
};

// What a rank told that it computes on.
struct RankDevice {
  std::string name;        // Of its GPU; empty = the CPU.
  std::string uuid;        // Likewise.
  bool elsewhere = false;  // On another host than the coordinator's: nobody here meters it.
};

struct Run {
  RunSpec spec;
  RunState state = RunState::kQueued;
  std::string reason;        // Why it is in this state, for a person.
  uint64_t number = 0;       // Counts runs in order of submission.
  uint64_t queue_order = 0;  // Counts entries into the queue.
  int64_t sequence = 0;      // Grows with every change.

  // The newest attempt. `gang.pid` is 0 between the decision to launch and the launcher's answer.
  int attempt = 0;
  std::string token;
  bool has_processes = false;
  std::vector<int> slots;  // Numbers of the slots that the newest attempt was given, ascending.
  Gang gang;
  std::vector<RankProcess> rank_processes;  // External runs only.
  std::vector<RankDevice> rank_devices;     // By rank; empty = not told.
  bool held = false;                        // The processes stand still.
  bool has_goodbye = false;
  int goodbye_exit = 0;
  std::string goodbye_reason;
  std::string kill_reason;  // Why the coordinator killed the gang; empty = it did not.
  bool hang = false;        // Killed by the watchdog.

  std::vector<Order> orders;

  int64_t step = 0;                 // Newest that is known.
  int progress_attempt = 0;         // Whose progress is stored with the run.
  int64_t failed_step = 0;          // Where the last crashed attempt was; 0 = none open.
  int64_t settled_step = 0;         // After which the last pause or stop took effect.
  CheckpointFacts last_checkpoint;  // The newest good one.
  // Step and success of the last one that this attempt told of.
  std::pair<int64_t, bool> told_checkpoint{-1, false};
  int crashes_in_a_row = 0;
  int restarts = 0;
  double retry_at = 0;           // Recovering: when to launch again. 0 = once the gang is gone.
  double recovery_began_at = 0;  // 0 = not recovering.

  double started_unix = 0;
  double ended_unix = 0;
  double queued_at = 0;

  metrics::Account account;
  std::vector<CheckpointCost> checkpoint_costs;  // By step; the newest ones.
  std::vector<MetricPoint> metric_points;        // By step; the newest ones.
  int warned_percent = 0;                        // Of its nearest limit; 0, 80 or 95.
  std::map<std::string, int64_t> restarts_by_reason;
  int64_t lost_steps = 0;
  DataRead read_before;  // By the attempts before `read_attempt`,
  DataRead read;         // and by that one.
  int read_attempt = 0;
  int64_t checkpoints_ok = 0;
  int64_t checkpoints_failed = 0;
  // Counts per bucket in the bounds of metrics/snapshot.h, and sums.
  std::vector<uint64_t> checkpoint_write_counts;
  double checkpoint_write_sum = 0;
  std::vector<uint64_t> recovery_counts;
  double recovery_sum = 0;

  /// Holds slots of the daemon.
  bool holds_slots() const {
    return !spec.external && (has_processes || state == RunState::kRecovering);
  }
};

/// JSON text of everything but spec.config_yaml, for the store.
std::string ToJson(const Run& run);
/// The reverse; `shift` is added to every `_at`. Throws std::exception on text that is not ours.
Run RunFromJson(const std::string& text, double shift);

}  // namespace lockstep::launch
