// The learning rate of a step, a pure function of (config, total steps, steps per epoch, step).
#pragma once

#include <cstdint>

#include "config/run_config.h"

namespace lockstep::trainer {

class Schedule {
 public:
  /// `total_steps` may be 0 when the run's length is a wall time; cosine is refused then by config
  /// validation.
  Schedule(const config::ScheduleConfig& schedule, double base_learning_rate, int64_t total_steps,
           double steps_per_epoch);

  /// step is 0-based. Warm-up is linear: step s of w has (s + 1) / w of the base rate. After it:
  /// step counts its periods from the start of training, warm-up included; cosine falls from base
  /// at the first step after warm-up and would reach base * final_ratio at step `total_steps`, one
  /// after the last (as PyTorch's CosineAnnealingLR, so that with final_ratio 0 no step is wasted).
  double LearningRate(int64_t step) const;

 private:
  config::ScheduleConfig schedule_;
  double base_ = 0;
  int64_t total_steps_ = 0;
  double steps_per_epoch_ = 1;
  int64_t warmup_steps_ = 0;
};

/// Steps that `duration` covers (rounded up, at least 1 unless it is zero); 0 for wall times.
int64_t StepsOf(const config::Duration& duration, double steps_per_epoch);

}  // namespace lockstep::trainer
