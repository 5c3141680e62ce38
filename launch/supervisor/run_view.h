// A run as others see it: as lockstep.v1 messages and as a sample of the metrics. Pure functions.
#pragma once

#include "config/coordinator_config.h"
#include "launch/coordinator/coordinator.h"
#include "lockstep/v1/run.pb.h"
#include "metrics/snapshot.h"

namespace lockstep::launch {

v1::RunState ToProto(RunState state);
v1::CheckpointEvent ToProto(const CheckpointFacts& checkpoint);
CheckpointFacts FactsOf(const v1::CheckpointEvent& checkpoint);
ProgressFacts FactsOf(const v1::Progress& progress);
/// The value of `metric` ("loss" or the name of a score) in an evaluation; NaN where it has none.
double ValueOf(const v1::Evaluation& evaluation, const std::string& metric);

/// The bound under which 99 of 100 steps stayed, from the buckets of metrics/snapshot.h; 0 without
/// steps.
double P99Seconds(const v1::Histogram& histogram);

/// Adds what an attempt did to the totals of the attempts before it. Gauges become the attempt's,
/// once it has some.
void AddToTotals(const v1::Progress& attempt, v1::Progress& totals);

/// What the run has cost and will cost. `coordinator` knows it.
v1::Spending SpendingOf(const Run& run, const Coordinator& coordinator, Now now);

struct ViewContext {
  const Coordinator& coordinator;
  Now now;
  int queue_position = 0;  // 1 = next; 0 = not queued.
};
/// Everything but config_yaml and straggler.
v1::Run ToProto(const Run& run, const v1::Progress& progress, const ViewContext& context);

struct SampleContext {
  const Coordinator& coordinator;
  Now now;
  double last_report_unix = 0;  // When the newest progress came.
  double last_step_unix = 0;    // When the step number last grew.
  bool moving = false;          // Steps are made: what is expected holds.
};
metrics::RunSample ToSample(const Run& run, const v1::Progress& totals,
                            const v1::Progress& progress, const SampleContext& context);

}  // namespace lockstep::launch
