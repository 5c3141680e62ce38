// What a run tells the coordinator, and what it is told: plain structs without protobuf, so that
// the step loop, which includes LibTorch, can fill them. Fields mean what
// proto/lockstep/v1/run.proto says of them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/rank_board.h"

namespace lockstep::trainer {

struct HistogramReport {
  std::vector<uint64_t> counts;  // Per bucket of metrics/snapshot.h, not cumulative.
  double sum = 0;
};

struct StragglerReport {
  int rank = 0;
  double wait_seconds = 0;
  int64_t slowest_steps = 0;
};

struct ScoreReport {
  std::string name;
  double value = 0;
};

struct FeatureCacheReport {
  bool reused = false;
  double computed_seconds = 0;
  double saved_seconds = 0;
};

struct EvaluationReport {
  int64_t step = 0;
  double epoch = 0;
  double loss = 0;
  std::vector<ScoreReport> scores;
  int64_t samples = 0;
  double seconds = 0;
};

struct CheckpointReport {
  int64_t step = 0;
  int64_t bytes = 0;
  double write_seconds = 0;
  double stall_seconds = 0;
  bool ok = false;
  std::string error;
  std::string path;
};

// Counters are totals since the start of the attempt.
struct ProgressReport {
  int64_t step = 0;
  double epoch = 0;
  int64_t total_steps = 0;
  int64_t samples = 0;
  int64_t steps = 0;
  double loss = 0;
  ScoreReport score;
  double learning_rate = 0;
  double gradient_norm = 0;
  std::array<double, config::kPhaseCount> phase_seconds{};
  HistogramReport step_duration;
  HistogramReport allreduce_duration;
  int64_t allreduce_bytes = 0;
  std::vector<StragglerReport> ranks;
  int64_t nonfinite_steps = 0;
  double samples_per_second = 0;
  double eta_seconds = -1;  // Negative = unknown.
  std::optional<EvaluationReport> last_evaluation;
  std::optional<EvaluationReport> best_evaluation;
  int64_t first_step = 0;
  double wall_seconds = 0;
  bool held = false;
  double flops_utilization = 0;
  std::optional<FeatureCacheReport> feature_cache;
};

struct Order {
  enum Kind { kPause, kHold, kResume, kCheckpoint, kStop };
  std::string id;
  Kind kind = kCheckpoint;
  std::string reason;
};

}  // namespace lockstep::trainer
