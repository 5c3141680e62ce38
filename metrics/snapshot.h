// Everything the Prometheus endpoint shows, as plain data. The coordinator fills one at each
// scrape; metrics/families.h turns it into families. Values are totals over a run's whole life, so
// they continue over attempts and over restarts of the daemon.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "config/rank_board.h"

namespace lockstep::metrics {

// Upper bounds of run_step_duration_seconds, log-spaced 1 ms to 60 s; the last bucket is +Inf.
inline constexpr std::array<double, 11> kStepBuckets = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3,
                                                        1,     3,     10,   30,   60};

struct Histogram {
  std::vector<uint64_t> counts;  // Per bucket, not cumulative; bounds + 1 of them.
  double sum = 0;
};

struct RankSample {
  int rank = 0;
  double straggler_wait_seconds = 0;
  int64_t slowest_steps = 0;
  double last_heartbeat_timestamp_seconds = 0;  // Unix.
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
  std::array<double, config::kPhaseCount> phase_seconds{};
  Histogram allreduce_duration;
  int64_t allreduce_bytes = 0;
  std::vector<RankSample> ranks;
  bool has_accuracy = true;  // False where what is learnt are numbers.
  double train_loss = 0, train_accuracy_ratio = 0;
  bool has_eval = false;
  double eval_loss = 0, eval_accuracy_ratio = 0;
  double learning_rate = 0, gradient_norm = 0;
  int64_t nonfinite_steps = 0;
  Histogram checkpoint_write_duration;
  int64_t checkpoint_writes_ok = 0, checkpoint_writes_error = 0;
  int64_t checkpoint_last_size_bytes = 0, checkpoint_last_success_step = 0;
  double checkpoint_last_success_timestamp_seconds = 0;
  std::map<std::string, int64_t>
      restarts;  // By reason: rank_crash, hang, oom, nonfinite, coordinator, user.
  int64_t lost_steps = 0;
  Histogram recovery_duration;
  double cost_total = 0;
  std::array<double, config::kPhaseCount> cost_by_phase{};
};

struct Snapshot {
  std::string version, git_sha, torch;
  double start_time_seconds = 0;                 // Unix.
  std::map<std::string, int64_t> runs_by_state;  // Lower-case state name; every state is present.
  std::map<std::pair<std::string, std::string>, int64_t> transitions;
  int64_t queue_depth = 0;
  double queue_oldest_wait_seconds = 0;
  std::string currency;
  std::vector<RunSample> runs;  // Live runs and the last five that ended.
  std::map<std::pair<std::string, std::string>, int64_t> rpcs_handled;  // (method, code)
  int64_t store_errors = 0;
  std::map<std::string, int64_t> watchdog_fired;  // By reason.
};

}  // namespace lockstep::metrics
