#include "trainer/phase_clock.h"

#include <algorithm>
#include <numeric>

namespace lockstep::trainer {

using config::Phase;

PhaseClock::PhaseClock(config::RankBoard* board, int rank, Trace* trace, int64_t redone_until)
    : board_(board),
      rank_(rank),
      trace_(trace),
      redone_until_(redone_until),
      entered_(ProcessStartSeconds()) {
  Show();
}

Phase PhaseClock::CountsAs(Phase phase) const {
  if (!stepping_ || step_ >= redone_until_) return phase;
  switch (phase) {
    case Phase::kStartup:
    case Phase::kEval:
    case Phase::kCheckpointStall:
    case Phase::kPaused:
    case Phase::kRecovery:
      return phase;
    default:
      return Phase::kRedone;
  }
}

void PhaseClock::Count(Phase phase, double seconds) {
  const Phase counted = CountsAs(phase);
  if (counted != Phase::kAllreduceExposed && counted != Phase::kDevice) {
    seconds_[static_cast<size_t>(counted)] += seconds;
    return;
  }
  if (unsettled_.empty() || unsettled_.back().device_told || unsettled_.back().step != step_) {
    unsettled_.push_back({.step = step_});
  }
  Reduce& reduce = unsettled_.back();
  (counted == Phase::kDevice ? reduce.device_seconds : reduce.allreduce_seconds) += seconds;
}

void PhaseClock::Enter(Phase phase) {
  const double now = MonotonicSeconds();
  if (trace_ != nullptr) trace_->Phase(config::PhaseName(phase_), entered_, now);
  Count(phase_, now - entered_);
  entered_ = now;
  phase_ = phase;
  Show();
}

void PhaseClock::SetStep(int64_t step) {
  // What passed since the phase was entered belongs to the step before.
  Enter(phase_);
  step_ = step;
  stepping_ = true;
  if (trace_ != nullptr) trace_->AtStep(step, entered_);
}

void PhaseClock::Settle(const Reduce& reduce, double waited_seconds) {
  double in_reduce = reduce.allreduce_seconds;
  double known = 0;
  for (size_t phase = 0; phase < reduce.shares.size(); ++phase) {
    const double seconds = reduce.shares[phase] * reduce.device_seconds;
    known += seconds;
    (phase == static_cast<size_t>(Phase::kAllreduceExposed) ? in_reduce : seconds_[phase]) +=
        seconds;
  }
  const double waited = std::clamp(waited_seconds, 0.0, in_reduce);
  seconds_[static_cast<size_t>(Phase::kStragglerWait)] += waited;
  seconds_[static_cast<size_t>(Phase::kAllreduceExposed)] += in_reduce - waited;
  seconds_[static_cast<size_t>(Phase::kDevice)] += std::max(reduce.device_seconds - known, 0.0);
}

void PhaseClock::SettleReduce(int64_t step, double waited_seconds) {
  while (!unsettled_.empty() && unsettled_.front().step <= step) {
    const Reduce& reduce = unsettled_.front();
    Settle(reduce, reduce.step == step ? waited_seconds : 0);
    unsettled_.pop_front();
  }
}

void PhaseClock::TellDevice(int64_t step,
                            const std::array<double, config::kPhaseCount>& phase_seconds) {
  Enter(phase_);  // The wait may be under way.
  Reduce told{.step = step, .device_told = true, .shares = phase_seconds};
  while (!unsettled_.empty() && !unsettled_.back().device_told) {
    told.allreduce_seconds += unsettled_.back().allreduce_seconds;
    told.device_seconds += unsettled_.back().device_seconds;
    unsettled_.pop_back();
  }
  const double all = std::accumulate(phase_seconds.begin(), phase_seconds.end(), 0.0);
  for (double& share : told.shares) share = all > 0 ? share / all : 0;
  unsettled_.push_back(told);
}

void PhaseClock::SettleAll() {
  Enter(phase_);
  for (const Reduce& reduce : unsettled_) Settle(reduce, 0);
  unsettled_.clear();
  Show();
}

void PhaseClock::Show() {
  if (board_ == nullptr) return;
  board_->Set(rank_, step_, phase_);
  config::RankTime time;
  time.open_phase = CountsAs(phase_);
  time.entered_seconds = entered_;
  for (const Reduce& reduce : unsettled_) {
    time.unsettled_seconds += reduce.allreduce_seconds + reduce.device_seconds;
  }
  time.phase_seconds = seconds_;
  board_->SetTime(rank_, time);
}

std::array<double, config::kPhaseCount> PhaseClock::Seconds() const {
  auto seconds = seconds_;
  for (const Reduce& reduce : unsettled_) {
    seconds[static_cast<size_t>(Phase::kAllreduceExposed)] += reduce.allreduce_seconds;
    seconds[static_cast<size_t>(Phase::kDevice)] += reduce.device_seconds;
  }
  seconds[static_cast<size_t>(CountsAs(phase_))] += MonotonicSeconds() - entered_;
  return seconds;
}

double PhaseClock::WallSeconds() const {
  const auto seconds = Seconds();
  return std::accumulate(seconds.begin(), seconds.end(), 0.0);
}

}  // namespace lockstep::trainer
