// What a run needs besides tensors to go on from a checkpoint: the contents of state.json.
//
// Written with every digit, so that a value read back is the same double. Keys are only ever added;
// a reader takes the default for one it does not find, so that an old checkpoint stays readable.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "config/run_config.h"
#include "trainer/tensorboard/event_log.h"

namespace lockstep::trainer {

struct EvaluationResult {
  int64_t step = 0;
  double epoch = 0;
  double loss = 0;
  std::vector<std::pair<std::string, double>> scores;  // As MeasureResult's; ratios, not percent.
  int64_t samples = 0;
  double seconds = 0;

  /// "loss" or a score; NaN when there is none of that name.
  double Score(const std::string& name) const;
};

// What checkpoint.best_metric means.
struct BestMetric {
  std::string name;  // "loss" or a score: "top1".
  bool higher_is_better = true;

  /// By more than `by`. Whatever is not a number is worse than anything.
  bool Better(const EvaluationResult& a, const EvaluationResult& b, double by = 0) const;
};
BestMetric BestMetricOf(const config::RunConfig& config);

struct TrainingState {
  int64_t step = 0;    // Steps done; also the position in the data: step * global_batch samples.
  double seconds = 0;  // Wall time of all attempts up to here.
  int64_t metrics_bytes = 0;        // Length of metrics.jsonl that belongs to this state.
  EventPosition events;             // Likewise of the event files.
  bool evaluation_pending = false;  // The evaluation that is due at this step has not been made.

  double epoch_loss_sum = 0;  // Of the steps since the last epoch row.
  double epoch_score_sum = 0;
  double epoch_samples = 0;
  int nonfinite_in_a_row = 0;

  std::optional<EvaluationResult> last_evaluation;
  std::optional<EvaluationResult> best_evaluation;
  int evaluations_without_better = 0;  // In a row: for early stopping.
  int evaluations_on_plateau = 0;      // Likewise, since the learning rate was last lowered.
  double plateau_factor = 1;           // What the schedule's learning rate is multiplied by.
  std::string ended_early;             // Why; empty = not.

  // What the position and the tensors mean; a resume with other values is refused.
  uint64_t seed = 0;
  int64_t global_batch = 0;
  int64_t dataset_size = 0;
  std::string model;
  int num_classes = 0;
  int world_size = 0;  // Of the attempt that wrote it. Another one may go on.
  std::string card;    // A ModelCard as JSON, for whoever uses the weights.

  std::string ToJson() const;
  static absl::StatusOr<TrainingState> FromJson(const std::string& text);

  /// INVALID_ARGUMENT with every difference between what the checkpoint is of and what `now` is
  /// about to train.
  absl::Status CheckSameRun(const TrainingState& now) const;
};

}  // namespace lockstep::trainer
