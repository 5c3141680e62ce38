// What a probe reads off a run: the times of its steps, and memory.
#pragma once

#include <cstdint>
#include <vector>

#include "config/probe_report.h"
#include "trainer/comm/communicator.h"
#include "trainer/data/dataset.h"
#include "trainer/device/device.h"
#include "trainer/session.h"

namespace lockstep::trainer {

/// Mean of the middle half: what lies between the quartiles. 0 of nothing.
double MiddleMean(std::vector<double> values);

// Listens to TrainSetup::on_step.
class StepTimes {
 public:
  /// The first `warm_steps` intervals are not counted, nor those from `counted_until` on.
  StepTimes(int64_t warm_steps, int64_t counted_until)
      : warm_steps_(warm_steps), counted_until_(counted_until) {}

  void Begin(Session& run);

  /// Seconds and phases of the steps counted.
  config::ProbedStep Result() const;
  /// Of a phase until the first step, between the last two steps, and until the last step.
  double Before(config::Phase phase) const;
  double BetweenLast(config::Phase phase) const;
  double UntilLast(config::Phase phase) const;
  double startup_seconds() const;
  int64_t reduced_bytes() const { return reduced_bytes_; }

 private:
  using Phases = std::array<double, config::kPhaseCount>;
  const int64_t warm_steps_;
  const int64_t counted_until_;
  std::vector<double> begins_;
  std::vector<Phases> phases_;  // Totals at each beginning.
  int64_t reduced_bytes_ = 0;
};

/// All-reduces from 4 KiB up to `largest_bytes`, each several times, the median. Collective.
/// Nothing with one rank.
std::vector<config::ProbedAllReduce> TimeAllReduces(Communicator& communicator, Device& device,
                                                    int64_t largest_bytes);

// Bytes of the data set per sample.
struct SampleBytes {
  double first = 0;
  double again = 0;  // The next time: 0 where pictures are kept.
};
/// Of a few samples, spread over `dataset`. Throws what reading it throws.
SampleBytes ReadSamples(const Dataset& dataset);
/// All of it, as training with `augment` does; who keeps pictures has them then. Throws as above.
void ReadAhead(const Dataset& dataset, const config::AugmentConfig& augment, int threads);

/// Most that this process has held in memory so far (VmHWM).
int64_t PeakHostBytes();
/// What the ranks of this host may share now: what the kernel calls available, or what this
/// process's control group has left where that is less.
int64_t AvailableHostBytes();

}  // namespace lockstep::trainer
