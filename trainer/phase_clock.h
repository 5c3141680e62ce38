// Where this rank's time goes: every moment belongs to exactly one phase, so the phases add up to
// the wall time.
//
// Enter() ends the phase before it, and shows the new one on the rank board, where a hang gets its
// name from. Phases and steps also go to the trace of a run that is profiled.
#pragma once

#include <array>
#include <cstdint>

#include "config/rank_board.h"
#include "trainer/monotonic.h"
#include "trainer/trace.h"

namespace lockstep::trainer {

class PhaseClock {
 public:
  /// The first phase is startup and began with the process. `board` and `trace` may be null; they
  /// must outlive the clock.
  PhaseClock(config::RankBoard* board, int rank, Trace* trace = nullptr);

  void Enter(config::Phase phase);
  /// What follows belongs to this step. With a trace collective, see there.
  void SetStep(int64_t step);

  config::Phase phase() const { return phase_; }
  /// Seconds per phase until now, the open phase included.
  std::array<double, config::kPhaseCount> Seconds() const;
  double WallSeconds() const;  // Since the process started: the sum of Seconds().

 private:
  config::RankBoard* board_;
  int rank_;
  Trace* trace_;
  int64_t step_ = 0;
  config::Phase phase_ = config::Phase::kStartup;
  double entered_;
  std::array<double, config::kPhaseCount> seconds_{};
};

// Enters a phase for a scope and goes back to the one before.
class PhaseScope {
 public:
  PhaseScope(PhaseClock& clock, config::Phase phase) : clock_(clock), before_(clock.phase()) {
    clock_.Enter(phase);
  }
  ~PhaseScope() { clock_.Enter(before_); }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  PhaseClock& clock_;
  config::Phase before_;
};

}  // namespace lockstep::trainer
