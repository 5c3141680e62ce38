// What a run tells the world, from rank 0: rows in metrics.jsonl, points in TensorBoard's event
// files, progress to the coordinator, lines on the terminal, result.json at the end. Telling must
// never stop training: only metrics.jsonl, which a resume continues, can fail.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "config/exit_code.h"
#include "config/run_config.h"
#include "config/run_directory.h"
#include "trainer/link/coordinator_link.h"
#include "trainer/overflows.h"
#include "trainer/phase_clock.h"
#include "trainer/step/agreement.h"
#include "trainer/tensorboard/training_events.h"
#include "trainer/training_state.h"

namespace lockstep::trainer {

struct ReportOptions {
  int world_size = 1;
  int64_t total_steps = 0;   // 0 = the run's length is a wall time.
  double total_seconds = 0;  // Of a run whose length is a wall time.
  double steps_per_epoch = 1;
  int64_t log_every_steps = 10;
  std::string score;        // Name of what the ranks sum up beside the loss.
  bool terminal = true;     // Print progress lines.
  bool loss_scale = false;  // Of float16: overflows are how it is found (trainer/overflows.h).
  std::optional<TrainingEventsOptions> tensorboard;  // Nothing: no event files.
};

class Report {
 public:
  /// `link` may be null. Both references outlive the report.
  Report(const config::RunDirectory& directory, const PhaseClock& clock, CoordinatorLink* link,
         ReportOptions options);
  ~Report();
  Report(const Report&) = delete;
  Report& operator=(const Report&) = delete;

  /// Opens metrics.jsonl and the event files and cuts off what is beyond `state`: rows and points
  /// of steps that will be made again.
  absl::Status Open(const TrainingState& state);

  /// One agreed step: adds it to the totals and writes its row if it is one to be logged.
  void Step(const StepSummary& summary, double learning_rate);
  /// Timings of a step just made; `allreduce_bytes` are what this rank sent through the
  /// communicator. How long that took the host of a GPU does not know: it only enqueues it.
  void Timing(double step_seconds, std::optional<double> allreduce_seconds, int64_t allreduce_bytes,
              int64_t samples);
  /// From now on: what a sample's step would take at all devices' peak; 0 = not known.
  void SampleSecondsAtPeak(double seconds) { sample_seconds_at_peak_ = seconds; }
  void Epoch(int64_t step, int64_t epochs_done, const TrainingState& state);
  /// `confusion` is [classes, classes], true class major, or empty.
  void Evaluation(const EvaluationResult& result, const TrainingState& state,
                  std::span<const int64_t> confusion);
  void Checkpoint(const CheckpointReport& checkpoint);
  /// What data.on_bad_sample: skip leaves out, for result.json.
  void Skipped(std::vector<std::string> samples) { skipped_ = std::move(samples); }
  /// How often another sample was read in place of one that went bad meanwhile; likewise.
  void Replaced(int64_t samples) { replaced_ = samples; }
  /// From now on with each report.
  void FeatureCache(const FeatureCacheReport& cache) { progress_.feature_cache = cache; }
  void Held(bool held, int64_t step, const std::string& reason);
  void Say(const std::string& line);

  /// Sends where the run is. Called with each step; the link is told at most fifty times a
  /// second and sends at most ten.
  void Progress(const TrainingState& state);

  /// Hands all rows and points to the kernel and writes into `state` how far the files belong to
  /// it.
  void Flush(TrainingState& state);
  /// Makes them durable; the points only where that can be done.
  absl::Status SyncMetrics();

  absl::Status Result(const TrainingState& state, config::TrainerExit exit,
                      const std::string& reason, int attempt);
  void Goodbye(const TrainingState& state, config::TrainerExit exit, const std::string& reason);

  double ElapsedSeconds() const { return seconds_before_ + clock_.WallSeconds(); }

 private:
  void FlushMetrics();
  void Row(const std::string& json);
  void StepRow(int64_t step, double loss, double learning_rate, int64_t samples);
  ProgressReport Fill(int64_t step);
  /// Before anything that speaks of a step, so that nobody sees the run at an earlier one after it.
  void TellProgress();
  double EpochOf(int64_t step) const;

  const config::RunDirectory& directory_;
  const PhaseClock& clock_;
  CoordinatorLink* link_;
  ReportOptions options_;
  int metrics_fd_ = -1;
  int64_t metrics_bytes_ = 0;
  std::string buffer_;
  std::atomic<int> metrics_errno_{
      0};  // Of the last failed write; the checkpoint writer's thread reads it.
  std::optional<TrainingEvents> events_;
  double seconds_before_ = 0;  // Of the attempts before this one.
  ProgressReport progress_;
  Overflows overflows_;
  struct Mark {
    double at;
    int64_t samples;
    int64_t steps;
  };
  std::deque<Mark> recent_;  // The last ten seconds: throughput and ETA.
  double sample_seconds_at_peak_ = 0;
  double last_line_ = 0;
  double told_at_ = 0;
  std::vector<std::string> skipped_;
  int64_t replaced_ = 0;
};

}  // namespace lockstep::trainer
