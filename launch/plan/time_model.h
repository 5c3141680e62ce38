// How long a training step takes, from a few that were timed: t = b / r + c, and what the
// all-reduce adds.
//
// b is the samples of one rank, r the samples a second it computes, c what a step costs however
// small it is (launches, the optimizer, the loader's and the language's overhead). Where ranks were
// timed over different links or in different numbers, each observation also carries what the
// alpha-beta model (launch/plan/collective_model.h) says its all-reduce takes, and a third
// coefficient says how much of that shows: below 1 where backward hides some, above 1 where the
// links give less than their name promises. Pure.
#pragma once

#include <vector>

#include "absl/status/statusor.h"

namespace lockstep::plan {

struct StepObservation {
  double local_batch = 0;     // Samples of one rank in a step.
  double reduce_seconds = 0;  // Of its all-reduce, modelled; 0 = not asked for.
  double step_seconds = 0;    // Timed.
};

struct StepTimeModel {
  double seconds_per_sample = 0;  // 1 / r
  double seconds_per_step = 0;    // c
  double reduce_factor = 0;       // Exposed all-reduce as a share of the modelled one.
  // Of the observations the model was fitted to: |predicted / timed - 1|.
  double median_error = 0;
  double worst_error = 0;

  double Seconds(double local_batch, double reduce_seconds = 0) const {
    return local_batch * seconds_per_sample + seconds_per_step + reduce_factor * reduce_seconds;
  }
};

/// Least squares on the relative error, every coefficient at least 0. Of five observations and
/// more, one far off the others (a step timed while the machine did something else) counts less, as
/// in Huber's M-estimate (Huber: Robust Estimation of a Location Parameter, 1964). INVALID_ARGUMENT
/// with fewer than three observations, with fewer than two different local batches, or where a
/// number is not above 0.
absl::StatusOr<StepTimeModel> FitStepTime(const std::vector<StepObservation>& observations);

}  // namespace lockstep::plan
