// Where a run's wall time went, phase by phase, over all attempts and the gaps between them.
//
// The ranks account for their own time and report it as totals of the attempt. What they cannot see
// is added here: the time mpirun needs to start them, what was not reported any more when an
// attempt ended, and the gaps without processes (recovery, paused). So the phases sum to the wall
// time since the first launch. Plain data and arithmetic: `now` is CLOCK_MONOTONIC in seconds.
#pragma once

#include <array>

#include "config/rank_board.h"

namespace lockstep::launch {

using PhaseSeconds = std::array<double, config::kPhaseCount>;

double Sum(const PhaseSeconds& phases);

class RunClock {
 public:
  enum class Interval : int {
    kIdle,        // Before the first launch and after the end: not part of the wall time.
    kAttempt,     // Processes exist (also when they stand still: the ranks report that as paused).
    kRecovery,    // Slots are held, no attempt runs.
    kPausedFree,  // Paused or queued again, without processes and slots: costs nothing.
  };

  /// Ends the interval and starts the next. `crashed`: the unreported rest of an attempt is
  /// recovery, otherwise it is `other`.
  void Switch(Interval next, double now, bool crashed = false);

  /// Newest totals of the attempt. Ignored outside of an attempt.
  void Report(const PhaseSeconds& phases, double now);

  /// Totals over the run's life. Never falls from one call to the next: the unreported tail of a
  /// live attempt is not part of it yet.
  PhaseSeconds Phases(double now) const;
  /// The part of Phases()[kPaused] during which no slots were held.
  double UnpaidSeconds(double now) const;
  /// Seconds in which slots were held, the unreported tail included.
  double PaidSeconds(double now) const;

  Interval interval() const { return interval_; }

  // Everything, for the store.
  struct State {
    int interval = 0;
    double interval_start = 0;
    PhaseSeconds earlier{};
    double unpaid = 0;
    PhaseSeconds reported{};
    double launch_overhead = 0;
    bool has_report = false;
  };
  State Save() const;
  /// `shift` is added to stored times: another boot has another monotonic clock.
  static RunClock Load(const State& state, double shift);

 private:
  Interval interval_ = Interval::kIdle;
  double interval_start_ = 0;
  PhaseSeconds earlier_{};      // Closed intervals.
  double unpaid_ = 0;           // Closed.
  PhaseSeconds reported_{};     // Of this attempt.
  double launch_overhead_ = 0;  // From the launch to the start of the ranks' own accounting.
  bool has_report_ = false;
};

}  // namespace lockstep::launch
