#include "trainer/step/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>

namespace lockstep::trainer {
namespace {

// 30 epochs of 3.3 steps are 99.00000000000001 steps in binary; that is 99, not 100.
constexpr double kRounding = 1e-9;

}  // namespace

int64_t StepsOf(const config::Duration& duration, double steps_per_epoch) {
  if (duration.is_zero() || duration.unit() == config::Duration::Unit::kSeconds) return 0;
  const double steps = duration.unit() == config::Duration::Unit::kEpochs
                           ? duration.count() * steps_per_epoch
                           : duration.count();
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(steps * (1 - kRounding))));
}

Schedule::Schedule(const config::ScheduleConfig& schedule, double base_learning_rate,
                   int64_t total_steps, double steps_per_epoch)
    : schedule_(schedule),
      base_(base_learning_rate),
      total_steps_(total_steps),
      steps_per_epoch_(steps_per_epoch),
      warmup_steps_(StepsOf(schedule.warmup, steps_per_epoch)) {
  if (schedule.kind == config::ScheduleKind::kCosine && total_steps <= 0) {
    throw std::invalid_argument("a cosine schedule needs a length in steps or epochs");
  }
}

double Schedule::LearningRate(int64_t step) const {
  if (step < warmup_steps_) {
    return base_ * static_cast<double>(step + 1) / static_cast<double>(warmup_steps_);
  }
  if (schedule_.kind == config::ScheduleKind::kStep) {
    const double every = schedule_.step_every.unit() == config::Duration::Unit::kEpochs
                             ? schedule_.step_every.count() * steps_per_epoch_
                             : static_cast<double>(StepsOf(schedule_.step_every, steps_per_epoch_));
    if (every <= 0) return base_;
    return base_ * std::pow(schedule_.gamma,
                            std::floor(static_cast<double>(step) / every * (1 + kRounding)));
  }
  if (schedule_.kind == config::ScheduleKind::kCosine) {
    const auto length = static_cast<double>(std::max<int64_t>(1, total_steps_ - warmup_steps_));
    const double done = std::min(1.0, static_cast<double>(step - warmup_steps_) / length);
    const double last = base_ * schedule_.final_ratio;
    return last + (base_ - last) * 0.5 * (1 + std::cos(std::numbers::pi * done));
  }
  return base_;
}

}  // namespace lockstep::trainer
