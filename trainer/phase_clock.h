// Where this rank's time goes: every moment belongs to exactly one phase, so the phases add up to
// the wall time.
//
// Enter() ends the phase before it, and shows the new one on the rank board, where a hang gets its
// name from and the ledger its seconds. Phases and steps also go to the trace of a run that is
// profiled.
//
// Two kinds of time are counted as something else than the phase that was entered. Steps that an
// earlier attempt had made already are `redone`. And of the time in a reduce, the part in which the
// slowest rank was waited for is `straggler_wait`; how long that was is known some steps later, and
// until then the time is unsettled. So is the time that the host waits for a GPU: the GPU's own
// times tell in which shares it was forward, backward, all-reduce and optimizer.
#pragma once

#include <array>
#include <cstdint>
#include <deque>

#include "config/rank_board.h"
#include "trainer/monotonic.h"
#include "trainer/trace.h"

namespace lockstep::trainer {

class PhaseClock {
 public:
  /// The first phase is startup and began with the process. Steps below `redone_until` (0-based)
  /// were made before. `board` and `trace` may be null; they must outlive the clock.
  PhaseClock(config::RankBoard* board, int rank, Trace* trace = nullptr, int64_t redone_until = 0);

  void Enter(config::Phase phase);
  /// What follows belongs to this step. With a trace collective, see there.
  void SetStep(int64_t step);

  /// In the reduce of `step` this rank waited so long for the slowest one. Steps before it that
  /// nobody settled had no wait.
  void SettleReduce(int64_t step, double waited_seconds);
  /// What was waited for on a GPU since the last call were the kernels of `step`, which took so
  /// long in each phase (all 0: not known). That is one step later than the step is.
  void TellDevice(int64_t step, const std::array<double, config::kPhaseCount>& phase_seconds);
  /// No more is to come.
  void SettleAll();

  config::Phase phase() const { return phase_; }
  /// Seconds per phase until now, the open phase included; unsettled time is all-reduce.
  std::array<double, config::kPhaseCount> Seconds() const;
  double WallSeconds() const;  // Since the process started: the sum of Seconds().

 private:
  // A step's time in the phases in which a reduce is waited for: on a GPU the device does it.
  struct Reduce {
    int64_t step = 0;  // Until the device's times are told, the one in which it was waited for.
    double allreduce_seconds = 0;
    double device_seconds = 0;
    bool device_told = false;
    std::array<double, config::kPhaseCount> shares{};  // Of device_seconds; all 0: not known.
  };
  config::Phase CountsAs(config::Phase phase) const;
  void Count(config::Phase phase, double seconds);
  void Settle(const Reduce& reduce, double waited_seconds);
  void Show();

  config::RankBoard* board_;
  int rank_;
  Trace* trace_;
  const int64_t redone_until_;
  int64_t step_ = 0;
  bool stepping_ = false;  // The first step was begun.
  config::Phase phase_ = config::Phase::kStartup;
  double entered_;
  std::array<double, config::kPhaseCount> seconds_{};
  std::deque<Reduce> unsettled_;
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
