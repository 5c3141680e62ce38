// Everything the Prometheus endpoint shows, as plain data. The coordinator fills one at each
// scrape; metrics/families.h turns it into families. Values are totals over a run's whole life, so
// they continue over attempts and over restarts of the daemon.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "config/rank_board.h"
#include "metrics/devices/gpu_reading.h"
#include "metrics/ledger.h"

namespace lockstep::metrics {

// Upper bounds of run_step_duration_seconds, log-spaced 1 ms to 60 s; the last bucket is +Inf.
inline constexpr std::array<double, 11> kStepBuckets = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3,
                                                        1,     3,     10,   30,   60};

// Upper bounds of what the daemon itself does (an RPC, a transaction); the last bucket is +Inf.
inline constexpr std::array<double, 8> kServiceBuckets = {0.0005, 0.002, 0.01, 0.05,
                                                          0.25,   1,     5,    30};

struct Histogram {
  std::vector<uint64_t> counts;  // Per bucket, not cumulative; bounds + 1 of them.
  double sum = 0;
};

/// Counts `value` in its bucket; `bounds` are those of all counts of this histogram.
inline void Observe(Histogram& histogram, std::span<const double> bounds, double value) {
  histogram.counts.resize(bounds.size() + 1);
  const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), value) - bounds.begin();
  ++histogram.counts[static_cast<size_t>(bucket)];
  histogram.sum += value;
}

struct RankSample {
  int rank = 0;
  double straggler_wait_seconds = 0;
  int64_t slowest_steps = 0;
  double last_heartbeat_timestamp_seconds = 0;  // Unix.
};

// The rank that the others wait for, and why (launch/coordinator/straggler.h).
struct StragglerSample {
  int rank = -1;      // -1 = no rank stands out.
  double ratio = 0;   // Of the last steps, in which it came last.
  std::string cause;  // A fixed word.
};

struct RunSample {
  std::string run, name, model, dataset, config_hash;
  int world_size = 0;
  int64_t samples = 0;
  int64_t steps = 0;
  double epoch = 0;
  double progress_ratio = 0;
  double eta_timestamp_seconds = 0;        // Unix; 0 = unknown.
  double last_step_timestamp_seconds = 0;  // Unix.
  Histogram step_duration;
  Histogram allreduce_duration;
  int64_t allreduce_bytes = 0;
  std::vector<RankSample> ranks;
  bool has_accuracy = true;  // False where what is learnt are numbers.
  bool has_train = false;    // The loss of a step is known; the next ones are of the newest step.
  double train_loss = 0, train_accuracy_ratio = 0;
  bool has_eval = false;
  double eval_loss = 0, eval_accuracy_ratio = 0;
  double learning_rate = 0, gradient_norm = 0;  // With has_train.
  int64_t nonfinite_steps = 0;
  Histogram checkpoint_write_duration;
  int64_t checkpoint_writes_ok = 0, checkpoint_writes_error = 0;
  int64_t checkpoint_last_size_bytes = 0, checkpoint_last_success_step = 0;
  double checkpoint_last_success_timestamp_seconds = 0;
  std::map<std::string, int64_t>
      restarts;  // By reason: rank_crash, hang, oom, nonfinite, gpu_fault, coordinator, user.
  int64_t lost_steps = 0;
  Histogram recovery_duration;
  Account::Totals spent;         // Seconds, joules and money by phase.
  double projected_cost = -1;    // At the end; negative = unknown.
  double max_cost = 0;           // 0 = no limit.
  double budget_remaining = 0;   // Of max_cost; negative = overspent.
  double limit_ratio = 0;        // Share of the nearest limit (cost, energy, time) used up.
  double flops_utilization = 0;  // 0 = unknown.
  double effective_ratio = 0;    // Productive time (steps that count) / wall time; 0 = unknown.
  int64_t loaded_samples = 0;    // Read from the data set, over all ranks.
  int64_t corrupt_samples = 0;   // Replaced by another, likewise.
  StragglerSample straggler;
  bool live = false;  // Not ended.
};

// A GPU that a run holds.
struct GpuHolder {
  int gpu = 0;  // As in GpuReading.
  std::string run;
  int rank = 0;
};

// Versions of this build; empty what it does without.
struct BuildInfo {
  std::string version;
  std::string git_sha;
  std::string torch;
  std::string nccl;
};

struct Snapshot {
  BuildInfo build;
  double start_time_seconds = 0;                 // Unix.
  std::map<std::string, int64_t> runs_by_state;  // Lower-case state name; every state is present.
  std::map<std::pair<std::string, std::string>, int64_t> transitions;  // Each that can be.
  int slots = 0, free_slots = 0;
  int64_t queue_depth = 0;
  double queue_oldest_wait_seconds = 0;
  std::string currency;
  std::vector<RunSample> runs;  // Live runs and the last five that ended.
  std::map<std::pair<std::string, std::string>, int64_t> rpcs_handled;  // (method, code)
  std::map<std::string, Histogram> rpc_seconds;  // By method, in kServiceBuckets.
  std::map<std::string, int64_t> rpcs_inflight;  // By method.
  int64_t store_errors = 0;
  Histogram store_seconds;                        // Of a transaction, in kServiceBuckets.
  std::map<std::string, int64_t> log_messages;    // By level.
  std::map<std::string, int64_t> watchdog_fired;  // By reason.
  double monthly_budget = 0;                      // 0 = none.
  double month_cost = 0;                          // Of all runs since the month began (UTC).
  double price_per_joule = 0;                     // Now.
  DeviceReadings devices;                         // GPUs and the CPU's energy.
  std::vector<GpuHolder> gpu_holders;
};

}  // namespace lockstep::metrics
