// A snapshot in which every field has a value, as a run in its middle would leave it; moved along
// by `seconds`, so that rates over a scraped series are not zero.
#pragma once

#include <cstdint>
#include <string>

#include "metrics/pricing.h"
#include "metrics/snapshot.h"

namespace lockstep::metrics {

inline Histogram SampleHistogram(double seconds, double mean) {
  Histogram histogram;
  histogram.counts.assign(kStepBuckets.size() + 1, 0);
  for (size_t i = 0; i < histogram.counts.size(); ++i) {
    histogram.counts[i] = static_cast<uint64_t>((i + 1) * (1 + seconds));
    histogram.sum += mean * static_cast<double>(histogram.counts[i]);
  }
  return histogram;
}

/// `since_start` seconds after the daemon's start at Unix time `start`.
inline RunSample SampleRun(const std::string& id, int ranks, double start, double since_start) {
  RunSample run;
  run.run = id;
  run.name = "cifar10-resnet18";
  run.model = "resnet18";
  run.dataset = "cifar10";
  run.config_hash = "0123abcd";
  run.world_size = ranks;
  run.steps = 100 + static_cast<int64_t>(10 * since_start);
  run.samples = run.steps * 512;
  run.epoch = static_cast<double>(run.samples) / 50000;
  run.progress_ratio = 0.25;
  run.eta_timestamp_seconds = start + since_start + 600;
  run.last_step_timestamp_seconds = start + since_start;
  run.step_duration = SampleHistogram(since_start, 0.1);
  for (size_t i = 0; i < run.phase_seconds.size(); ++i) {
    run.phase_seconds[i] = static_cast<double>(i + 1) + 0.05 * since_start;
  }
  run.allreduce_duration = SampleHistogram(since_start, 0.01);
  run.allreduce_bytes = run.steps * 44'700'000;
  for (int rank = 0; rank < ranks; ++rank) {
    run.ranks.push_back(
        {rank, 0.01 * (rank + 1) * since_start, run.steps / ranks, start + since_start});
  }
  run.train_loss = 1.5 / (1 + since_start);
  run.train_accuracy_ratio = 0.6;
  run.has_eval = true;
  run.eval_loss = 1.4;
  run.eval_accuracy_ratio = 0.62;
  run.learning_rate = 0.4;
  run.gradient_norm = 2.5;
  run.nonfinite_steps = 1;
  run.checkpoint_write_duration = SampleHistogram(since_start, 0.2);
  run.checkpoint_writes_ok = 3;
  run.checkpoint_writes_error = 1;
  run.checkpoint_last_size_bytes = 89'000'000;
  run.checkpoint_last_success_step = 100;
  run.checkpoint_last_success_timestamp_seconds = start;
  run.restarts = {{"rank_crash", 1}};
  run.lost_steps = 7;
  run.recovery_duration = SampleHistogram(0, 2);
  config::PriceConfig price;
  price.per_rank_hour = 0.05;
  run.cost_by_phase = CostByPhase(price, ranks, run.phase_seconds);
  for (double cost : run.cost_by_phase) run.cost_total += cost;
  return run;
}

inline Snapshot SampleSnapshot(int ranks, int ended_runs, double start, double since_start) {
  Snapshot snapshot;
  snapshot.version = "0.1.0";
  snapshot.git_sha = "abcdef0";
  snapshot.torch = "2.11.0";
  snapshot.start_time_seconds = start;
  snapshot.runs_by_state = {{"running", 1}, {"completed", ended_runs}};
  snapshot.transitions = {{{"queued", "starting"}, 1 + ended_runs},
                          {{"starting", "running"}, 1 + ended_runs},
                          {{"running", "completed"}, ended_runs}};
  snapshot.queue_depth = 2;
  snapshot.queue_oldest_wait_seconds = 30;
  snapshot.currency = "USD";
  snapshot.rpcs_handled = {{{"Submit", "OK"}, 3}, {{"Get", "NOT_FOUND"}, 1}};
  snapshot.watchdog_fired = {{"stopped", 1}};
  snapshot.runs.push_back(SampleRun("live", ranks, start, since_start));
  for (int i = 0; i < ended_runs; ++i) {
    snapshot.runs.push_back(SampleRun("ended" + std::to_string(i), ranks, start, 0));
  }
  return snapshot;
}

}  // namespace lockstep::metrics
