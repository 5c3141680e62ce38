#include "trainer/phase_clock.h"

namespace lockstep::trainer {

PhaseClock::PhaseClock(config::RankBoard* board, int rank, Trace* trace)
    : board_(board), rank_(rank), trace_(trace), entered_(ProcessStartSeconds()) {
  if (board_ != nullptr) board_->Set(rank_, step_, phase_);
}

void PhaseClock::Enter(config::Phase phase) {
  const double now = MonotonicSeconds();
  if (trace_ != nullptr) trace_->Phase(config::PhaseName(phase_), entered_, now);
  seconds_[static_cast<size_t>(phase_)] += now - entered_;
  entered_ = now;
  phase_ = phase;
  if (board_ != nullptr) board_->Set(rank_, step_, phase);
}

void PhaseClock::SetStep(int64_t step) {
  step_ = step;
  if (trace_ == nullptr) return;
  const double now = MonotonicSeconds();
  trace_->Phase(config::PhaseName(phase_), entered_, now);
  trace_->AtStep(step, now);
}

std::array<double, config::kPhaseCount> PhaseClock::Seconds() const {
  auto seconds = seconds_;
  seconds[static_cast<size_t>(phase_)] += MonotonicSeconds() - entered_;
  return seconds;
}

double PhaseClock::WallSeconds() const {
  double sum = 0;
  for (const double s : Seconds()) sum += s;
  return sum;
}

}  // namespace lockstep::trainer
