// Loss and accuracy over the held-out pictures: every rank takes every size()-th one, sums travel
// in float64, each sample counts exactly once.
#pragma once

#include <optional>

#include "config/run_config.h"
#include "trainer/control.h"
#include "trainer/data/dataset.h"
#include "trainer/models/model.h"
#include "trainer/training_state.h"

namespace lockstep::trainer {

struct EvaluateOptions {
  at::Device device = at::kCPU;
  int64_t batch = 100;  // Pictures through the model at once, per rank.
  config::Precision precision = config::Precision::kFp32;
  int prefetch_threads = 1;
  int prefetch_batches = 4;
  Normalization normalization;
};

/// Collective. Leaves the model in training mode. Nothing when the ranks agreed to do something
/// else first; what they agreed on is added to `requests`. The result's step, epoch and seconds are
/// the caller's to fill.
std::optional<EvaluationResult> Evaluate(Model& model, const Dataset& dataset,
                                         Communicator& communicator, Control& control,
                                         const EvaluateOptions& options, Requests& requests);

}  // namespace lockstep::trainer
