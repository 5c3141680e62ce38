// What a run writes for TensorBoard, by tag:
//
//   per logged step    loss/train, SCORE/train, learning_rate, gradient_norm,
//                      throughput/samples_per_second, time/checkpoint_stall_seconds,
//                      time/phase/NAME: the phase's share of the time since the logged step before
//   every 100 steps or more                    time/step_seconds: a histogram of the steps since
//   the
//                                              one before
//   per epoch          loss/train_epoch, SCORE/train_epoch: means over the epoch
//   per evaluation     loss/val, SCORE/val for each score, confusion_matrix/val: a picture
//   once               run_yaml: the resolved config
//
// The step of a point is the number of steps done, as in metrics.jsonl. Rank 0 only.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "config/rank_board.h"
#include "trainer/tensorboard/duration_histogram.h"
#include "trainer/tensorboard/event_log.h"

namespace lockstep::trainer {

struct TrainingEventsOptions {
  std::string score;  // Of the steps.
  std::vector<std::string> classes;
  int64_t log_every_steps = 10;
  std::string run_yaml;
};

// What all ranks agreed on.
struct LoggedStep {
  int64_t step = 0;  // Steps done.
  double loss = 0;
  double score = 0;
  double learning_rate = 0;
  double gradient_norm = 0;
};

class TrainingEvents {
 public:
  using PhaseSeconds = std::array<double, config::kPhaseCount>;

  /// `from` and `step`: see EventLog.
  TrainingEvents(const std::filesystem::path& folder, const EventPosition& from, int64_t step,
                 TrainingEventsOptions options, std::function<void(const std::string&)> warn);

  /// Each step.
  void Timing(double step_seconds, int64_t samples);
  /// Each logged one; `phases` are this attempt's seconds in each phase until now.
  void Step(const LoggedStep& logged, const PhaseSeconds& phases);
  void Epoch(int64_t step, double loss, double score);
  /// `confusion` is [classes, classes], true class major, or empty.
  void Evaluation(int64_t step, double loss, std::span<const std::pair<std::string, double>> scores,
                  std::span<const int64_t> confusion);

  EventPosition Flush() { return log_.Flush(); }
  void Sync() const { log_.Sync(); }  // From any thread.

 private:
  TrainingEventsOptions options_;
  EventLog log_;
  int64_t histogram_every_steps_;
  const std::string score_tag_;
  std::array<std::string, config::kPhaseCount> phase_tags_;
  Summary summary_;  // Of logged steps, for its memory.
  DurationHistogram step_seconds_;
  // Since the logged step before.
  double seconds_ = 0;
  int64_t samples_ = 0;
  double samples_per_second_ = 0;  // The newest that is known.
  PhaseSeconds phases_{};          // As they were there.
};

}  // namespace lockstep::trainer
