#include "launch/run_clock.h"

#include <algorithm>
#include <numeric>

namespace lockstep::launch {
namespace {

double& At(PhaseSeconds& phases, config::Phase phase) {
  return phases[static_cast<size_t>(phase)];
}

}  // namespace

double Sum(const PhaseSeconds& phases) {
  return std::accumulate(phases.begin(), phases.end(), 0.0);
}

void RunClock::Switch(Interval next, double now, bool crashed) {
  const double length = std::max(0.0, now - interval_start_);
  switch (interval_) {
    case Interval::kIdle:
      break;
    case Interval::kAttempt: {
      for (size_t i = 0; i < earlier_.size(); ++i) earlier_[i] += reported_[i];
      const double rest = std::max(0.0, length - Sum(reported_));
      // The whole overhead, even where it is more than the rest: it was shown before, and totals
      // must not fall.
      const double startup = has_report_ ? launch_overhead_ : rest;
      At(earlier_, config::Phase::kStartup) += startup;
      At(earlier_, crashed ? config::Phase::kRecovery : config::Phase::kOther) +=
          std::max(0.0, rest - startup);
      break;
    }
    case Interval::kRecovery:
      At(earlier_, config::Phase::kRecovery) += length;
      break;
    case Interval::kPausedFree:
      At(earlier_, config::Phase::kPaused) += length;
      unpaid_ += length;
      break;
  }
  interval_ = next;
  interval_start_ = now;
  reported_.fill(0);
  launch_overhead_ = 0;
  has_report_ = false;
}

void RunClock::Report(const PhaseSeconds& phases, double now) {
  if (interval_ != Interval::kAttempt) return;
  reported_ = phases;
  if (!has_report_) {
    launch_overhead_ = std::max(0.0, now - interval_start_ - Sum(phases));
    has_report_ = true;
  }
}

PhaseSeconds RunClock::Phases(double now) const {
  PhaseSeconds phases = earlier_;
  const double length = std::max(0.0, now - interval_start_);
  switch (interval_) {
    case Interval::kIdle:
      break;
    case Interval::kAttempt:
      for (size_t i = 0; i < phases.size(); ++i) phases[i] += reported_[i];
      At(phases, config::Phase::kStartup) += launch_overhead_;
      break;
    case Interval::kRecovery:
      At(phases, config::Phase::kRecovery) += length;
      break;
    case Interval::kPausedFree:
      At(phases, config::Phase::kPaused) += length;
      break;
  }
  return phases;
}

double RunClock::UnpaidSeconds(double now) const {
  if (interval_ != Interval::kPausedFree) return unpaid_;
  return unpaid_ + std::max(0.0, now - interval_start_);
}

double RunClock::PaidSeconds(double now) const {
  double paid = Sum(earlier_) - unpaid_;
  if (interval_ == Interval::kAttempt || interval_ == Interval::kRecovery) {
    paid += std::max(0.0, now - interval_start_);
  }
  return paid;
}

RunClock::State RunClock::Save() const {
  return {static_cast<int>(interval_),
          interval_start_,
          earlier_,
          unpaid_,
          reported_,
          launch_overhead_,
          has_report_};
}

RunClock RunClock::Load(const State& state, double shift) {
  RunClock clock;
  clock.interval_ = static_cast<Interval>(state.interval);
  clock.interval_start_ = state.interval_start + shift;
  clock.earlier_ = state.earlier;
  clock.unpaid_ = state.unpaid;
  clock.reported_ = state.reported;
  clock.launch_overhead_ = state.launch_overhead;
  clock.has_report_ = state.has_report;
  return clock;
}

}  // namespace lockstep::launch
